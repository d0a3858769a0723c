import { Readable } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { InvalidRequestError } from '../errors.ts';
import { func, validateOptions } from '../internal/validate.ts';
import { asError } from './exchange.ts';
import { type FetchedHead, FetchedResponse } from './fetched-response.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets } from './mesh-target.ts';
import type { Relay } from './relay.ts';
import { isReplayable, type RelayRequest } from './relay-request.ts';

export interface MeshFetchOptions extends MeshOptions {
  /** Takes the requests that are not the mesh's. Default: the global `fetch`. */
  fallback?: typeof fetch;
}

/** What a request can be given besides what `fetch` knows. */
export type MeshRequestInit = RequestInit &
  Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'>;

/** As the global `fetch`, for services of the mesh too. */
export interface MeshFetch {
  (input: string | URL | Request, init?: MeshRequestInit): Promise<Response>;
  /** Closes the client if it was made for this, which waits for the calls under way; else it does nothing. */
  close(): Promise<void>;
}

/** Fetch standard, 'HTTP-redirect fetch'. */
const MAX_REDIRECTS = 20;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** What of a Request's body is kept, so that it can be sent again: so many bytes, if they are there in so many ms. */
const MAX_IN_MEMORY = 1_048_576;
const MAX_WAIT = 1_000;

/** A request as it goes to an instance; the redirects that it has followed are behind it. */
interface Sent {
  readonly url: URL;
  readonly method: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: RelayRequest['body'];
  readonly redirects: number;
}

/** What stays the same through all redirects. */
interface Fetching {
  readonly client: Relay;
  readonly targets: MeshTargets;
  readonly service: string;
  readonly init: MeshRequestInit;
  readonly signal: AbortSignal | undefined;
  /** Kept, since the signal of a Request is only aborted for as long as there is the Request. */
  readonly input: string | URL | Request;
  readonly redirect: Request['redirect'];
  /** When the timeout of the request is over, if it has one of its own. */
  readonly deadline: number;
}

/**
 * A `fetch` over a client.
 *
 * @throws TypeError naming the option that is not what it must be.
 */
export function meshFetch(client: Relay, ownsClient: boolean, options: MeshFetchOptions = {}): MeshFetch {
  const owner = 'createFetch()';
  validateOptions(owner, options, { ...MESH_CHECKS, fallback: func });
  const { fallback, route, strict } = options;
  const targets = new MeshTargets(owner, { route, strict });

  const fetch = async (input: string | URL | Request, given?: MeshRequestInit): Promise<Response> => {
    const init = given ?? {};
    let service: string | undefined;
    let url: URL;
    try {
      url = new URL(input instanceof Request ? input.url : input);
      service = targets.serviceOf(url);
    } catch (error) {
      const invalid = (error as NodeJS.ErrnoException).code === 'ERR_INVALID_URL';
      const cause = invalid ? new InvalidRequestError('it is not a URL') : error;
      // biome-ignore lint/style/useErrorCause: the error of Node has the whole URL, with its query
      throw new TypeError(`cannot fetch ${nameOf(input)}: ${(cause as Error).message}`, { cause });
    }
    if (service === undefined) return (fallback ?? globalThis.fetch)(input as string, given);
    const request = input instanceof Request ? new Request(input, init) : undefined;
    const signal =
      (init.signal === undefined && input instanceof Request ? input.signal : init.signal) ?? undefined;
    const redirect = request?.redirect ?? init.redirect ?? 'follow';
    const deadline = init.timeout === undefined ? Infinity : performance.now() + init.timeout;
    const fetching = { client, targets, service, init, signal, input, redirect, deadline };
    let sent: Sent;
    try {
      sent = await (request === undefined ? fromInit(url, init, signal) : fromRequest(url, request, signal));
    } catch (error) {
      throw errorFor(signal, 'fetch failed', error);
    }
    if (signal?.aborted) {
      if (sent.body instanceof Readable) sent.body.on('error', () => {}).destroy(asError(signal.reason));
      throw signal.reason;
    }
    return send(fetching, sent);
  };
  return Object.assign(fetch, { close: async () => (ownsClient ? client.close() : undefined) });
}

function send(fetching: Fetching, sent: Sent): Promise<Response> {
  const { client, service, init, signal, redirect } = fetching;
  const { url, method, headers, body } = sent;
  const { retries, idempotencyKey, hashKey, select } = init;
  const timeout = sent.redirects === 0 ? init.timeout : timeLeft(fetching);
  const path = (url.pathname || '/') + url.search;
  // Apart from what leads to the promise: the answer's reader may outlive the Response.
  const bodyError = (error: unknown) => errorFor(fetching.signal, 'terminated', error);
  const origin = { url: withoutFragment(url), redirected: sent.redirects > 0 };
  return new Promise((resolve, reject) => {
    const handler = new FetchedResponse(method === 'HEAD', origin, bodyError, {
      wants: (head) => {
        const location = redirect === 'manual' ? undefined : locationOf(head);
        if (location === undefined) return true;
        try {
          const next = redirected(sent, location, head.status, fetching);
          // What is left of this answer is not wanted, and small as a rule.
          resolve(send(fetching, next));
        } catch (error) {
          reject(errorFor(signal, 'fetch failed', error));
        }
        return false;
      },
      resolve,
      reject: (error) => reject(errorFor(signal, 'fetch failed', error)),
    });
    client.relay(
      { service, method, path, headers, body, signal, timeout, retries, idempotencyKey, hashKey, select },
      handler,
    );
  });
}

