import { pipeline, Readable, Transform } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { constants, createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';

/** What has come is given at once. A body that ends too soon is an error, as it is for who reads it whole. */
const FLUSH_AT_ONCE = { flush: constants.Z_SYNC_FLUSH };

/** Node has it from 22.15 on. */
const HAS_ZSTD = typeof zlib.createZstdDecompress === 'function';

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: () => createGunzip(FLUSH_AT_ONCE),
  'x-gzip': () => createGunzip(FLUSH_AT_ONCE),
  deflate: createAnyInflate,
  br: () => createBrotliDecompress({ flush: constants.BROTLI_OPERATION_FLUSH }),
  ...(HAS_ZSTD && {
    zstd: () => zlib.createZstdDecompress({ flush: constants.ZSTD_e_flush }),
  }),
};

type WholeDecoder = (bytes: Buffer, options: { maxOutputLength?: number }) => Promise<Buffer>;

const gunzip: WholeDecoder = promisify(zlib.gunzip);
const inflate: WholeDecoder = promisify(zlib.inflate);
const inflateRaw: WholeDecoder = promisify(zlib.inflateRaw);

const WHOLE_DECODERS: Readonly<Record<string, WholeDecoder>> = {
  gzip: gunzip,
  'x-gzip': gunzip,
  deflate: (bytes, options) => (isWrapped(bytes) ? inflate : inflateRaw)(bytes, options),
  br: promisify(zlib.brotliDecompress),
  ...(HAS_ZSTD && { zstd: promisify(zlib.zstdDecompress) as WholeDecoder }),
};

/** What can be decoded here, as the value of an Accept-Encoding. */
export const DECODABLE = `gzip, deflate, br${HAS_ZSTD ? ', zstd' : ''}`;

/** Decoders that one answer may ask for: each makes more of what strangers send. */
const MAX_CODINGS = 5;

/** The codings of a body, in the order in which they are taken off; undefined if one is not known, or there are too many. */
function parseCodings(contentEncoding: string): string[] | undefined {
  const codings = contentEncoding
    .toLowerCase()
    .split(',')
    .map((coding) => coding.trim())
    .filter((coding) => coding !== 'identity' && coding !== '');
  const known = codings.every((coding) => Object.hasOwn(DECODERS, coding));
  return known && codings.length <= MAX_CODINGS ? codings.reverse() : undefined;
}

/**
 * The bytes of a body without the codings that its head names; the bytes as they are if one of them is not known.
 *
 * @param max of the bytes, after each coding that is taken off: no more than these are made
 * @throws RangeError with the code ERR_BUFFER_TOO_LARGE if there are more, and what zlib says of bytes that are malformed
 */
export async function decodeWhole(bytes: Buffer, contentEncoding: string, max: number): Promise<Buffer> {
  let content = bytes;
  for (const coding of parseCodings(contentEncoding) ?? []) {
    content = await WHOLE_DECODERS[coding]!(content, Number.isFinite(max) ? { maxOutputLength: max } : {});
  }
  return content;
}

/** What the decoded body of a stream must keep to. */
export interface DecodedBounds {
  /** In bytes. */
  readonly max: number;
  /** What the reader is told of a body that has more. */
  tooLarge(): Error;
  /** What the reader is told of an error. */
  errorOf(error: unknown): unknown;
}

/**
 * The body without the codings that its head names, decoded at the pace of its reader; the body as it is if one of
 * them is not known.
 */
export function decodeStream(
  body: ReadableStream,
  contentEncoding: string,
  bounds: DecodedBounds,
): ReadableStream {
  const decoders = parseCodings(contentEncoding)?.map((coding) => DECODERS[coding]!()) ?? [];
  const [first] = decoders;
  const last = decoders.at(-1);
  if (first === undefined || last === undefined) return body;
  // An error reaches the reader through the last of them.
  pipeline([Readable.fromWeb(body as NodeReadableStream), ...decoders], () => {});
  // A body of no bytes is none, and not one that ends too soon.
  return toByteStream(last, bounds, () => (first as { bytesWritten?: number }).bytesWritten === 0);
}

/** A stream for readers with a buffer of their own too, which Readable.toWeb() makes from Node 24 on. */
function toByteStream(
  last: Readable,
  { max, tooLarge, errorOf }: DecodedBounds,
  isEmpty: () => boolean,
): ReadableStream {
  let size = 0;
  const chunks = last.on('error', () => {})[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  return new ReadableStream(
    {
      type: 'bytes',
      async pull(stream) {
        const { done, value } = await chunks.next().catch((error) => {
          if (error.code === 'Z_BUF_ERROR' && isEmpty()) return { done: true, value: undefined } as const;
          throw errorOf(error);
        });
        size += value?.length ?? 0;
        if (size > max) {
          const error = tooLarge();
          last.destroy(error);
          throw errorOf(error);
        }
        if (done !== true) {
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
function isWrapped(bytes: Buffer): boolean {
  return (bytes[0]! & 0x0f) === 8;
}

function createAnyInflate(): Transform {
  let inflate: Transform | undefined;
  const stream: Transform = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      if (inflate === undefined) {
        inflate = isWrapped(chunk) ? createInflate(FLUSH_AT_ONCE) : createInflateRaw(FLUSH_AT_ONCE);
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
