import { Readable } from 'node:stream';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isFunction, validateOptions } from '../internal/validate.ts';
import { checkOptions, warnOfNearMisses } from './call-options.ts';
import { asError } from './exchange.ts';
import { type FetchedHead, FetchedResponse } from './fetched-response.ts';
import { MESH_CHECKS, type MeshOptions, MeshTargets } from './mesh-target.ts';
import { isRetrieval } from './methods.ts';
import { leastTimeout, TIMEOUT_HEADER } from './propagation.ts';
import type { Relay } from './relay.ts';
import { isReplayable, type RelayRequest } from './relay-request.ts';

export interface MeshFetchOptions extends MeshOptions {
  /** Takes the requests that are not the mesh's. Default: the global `fetch`. */
  fallback?: typeof fetch;
}

/** What a request can be given besides what `fetch` knows. */
export type MeshRequestInit = RequestInit &
  Pick<RelayRequest, 'timeout' | 'retries' | 'idempotencyKey' | 'hashKey' | 'select'>;

/** Where an adapter of another client says what it adds to a request: nobody else can. */
export const ADAPTED = Symbol('adapted');

/** What an adapter of another client adds to a request. */
export interface Adapted {
  [ADAPTED]?: {
    /** Milliseconds after which the caller gives up: the lesser of it and the timeout of the call is the deadline. */
    readonly timeLimit: number | undefined;
    /** Whether a body that is encoded is decoded. */
    readonly decode: boolean;
  };
}

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
  readonly init: MeshRequestInit & Adapted;
  readonly signal: AbortSignal | undefined;
  /** Kept, since the signal of a Request is only aborted for as long as there is the Request. */
  readonly input: string | URL | Request;
  readonly redirect: Request['redirect'];
  /** Milliseconds that the request has, if it says. */
  readonly timeout: number | undefined;
  /** When they are over. */
  readonly deadline: number;
  /** `performance.now()` when it was made: the `X-Request-Timeout` of its headers counts from there. */
  readonly startedAt: number;
  readonly rules: FetchRules;
}

/** What makes the fetch, and where that differs from what the standard says. */
export interface FetchRules {
  /** As errors name it. */
  readonly owner: string;
  /** Whether a GET or HEAD may have a body, as with Node's own client. */
  readonly bodyWithAny: boolean;
}

const STANDARD: FetchRules = { owner: 'createFetch()', bodyWithAny: false };

/**
 * A `fetch` over a client.
 *
 * @throws TypeError naming the option that is not what it must be.
 */
