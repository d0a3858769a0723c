import { pipeline, Readable, Transform } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { constants, createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';

/** As browsers do: an answer that ends too soon gives what is there. */
const LENIENT = { flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH };

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: () => createGunzip(LENIENT),
  'x-gzip': () => createGunzip(LENIENT),
  deflate: createInflateOfEither,
  br: () =>
    createBrotliDecompress({
      flush: constants.BROTLI_OPERATION_FLUSH,
      finishFlush: constants.BROTLI_OPERATION_FLUSH,
    }),
};

/** Decoders that one answer may ask for: each makes more of what strangers send. */
const MAX_CODINGS = 5;

/**
 * The body without the codings that its head names, decoded at the pace of its reader; the body as it is if one of
 * them is not known.
 *
 * @param errorOf what the reader is told of an error
 */
export function decoded(
  body: ReadableStream,
  contentEncoding: string,
  errorOf: (error: unknown) => unknown,
): ReadableStream {
  const codings = contentEncoding
    .toLowerCase()
    .split(',')
    .map((coding) => coding.trim());
  const known = codings.every((coding) => Object.hasOwn(DECODERS, coding));
  if (!known || codings.length > MAX_CODINGS) return body;
  const decoders = codings.reverse().map((coding) => DECODERS[coding]!());
  const last = decoders.at(-1)!;
  // An error reaches the reader through the last of them.
  pipeline([Readable.fromWeb(body as NodeReadableStream), ...decoders], () => {});
  return bytesOf(last, errorOf);
}

/** A stream for readers with a buffer of their own too, which Readable.toWeb() makes from Node 24 on. */
function bytesOf(last: Readable, errorOf: (error: unknown) => unknown): ReadableStream {
  const chunks = last.on('error', () => {})[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  return new ReadableStream(
    {
      type: 'bytes',
      async pull(stream) {
        const { done, value } = await chunks.next().catch((error) => {
          throw errorOf(error);
        });
        if (!done) {
          stream.enqueue(new Uint8Array(value));
        } else {
          stream.close();
          stream.byobRequest?.respond(0);
        }
      },
      cancel: (reason) => void last.destroy(reason instanceof Error ? reason : undefined),
    },
    { highWaterMark: 0 },
  );
}

/** Servers send two formats under the name of deflate, and the first byte tells which: RFC 1950, section 2.2. */
function createInflateOfEither(): Transform {
  let inflate: Transform | undefined;
  const stream: Transform = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      if (inflate === undefined) {
        inflate = (chunk[0]! & 0x0f) === 8 ? createInflate(LENIENT) : createInflateRaw(LENIENT);
        inflate.on('data', (data) => stream.push(data) || inflate!.pause());
        inflate.on('error', (error) => stream.destroy(error));
      }
      inflate.write(chunk, () => callback());
    },
    flush(callback) {
      if (inflate === undefined) callback();
      else inflate.once('end', () => callback()).end();
    },
    read(size) {
      inflate?.resume();
      Transform.prototype._read.call(stream, size);
    },
    destroy(error, callback) {
      inflate?.destroy();
      callback(error);
    },
  });
  return stream;
}
