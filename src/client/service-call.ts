import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';

export type QueryValue = string | number | boolean | null | undefined;

/** A call to a service, as its caller describes it. */
export interface ServiceCall {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string;
  /** Starts with one slash; what is not plain ASCII must be percent-encoded. */
  path: string;
  /** Appended to the path; a list gives the name once for each value, undefined and null are left out. */
  query?: Readonly<Record<string, QueryValue | readonly QueryValue[]>>;
  /**
   * Objects and arrays are sent as JSON; strings, bytes and URLSearchParams as they are. Streams and other
   * async iterables are sent as they come, once: such a call is tried again only while no instance has been given any of it.
   */
  body?: unknown;
  headers?: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  /** Milliseconds for the whole call, retries included. Default: the service's `timeout`. */
  timeout?: number;
  /** Tries after the first. Default: as the service's `retry` says. */
  retries?: number;
  /** Makes a POST or PATCH safe to send again: sent as `Idempotency-Key`, the same with each try. */
  idempotencyKey?: string;
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string;
  /** Only instances with all of this metadata, as `{ version: '2' }`. Default: as the balancer says. */
  select?: Selector;
  /** Cancels the call. */
  signal?: AbortSignal;
  /** The largest body that is accepted, in bytes. Default: the service's. */
  maxResponseSize?: number;
}

/** What JSON.stringify makes `{}` of, whatever is in it: by name, since to mention Headers has Node load its fetch. */
const UNSENDABLE: ReadonlySet<unknown> = new Set([
  'Blob',
  'File',
  'FormData',
  'Headers',
  'Map',
  'Set',
  'WeakMap',
  'WeakSet',
  'Promise',
]);

type Body = Exclude<Dispatcher.DispatchOptions['body'], undefined>;

/** A call, checked and ready to be sent to any instance. */
export interface PreparedRequest {
  readonly method: string;
  readonly path: string;
  /** Names and values in turn. */
  readonly headers: readonly string[];
  readonly body: Body;
  /** Whether the body can be sent twice. */
  readonly replayable: boolean;
  /** Whether sending it twice does the same as sending it once. */
  readonly idempotent: boolean;
}

/** RFC 9110, section 9.2.2. */
const IDEMPOTENT_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

/** Those by which a caller could change where a request goes or where it ends. */
const RESERVED_HEADERS: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
  'content-length',
]);

const TOKEN = /^[!#$%&'*+.^_`|~\dA-Za-z-]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it is there to refuse
const FORBIDDEN_IN_VALUE = /[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]/;
/** One slash that no other slash follows, then visible ASCII without fragment, and without backslash before the query. */
const PATH = /^\/(?!\/)[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]*(?:\?[\x21\x22\x24-\x7e]*)?$/;

/** @throws InvalidRequestError naming the part that is malformed. */
export function prepare(call: ServiceCall): PreparedRequest {
  const method = methodOf(call);
  const headers: string[] = [];
  const body = bodyOf(call, headers);
  if (call.headers !== undefined && call.headers !== null) addHeaders(call.headers, headers);
  setIdempotencyKey(headers, call);
  return {
    method,
    path: pathOf(call),
    headers,
    body,
    replayable: !(body instanceof Readable),
    idempotent: isIdempotent(method, headers),
  };
}

export function isIdempotent(method: string, headers: readonly string[]): boolean {
  return IDEMPOTENT_METHODS.has(method) || indexOfHeader(headers, 'idempotency-key') !== -1;
}

export function methodOf({ method = 'GET' }: Pick<ServiceCall, 'method'>): string {
  if (IDEMPOTENT_METHODS.has(method)) return method;
  if (typeof method !== 'string' || !TOKEN.test(method))
    throw new InvalidRequestError(`not an HTTP method: ${String(method)}`);
  const upper = method.toUpperCase();
  if (upper === 'CONNECT')
    throw new InvalidRequestError('CONNECT asks for a tunnel to another host, which a service does not give');
  return upper;
}

export function pathOf({ path, query }: Pick<ServiceCall, 'path' | 'query'>): string {
  if (typeof path !== 'string' || !PATH.test(path)) {
    throw new InvalidRequestError(
      `the path must start with one slash and hold only visible ASCII without backslash and '#' ` +
        `(percent-encode the rest); got ${typeof path === 'string' ? JSON.stringify(path.split(/[?#]/, 1)[0]!.slice(0, 200)) : typeof path}`,
    );
  }
  if (query === undefined || query === null) return path;
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined && item !== null) search.append(name, String(item));
    }
  }
  if (search.size === 0) return path;
  return `${path}${path.includes('?') ? '&' : '?'}${search}`;
}

function addHeaders(given: NonNullable<ServiceCall['headers']>, headers: string[]): void {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    const lower = name.toLowerCase();
    if (!TOKEN.test(name))
      throw new InvalidRequestError(
        `not a header name: one that begins with ${JSON.stringify(/^[\w-]*/.exec(name)![0])}`,
      );
    if (RESERVED_HEADERS.has(lower))
      throw new InvalidRequestError(`the header '${lower}' is set by the client itself`);
    for (const item of Array.isArray(value) ? value : [value]) {
      const text = String(item);
      if (FORBIDDEN_IN_VALUE.test(text))
        throw new InvalidRequestError(
          `the value of the header '${lower}' has a control character or one beyond Latin-1`,
        );
      // A content type of the caller's takes the place of ours.
      if (lower === 'content-type') setHeader(headers, lower, text);
      else headers.push(lower, text);
    }
  }
}

/** Where a name stands in a list of names and values in turn; -1 if nowhere. */
export function indexOfHeader(headers: readonly string[], name: string): number {
  for (let index = 0; index < headers.length; index += 2) if (headers[index] === name) return index;
  return -1;
}

export function setHeader(headers: string[], name: string, value: string): void {
  const index = indexOfHeader(headers, name);
  if (index === -1) headers.push(name, value);
  else headers[index + 1] = value;
}

export function setIdempotencyKey(
  headers: string[],
  { idempotencyKey }: { idempotencyKey?: string | undefined },
): void {
  if (idempotencyKey === undefined) return;
  if (typeof idempotencyKey !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) {
    throw new InvalidRequestError('the idempotencyKey must be 1 to 255 visible ASCII characters');
  }
  setHeader(headers, 'idempotency-key', idempotencyKey);
}

function bodyOf({ body }: ServiceCall, headers: string[]): Body {
  if (body === undefined || body === null) return null;
  if (typeof body === 'string' || body instanceof Uint8Array || body instanceof Readable) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (body instanceof URLSearchParams) {
    headers.push('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
    return body.toString();
  }
  if (typeof body === 'object' && Symbol.asyncIterator in body) {
    return Readable.from(body as AsyncIterable<unknown>, { objectMode: false });
  }
  if (UNSENDABLE.has((body as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag])) {
    throw new InvalidRequestError(
      `a ${body.constructor.name} would be sent as the JSON of an empty object: give its content as bytes, ` +
        'a stream, a plain object or a list',
    );
  }
  headers.push('content-type', 'application/json');
  return jsonOf(body);
}

function jsonOf(body: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(body);
  } catch (cause) {
    throw new InvalidRequestError('the body cannot be written as JSON', { cause });
  }
  if (json === undefined)
    throw new InvalidRequestError(`a body of type ${typeof body} cannot be written as JSON`);
  return json;
}
