import { pipeline, Readable, Transform } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { promisify } from 'node:util';
import * as zlib from 'node:zlib';
import { constants, createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';

/**
 * Gives decoded bytes as soon as they are there. A body that ends too soon is an error, as it is
 * when the body is read whole.
 */
const FLUSH_AT_ONCE = { flush: constants.Z_SYNC_FLUSH };

/** Whether this Node has zstd, which came with 22.15. */
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

type WholeDecoder = (bytes: Buffer, options: { maxOutputLength?: number | undefined }) => Promise<Buffer>;

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

/** The codings that can be decoded here, as the value of an Accept-Encoding. */
export const DECODABLE = `gzip, deflate, br${HAS_ZSTD ? ', zstd' : ''}`;

/**
 * The most codings that one response may have: each decoder can make many bytes of the few that
 * strangers send.
 */
const MAX_CODINGS = 5;

/**
 * Parses the codings of a body, in the order in which they are decoded; undefined if one is not
 * known, or there are too many.
 */
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
 * Decodes the bytes of a body by the codings that its head names; gives the bytes as they are if
 * one of the codings is not known.
 *
 * @param max the most bytes that are made by decoding, for each coding
 * @throws RangeError with the code ERR_BUFFER_TOO_LARGE if there are more, and zlib's error if the
 *   bytes are malformed
 */
export async function decodeWhole(bytes: Buffer, contentEncoding: string, max: number): Promise<Buffer> {
  let content = bytes;
  for (const coding of parseCodings(contentEncoding) ?? []) {
    content = await WHOLE_DECODERS[coding]!(content, Number.isFinite(max) ? { maxOutputLength: max } : {});
  }
  return content;
}

/** Bounds the decoded body of a stream, and makes the errors that its reader gets. */
export interface DecodedBounds {
  /** max is the size of the largest body, in bytes. */
  readonly max: number;
  /** Creates the error of a body that is larger. */
  tooLarge(): Error;
  /** Gives the error that the reader gets for an error of the stream. */
  errorOf(error: unknown): unknown;
}

/**
 * Decodes a body by the codings that its head names, at the pace of its reader; gives the body as
 * it is if one of the codings is not known.
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
  // An error reaches the reader through the last decoder.
  pipeline([Readable.fromWeb(body as NodeReadableStream), ...decoders], () => {});
  // A body without bytes is an empty body, not one that ends too soon.
  return toByteStream(
    last,
    bounds,
    () => (first as { bytesWritten?: number | undefined }).bytesWritten === 0,
  );
}

/**
 * Makes a byte stream, which also serves readers with a buffer of their own. Readable.toWeb() makes
 * one only from Node 24 on.
 */
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

/**
 * Whether the bytes have the wrapper of zlib: servers send two formats under the name of deflate,
 * and the first byte tells which. Source: RFC 1950, section 2.2.
 */
function isWrapped(bytes: Buffer): boolean {
  return (bytes[0]! & 0x0f) === 8;
}

/** Creates a decoder of deflate that finds out by the first byte which of both formats it gets. */
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