/** What the caller is told of an error: the reason, if it has given up itself. */
function errorFor(signal: AbortSignal | undefined, message: string, error: unknown): unknown {
  if (signal?.aborted) return signal.reason;
  return error instanceof TypeError ? error : new TypeError(message, { cause: error });
}

/** Without a query and a password, which no log must have. */
function nameOf(input: string | URL | Request): string {
  const [name] = String(input instanceof Request ? input.url : input).split(/[?#]/, 1);
  return name!.replace(/\/\/[^/]*@/, '//').slice(0, 200);
}

function timeLeft({ deadline }: Fetching): number | undefined {
  return deadline === Infinity ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
}

async function fromInit(url: URL, init: MeshRequestInit, signal: AbortSignal | undefined): Promise<Sent> {
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('a URL with a user name or a password cannot be fetched: send them as a header');
  }
  const method = methodOf(init.method);
  let body = (init.body ?? undefined) as RelayRequest['body'];
  if (body !== undefined && (method === 'GET' || method === 'HEAD')) {
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
  } else if (body instanceof FormData) {
    // undici takes no form of another undici's, as the one of Node.
    const form = new Response(body);
    addDefault(headers, 'content-type', form.headers.get('content-type')!);
    body = await inMemory(form.body!, signal);
  } else if (ArrayBuffer.isView(body)) {
    // As they are now, whatever becomes of them until the last try.
    body = Buffer.copyBytesFrom(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
  } else if (body instanceof ArrayBuffer) {
    body = Buffer.copyBytesFrom(new Uint8Array(body));
  } else if (body instanceof ReadableStream) {
    body = readableOf(body);
  }
  addDefault(headers, 'accept', '*/*');
  return { url, method, headers, body, redirects: 0 };
}

async function fromRequest(url: URL, request: Request, signal: AbortSignal | undefined): Promise<Sent> {
  const headers = new Map(request.headers);
  addDefault(headers, 'accept', '*/*');
  const body = request.body === null ? undefined : await inMemory(request.body, signal);
  return { url, method: request.method, headers, body, redirects: 0 };
}

function addDefault(headers: Map<string, string>, name: string, value: string): void {
  if (value !== '' && !headers.has(name)) headers.set(name, value);
}

/** Fetch standard, 'normalize a method' and 'forbidden method'. */
function methodOf(method = 'GET'): string {
  const upper = String(method).toUpperCase();
  if (/^(?:CONNECT|TRACE|TRACK)$/.test(upper)) throw new TypeError(`the method ${upper} cannot be fetched`);
  return /^(?:DELETE|GET|HEAD|OPTIONS|POST|PUT)$/.test(upper) ? upper : method;
}

/**
 * The body of a Request is a stream whatever it was made of. What is soon in memory is sent with its length, and can be
 * sent again; any other is sent as it comes.
 */
async function inMemory(
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
  const rest = readableOf(body);
  rest.unshift(Buffer.concat(chunks));
  return rest;
}

/** undici ends these when the request has ended; of a web stream it would wait for the next chunk first. */
function readableOf(body: ReadableStream): Readable {
  return Readable.fromWeb(body as NodeReadableStream);
}

function locationOf({ status, headers }: FetchedHead): string | undefined {
  const { location } = headers;
  if (!REDIRECTS.has(status) || typeof location !== 'string') return undefined;
  // Headers are read as Latin-1, a location as UTF-8.
  return Buffer.from(location, 'latin1').toString();
}

/**
 * What a redirect asks for. Fetch standard, 'HTTP-redirect fetch'; but an answer does not choose where a request goes.
 *
 * @throws InvalidRequestError if it may not, or cannot, be followed.
 */
function redirected(sent: Sent, location: string, status: number, fetching: Fetching): Sent {
  const { service, targets, redirect } = fetching;
  const where = `'${service}' redirects to ${JSON.stringify(location.split(/[?#]/, 1)[0]).slice(0, 200)}`;
  if (redirect === 'error') throw new InvalidRequestError(`${where}, and the request asks for an error then`);
  const url = URL.canParse(location, sent.url.href) ? new URL(location, sent.url) : undefined;
  if (url === undefined || targets.serviceOf(url) !== service) {
    throw new InvalidRequestError(`${where}, and is followed only within the service`);
  }
  if (sent.redirects === MAX_REDIRECTS) throw new InvalidRequestError(`${where}, once too often`);
  const redirects = sent.redirects + 1;
  const { method } = sent;
  const asPost = method === 'POST' && (status === 301 || status === 302);
  if (asPost || (status === 303 && method !== 'GET' && method !== 'HEAD')) {
    const headers = new Map([...sent.headers].filter(([name]) => !name.startsWith('content-')));
    return { url, method: 'GET', headers, body: undefined, redirects };
  }
  if (sent.body !== undefined && !isReplayable(sent.body)) {
    throw new InvalidRequestError(`${where}, and the body, a stream, cannot be sent again`);
  }
  return { ...sent, url, redirects };
}

function withoutFragment({ href, hash }: URL): string {
  return hash === '' ? href : href.slice(0, -hash.length);
}