export function meshFetch(
  client: Relay,
  ownsClient: boolean,
  options: MeshFetchOptions = {},
  rules: FetchRules = STANDARD,
): MeshFetch {
  const { owner } = rules;
  validateOptions(owner, options, { ...MESH_CHECKS, fallback: isFunction });
  const { fallback, route, strict } = options;
  const targets = new MeshTargets(owner, { route, strict });

  const fetch = async (input: string | URL | Request, given?: MeshRequestInit): Promise<Response> => {
    const init = given ?? {};
    const isRequest = isRequestOfAny(input);
    let service: string | undefined;
    let url: URL;
    try {
      url = new URL(isRequest ? input.url : input);
      service = targets.serviceOf(url);
    } catch (error) {
      const invalid = (error as NodeJS.ErrnoException).code === 'ERR_INVALID_URL';
      const cause = invalid ? new InvalidRequestError('it is not a URL') : error;
      // biome-ignore lint/style/useErrorCause: the error of Node has the whole URL, with its query
      throw new TypeError(`cannot fetch ${nameOf(input)}: ${(cause as Error).message}`, { cause });
    }
    if (service === undefined) {
      const nearMiss = targets.nearMissOf(url);
      if (nearMiss !== undefined) client.notePassthrough(nearMiss);
      return (fallback ?? globalThis.fetch)(input as string, given);
    }
    warnOfNearMisses(init);
    const signal = (init.signal === undefined && isRequest ? input.signal : init.signal) ?? undefined;
    const { retries, hashKey, select } = init;
    try {
      checkOptions({ timeout: init.timeout, retries, hashKey, select, signal });
    } catch (cause) {
      throw new TypeError((cause as Error).message, { cause });
    }
    const timeout = timeoutOf(init, client.policies(service).timeout);
    const request = isRequest ? new Request(ownRequest(input), init) : undefined;
    const redirect = request?.redirect ?? init.redirect ?? 'follow';
    const startedAt = performance.now();
    const deadline = timeout === undefined ? Infinity : startedAt + timeout;
    const times = { timeout, deadline, startedAt };
    const fetching = { client, targets, service, init, signal, input, redirect, rules, ...times };
    let sent: Sent;
    try {
      sent = await (request === undefined ? fromInit(url, init, rules) : fromRequest(url, request, signal));
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
  const { url, method, body } = sent;
  const headers = withTimeLeft(sent.headers, fetching);
  const { retries, idempotencyKey, hashKey, select } = init;
  const timeout = sent.redirects === 0 ? fetching.timeout : timeLeft(fetching);
  const path = (url.pathname || '/') + url.search;
  // Apart from what leads to the promise: the answer's reader may outlive the Response.
  const bodyError = (error: unknown) => errorFor(fetching.signal, 'terminated', error);
  const origin = { url: withoutFragment(url), redirected: sent.redirects > 0 };
  return new Promise((resolve, reject) => {
    const handler = new FetchedResponse(method === 'HEAD', origin, bodyError, {
      wants: (head, instance) => {
        const location = redirect === 'manual' ? undefined : locationOf(head);
        if (location === undefined) return true;
        try {
          const next = redirected(sent, location, head.status, instance, fetching);
          // What is left of this answer is not wanted, and small as a rule.
          resolve(send(fetching, next));
        } catch (error) {
          reject(errorFor(signal, 'fetch failed', error));
        }
        return false;
      },
      maxDecoded: () =>
        init[ADAPTED]?.decode === false ? undefined : client.policies(service).maxResponseSize,
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
  const url = isRequestOfAny(input) ? input.url : input instanceof URL ? input.href : shown(input);
  const [name] = url.split(/[?#]/, 1);
  return name!.replace(/\/\/[^/]*@/, '//').slice(0, 200);
}

/** Whether it is a Request, of any undici: they know each other's no better than they know a plain object. */
function isRequestOfAny(input: unknown): input is Request {
  if (input instanceof Request) return true;
  const { [Symbol.toStringTag]: tag, url } = Object(input) as {
    [Symbol.toStringTag]?: unknown;
    url?: unknown;
  };
  return tag === 'Request' && typeof url === 'string';
}

/** The Request, or one of the global class that takes its place, its body included. */
function ownRequest(request: Request): Request {
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

function timeoutOf(
  { timeout, [ADAPTED]: adapted }: MeshRequestInit & Adapted,
  usual: number,
): number | undefined {
  const timeLimit = adapted?.timeLimit;
  return timeLimit === undefined || timeLimit >= (timeout ?? usual) ? timeout : timeLimit;
}

function timeLeft({ deadline }: Fetching): number | undefined {
  return deadline === Infinity ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
}

/** The headers of which a time limit holds for the whole request, its redirects and the wait for its body included. */
function withTimeLeft(
  headers: ReadonlyMap<string, string>,
  { startedAt }: Fetching,
): ReadonlyMap<string, string> {
  const limit = leastTimeout(headers.get(TIMEOUT_HEADER));
  if (limit === undefined) return headers;
  const left = Math.max(0, Math.floor(limit - (performance.now() - startedAt)));
  return new Map(headers).set(TIMEOUT_HEADER, String(left));
}

async function fromInit(url: URL, init: MeshRequestInit, { bodyWithAny }: FetchRules): Promise<Sent> {
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('a URL with a user name or a password cannot be fetched: send them as a header');
  }
  const method = methodOf(init.method);
  let body = (init.body ?? undefined) as RelayRequest['body'];
  if (body !== undefined && isRetrieval(method) && !bodyWithAny) {
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
function redirected(
  sent: Sent,
  location: string,
  status: number,
  instance: ServiceInstance | undefined,
  fetching: Fetching,
): Sent {
  const { service, targets, redirect } = fetching;
  const where = `'${service}' redirects to ${JSON.stringify(location.split(/[?#]/, 1)[0]).slice(0, 200)}`;
  if (redirect === 'error') throw new InvalidRequestError(`${where}, and the request asks for an error then`);
  const url = URL.canParse(location, sent.url.href)
    ? asService(new URL(location, sent.url), sent.url, instance)
    : undefined;
  if (url === undefined || targets.serviceOf(url) !== service) {
    throw new InvalidRequestError(`${where}, and is followed only within the service`);
  }
  if (sent.redirects === MAX_REDIRECTS) throw new InvalidRequestError(`${where}, once too often`);
  const redirects = sent.redirects + 1;
  const { method } = sent;
  const asPost = method === 'POST' && (status === 301 || status === 302);
  if (asPost || (status === 303 && !isRetrieval(method))) {
    const headers = new Map([...sent.headers].filter(([name]) => !name.startsWith('content-')));
    return { url, method: 'GET', headers, body: undefined, redirects };
  }
  if (sent.body !== undefined && !isReplayable(sent.body)) {
    throw new InvalidRequestError(`${where}, and the body, a stream, cannot be sent again`);
  }
  return { ...sent, url, redirects };
}

/** The URL in terms of the service, where an instance calls itself by its own address, as nginx does by default. */
function asService(url: URL, service: URL, instance: ServiceInstance | undefined): URL {
  if (instance === undefined || url.origin !== new URL(originOf(instance)).origin) return url;
  const { protocol, host } = service;
  return new URL(`${protocol}//${host}${url.pathname}${url.search}${url.hash}`);
}

function withoutFragment({ href, hash }: URL): string {
  return hash === '' ? href : href.slice(0, -hash.length);
}
