import { InvalidRequestError } from '../errors.ts';
import { func, validateOptions } from '../internal/validate.ts';
import { type FetchedHead, FetchedResponse } from './fetched-response.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets } from './mesh-target.ts';
import { clientInUse } from './own-client.ts';
import { isReplayable, type RelayRequest } from './relay-request.ts';
import type { ServiceClient, ServiceClientOptions } from './service-client.ts';

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
  /** Waits for the calls under way, and closes the client if it was made for this. */
  close(): Promise<void>;
}

/** Fetch standard, 'HTTP-redirect fetch'. */
const MAX_REDIRECTS = 20;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Bytes of a Request's body up to which it is kept, so that it can be sent again. */
const MAX_IN_MEMORY = 1_048_576;

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
  readonly service: string;
  readonly init: MeshRequestInit;
  readonly signal: AbortSignal | undefined;
  readonly redirect: Request['redirect'];
}

/**
 * A `fetch` that sends requests for services through the mesh, each with the deadline, the retries, the breaker and
 * the balancing of a call. It gives real Responses, and takes what the standard says; for ky, openapi-fetch, ofetch, the
 * OpenAI SDK and others that can be given a `fetch`.
 *
 * As the standard says it rejects with a TypeError, 'fetch failed', where there is no answer; the cause is the
 * HoldfastError. Redirects are followed within the service, and refused to anywhere else. Answers are not asked for
 * compressed, but decompressed if they are.
 *
 * @example
 * const fetch = createFetch(client);
 * const response = await fetch('http://user-service/users/u1');
 */
export function createFetch(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options: MeshFetchOptions = {},
): MeshFetch {
  const owner = 'createFetch()';
  validateOptions(owner, options, { ...MESH_CHECKS, fallback: func });
  const { fallback, route, strict } = options;
  const targets = new MeshTargets(owner, { route, strict } as MeshOptions);
  const { client, owned } = clientInUse(clientOrOptions);

  const fetch = async (input: string | URL | Request, init: MeshRequestInit = {}): Promise<Response> => {
    let service: string | undefined;
    let url: URL;
    try {
      url = new URL(input instanceof Request ? input.url : input);
      service = targets.serviceOf(url);
    } catch (cause) {
      throw new TypeError(`cannot fetch ${String(input)}: ${(cause as Error).message}`, { cause });
    }
    if (service === undefined) return (fallback ?? globalThis.fetch)(input as string, init);
    const request = input instanceof Request ? new Request(input, init) : undefined;
    const signal = request?.signal ?? init.signal ?? undefined;
    signal?.throwIfAborted();
    const redirect = request?.redirect ?? init.redirect ?? 'follow';
    const sent = await (request === undefined ? fromInit(url, init) : fromRequest(url, request));
    return send(client, { service, init, signal, redirect }, sent);
  };
  return Object.assign(fetch, { close: async () => (owned ? client.close() : undefined) });
}

function send(client: ServiceClient, fetching: Fetching, sent: Sent): Promise<Response> {
  const { service, init, signal, redirect } = fetching;
  const { url, method, headers, body } = sent;
  return new Promise((resolve, reject) => {
    const failed = (message: string, error: unknown) =>
      signal?.aborted ? signal.reason : new TypeError(message, { cause: error });
    const handler = new FetchedResponse(method === 'HEAD', {
      wants: (head) => {
        const location = redirect === 'manual' ? undefined : locationOf(head);
        if (location === undefined) return true;
        try {
          const next = redirected(sent, location, head.status, fetching);
          // What is left of this answer is not wanted, and small as a rule.
          resolve(send(client, fetching, next));
        } catch (error) {
          reject(failed('fetch failed', error));
        }
        return false;
      },
      resolve: (response) => resolve(placed(response, url, sent.redirects > 0)),
      reject: (error) => reject(failed('fetch failed', error)),
      bodyError: (error) => failed('terminated', error),
    });
    const { timeout, retries, idempotencyKey, hashKey, select } = init;
    const path = (url.pathname || '/') + url.search;
    client.relay(
      { service, method, path, headers, body, signal, timeout, retries, idempotencyKey, hashKey, select },
      handler,
    );
  });
}

async function fromInit(url: URL, init: MeshRequestInit): Promise<Sent> {
  const method = methodOf(init.method);
  let body = (init.body ?? undefined) as RelayRequest['body'];
  if (body !== undefined && (method === 'GET' || method === 'HEAD')) {
    throw new TypeError(`a request with the method ${method} has no body`);
  }
  const headers = new Map(init.headers === undefined ? [] : new Headers(init.headers));
  if (typeof body === 'string') {
    addDefault(headers, 'content-type', 'text/plain;charset=UTF-8');
  } else if (body instanceof Blob) {
    addDefault(headers, 'content-type', body.type);
  } else if (body instanceof FormData) {
    // undici takes no form of another undici's, as the one of Node.
    const form = new Response(body);
    addDefault(headers, 'content-type', form.headers.get('content-type')!);
    body = await inMemory(form.body!);
  }
  addDefault(headers, 'accept', '*/*');
  return { url, method, headers, body, redirects: 0 };
}

async function fromRequest(url: URL, request: Request): Promise<Sent> {
  const headers = new Map(request.headers);
  addDefault(headers, 'accept', '*/*');
  const body = request.body === null ? undefined : await inMemory(request.body);
  return { url, method: request.method, headers, body, redirects: 0 };
}

function addDefault(headers: Map<string, string>, name: string, value: string): void {
  if (value !== '' && !headers.has(name)) headers.set(name, value);
}

/** Fetch standard, 'normalize a method'. */
function methodOf(method = 'GET'): string {
  const upper = method.toUpperCase();
  return /^(?:DELETE|GET|HEAD|OPTIONS|POST|PUT)$/.test(upper) ? upper : method;
}

/**
 * The body of a Request is a stream whatever it was made of. What fits into memory is sent with its length, and can be
 * sent again; the rest of what does not follows as it comes.
 */
async function inMemory(body: ReadableStream<Uint8Array>): Promise<RelayRequest['body']> {
  const reader = body.getReader();
  const chunks: Uint8Array[] = [];
  for (let size = 0; size <= MAX_IN_MEMORY; ) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks);
    chunks.push(value);
    size += value.length;
  }
  return (async function* () {
    yield* chunks;
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  })();
}

function locationOf({ status, headers }: FetchedHead): string | undefined {
  const { location } = headers;
  return REDIRECTS.has(status) && typeof location === 'string' ? location : undefined;
}

/**
 * What a redirect asks for. Fetch standard, 'HTTP-redirect fetch'; but an answer does not choose where a request goes.
 *
 * @throws InvalidRequestError if it may not, or cannot, be followed.
 */
function redirected(sent: Sent, location: string, status: number, { service, redirect }: Fetching): Sent {
  const where = `'${service}' redirects to ${JSON.stringify(location).slice(0, 200)}`;
  if (redirect === 'error') throw new InvalidRequestError(`${where}, and the request asks for an error then`);
  const url = URL.canParse(location, sent.url.href) ? new URL(location, sent.url) : undefined;
  if (url?.protocol !== sent.url.protocol || url.host !== sent.url.host) {
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

/** The Response as if it had been fetched, which one that is made cannot say of itself. */
function placed(response: Response, { href, hash }: URL, redirected: boolean): Response {
  const url = hash === '' ? href : href.slice(0, -hash.length);
  return Object.defineProperties(response, { url: { value: url }, redirected: { value: redirected } });
}
