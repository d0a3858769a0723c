import { Readable } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { isRetrieval } from './methods.ts';
import type { RelayRequest } from './relay-request.ts';

/** A request as it goes to an instance, after the redirects that it has followed. */
export interface FetchRequest {
  readonly url: URL;
  readonly method: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: RelayRequest['body'];
  readonly redirects: number;
}

/**
 * The most bytes of a Request's body that are kept so that they can be sent again, and the most
 * milliseconds to wait for them.
 */
const MAX_IN_MEMORY = 1_048_576;
const MAX_WAIT = 1_000;

/**
 * Whether the input is a Request, of any undici: to one undici the Request of another is no more
 * than a plain object.
 */
export function isRequest(input: unknown): input is Request {
  if (input instanceof Request) return true;
  const { [Symbol.toStringTag]: tag, url } = Object(input) as {
    [Symbol.toStringTag]?: unknown;
    url?: unknown;
  };
  return tag === 'Request' && typeof url === 'string';
}

/** Gives the Request, or one of the global class in its place, its body included. */
export function toOwnRequest(request: Request): Request {
  if (request instanceof Request) return request;
  const { url, method, headers, body, redirect, signal } = request as Request;
  return new Request(url, {
    method,
    headers: [...headers],
    body,
    redirect,
    signal,
    ...(body !== null && { duplex: 'half' }),
  } as RequestInit);
}

/**
 * Prepares the request of a URL and its options.
 *
 * @param allowGetBody whether a GET or HEAD may have a body
 * @throws TypeError if the standard does not allow the request
 */
export async function prepareInit(url: URL, init: RequestInit, allowGetBody: boolean): Promise<FetchRequest> {
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('a URL with a user name or a password cannot be fetched: send them as a header');
  }
  const method = normalizeMethod(init.method);
  let body = (init.body ?? undefined) as RelayRequest['body'];
  if (body !== undefined && isRetrieval(method) && !allowGetBody) {
    throw new TypeError(`a request with the method ${method} has no body`);
  }
  const headers = new Map(init.headers === undefined ? [] : new Headers(init.headers));
  if (typeof body === 'string') {
    addDefault(headers, 'content-type', 'text/plain;charset=UTF-8');
  } else if (body instanceof URLSearchParams) {
    addDefault(headers, 'content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
    body = body.toString();
  } else if (body instanceof Blob) {
    addDefault(headers, 'content-type', body.type);
  } else if (ArrayBuffer.isView(body)) {
    // A copy: the caller may change the bytes before the last attempt.
    body = Buffer.copyBytesFrom(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
  } else if (body instanceof ArrayBuffer) {
    body = Buffer.copyBytesFrom(new Uint8Array(body));
  } else if (body instanceof ReadableStream) {
    body = toReadable(body);
  }
  addDefault(headers, 'accept', '*/*');
  return { url, method, headers, body, redirects: 0 };
}

/** Prepares the request of a Request. */
export async function prepareRequest(
  url: URL,
  request: Request,
  signal: AbortSignal | undefined,
): Promise<FetchRequest> {
  const headers = new Map(request.headers);
  addDefault(headers, 'accept', '*/*');
  const body = request.body === null ? undefined : await readIntoMemory(request.body, signal);
  return { url, method: request.method, headers, body, redirects: 0 };
}

function addDefault(headers: Map<string, string>, name: string, value: string): void {
  if (value !== '' && !headers.has(name)) headers.set(name, value);
}

/** Source: Fetch standard, 'normalize a method' and 'forbidden method'. */
function normalizeMethod(method = 'GET'): string {
  const upper = String(method).toUpperCase();
  if (/^(?:CONNECT|TRACE|TRACK)$/.test(upper)) throw new TypeError(`the method ${upper} cannot be fetched`);
  return /^(?:DELETE|GET|HEAD|OPTIONS|POST|PUT)$/.test(upper) ? upper : method;
}

/**
 * Reads the body of a Request, which is a stream whatever it was made of. A body that is soon in
 * memory is sent with its length, and can be sent again; any other is sent as it comes.
 */
async function readIntoMemory(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<RelayRequest['body']> {
  const reader = body.getReader();
  const chunks: Uint8Array[] = [];
  let stop!: () => void;
  const stopped = new Promise<undefined>((resolve) => {
    stop = () => resolve(undefined);
  });
  const timer = setTimeout(stop, MAX_WAIT);
  signal?.addEventListener('abort', stop);
  if (signal?.aborted) stop();
  try {
    for (let size = 0; size <= MAX_IN_MEMORY; ) {
      const next = await Promise.race([reader.read(), stopped]);
      if (next === undefined) break;
      if (next.done) return Buffer.concat(chunks);
      chunks.push(next.value);
      size += next.value.length;
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
  reader.releaseLock();
  if (signal?.aborted) await body.cancel(signal.reason);
  signal?.throwIfAborted();
  const rest = toReadable(body);
  rest.unshift(Buffer.concat(chunks));
  return rest;
}

/**
 * Gives a stream of Node's, which undici ends as soon as the request has ended: it would first wait
 * for the next chunk of a web stream.
 */
function toReadable(body: ReadableStream): Readable {
  return Readable.fromWeb(body as NodeReadableStream);
}
