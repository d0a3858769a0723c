import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Hold } from '../idempotency/key-lock.ts';

type Callback = (error?: Error | null) => void;
type Chunk = string | Uint8Array;

/**
 * Keeps what a response of node:http sends under the idempotency key. The end of the answer is held back until it is
 * kept, so that nobody has seen an answer that is not given again.
 */
export function keepAnswer(response: ServerResponse, hold: Hold): void {
  const write = response.write as (...args: unknown[]) => boolean;
  const end = response.end as (...args: unknown[]) => ServerResponse;
  const writeHead = response.writeHead as (...args: unknown[]) => ServerResponse;
  const body = new Body(hold.maxAnswerSize);
  let head: { status: number; headers: OutgoingHttpHeaders } | undefined;
  let ended = false;
  let passing = false;

  response.writeHead = (...args: unknown[]) => {
    head = { status: args[0] as number, headers: { ...response.getHeaders(), ...headersIn(args.at(-1)) } };
    return writeHead.apply(response, args);
  };

  response.write = (...args: unknown[]) => {
    // HTTP/2 writes the last chunk this way when it ends.
    if (passing) return write.apply(response, args);
    if (ended) return false;
    const [chunk, encoding] = args as [Chunk, BufferEncoding | Callback | undefined];
    body.add(chunk, encoding);
    return write.apply(response, args);
  };

  response.end = (...args: unknown[]) => {
    if (ended) return response;
    const [chunk, encoding] = args as [Chunk | Callback | undefined, BufferEncoding | Callback | undefined];
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') body.add(chunk, encoding);
    ended = true;
    if (!response.headersSent) {
      announceLength(response, body.length);
      response.writeHead(response.statusCode);
    }
    const { status, headers } = head!;
    const kept = body.tooLarge ? hold.release() : hold.complete({ status, headers, body: body.bytes() });
    // To the application it has ended.
    Object.defineProperty(response, 'writableEnded', { value: true, configurable: true });
    const finish = () => {
      delete (response as { writableEnded?: boolean }).writableEnded;
      passing = true;
      end.apply(response, args);
    };
    // What Node throws of an end, as where it does not fit the length that was announced, has no caller any more.
    void Promise.resolve(kept)
      .then(finish)
      .catch((error) => void response.destroy(error));
    return response;
  };
}

/** As Node does for an answer that ends with its first chunk. */
function announceLength(response: ServerResponse, length: number): void {
  const { statusCode } = response;
  if (statusCode === 204 || statusCode === 304) return;
  if (response.hasHeader('content-length') || response.hasHeader('transfer-encoding')) return;
  response.setHeader('content-length', length);
}

/** The headers that were given with the head: an object, or a list of names and values in turn, or of pairs. */
function headersIn(given: unknown): OutgoingHttpHeaders {
  if (typeof given !== 'object' || given === null) return {};
  if (!Array.isArray(given)) return lowerCase(Object.entries(given));
  const pairs: [string, string][] = [];
  const list = given.flat();
  for (let index = 0; index + 1 < list.length; index += 2) pairs.push([list[index], list[index + 1]]);
  return lowerCase(pairs);
}

function lowerCase(pairs: Iterable<[string, string | string[]]>): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of pairs) {
    const lower = name.toLowerCase();
    const before = headers[lower];
    headers[lower] = before === undefined ? value : [before, value].flat();
  }
  return headers;
}

/** The bytes that were sent, as long as they may be kept. */
class Body {
  readonly #max: number;
  #chunks: Uint8Array[] = [];
  length = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get tooLarge(): boolean {
    return this.length > this.#max;
  }

  add(chunk: Chunk, encoding: BufferEncoding | Callback | undefined): void {
    // A copy: whoever wrote it may use its buffer again.
    const bytes =
      typeof chunk === 'string'
        ? Buffer.from(chunk, typeof encoding === 'string' ? encoding : 'utf8')
        : Buffer.from(chunk);
    this.length += bytes.length;
    if (this.tooLarge) this.#chunks = [];
    else this.#chunks.push(bytes);
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
