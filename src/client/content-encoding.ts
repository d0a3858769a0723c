import { pipeline, Readable, type Transform } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { constants, createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';

/** As browsers do: an answer that ends too soon gives what is there. */
const LENIENT = { flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH };

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: () => createGunzip(LENIENT),
  'x-gzip': () => createGunzip(LENIENT),
  deflate: () => createInflate(LENIENT),
  br: () =>
    createBrotliDecompress({
      flush: constants.BROTLI_OPERATION_FLUSH,
      finishFlush: constants.BROTLI_OPERATION_FLUSH,
    }),
};

/** Decoders that one answer may ask for: each makes more of what strangers send. */
const MAX_CODINGS = 5;

/** The body without the codings that its head names; the body as it is if one of them is not known. */
export function decoded(body: ReadableStream, contentEncoding: string): ReadableStream {
  const codings = contentEncoding
    .toLowerCase()
    .split(',')
    .map((coding) => coding.trim());
  const known = codings.every((coding) => Object.hasOwn(DECODERS, coding));
  if (!known || codings.length > MAX_CODINGS) return body;
  const decoders = codings.reverse().map((coding) => DECODERS[coding]!());
  const source = Readable.fromWeb(body as NodeReadableStream);
  const last = decoders.at(-1)!;
  // An error reaches the reader through the last of them.
  pipeline([source, ...decoders], () => {});
  return Readable.toWeb(last) as ReadableStream;
}
