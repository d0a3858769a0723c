import { Readable } from 'node:stream';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { type PreparedBody, prepareBody } from './call-body.ts';
import { indexOfHeader, setHeader } from './header-list.ts';
import { isIdempotencyKey } from './idempotency-key.ts';
import { isIdempotentMethod } from './methods.ts';
import { PROPAGATED_HEADERS, pairsOf } from './outgoing-headers.ts';
import { forEachHeader, forEachPair } from './pairs.ts';

export type QueryValue = string | number | bigint | boolean | null | undefined;

/**
 * The query of a call: names and values as an object, a Map, URLSearchParams or pairs; or as it is
 * sent, `a=1&b=2`.
 */
export type CallQuery =
  | string
  | Readonly<Record<string, QueryValue | readonly QueryValue[]>>
  | Iterable<readonly [string, QueryValue | readonly QueryValue[]]>;

/**
 * The value of a header; a list stands for the header once with each. Undefined leaves the header out, as
 * undici's `request`, axios and got do, where `fetch` sends the text 'undefined': a credential that is
 * missing makes a request without it, which the service rejects.
 */
export type HeaderValue = string | number | readonly string[] | undefined;

/**
 * The headers of a call: an object, Headers, a Map, pairs, or a list of names and values in turn.
 */
export type CallHeaders =
  | Readonly<Record<string, HeaderValue>>
  | Iterable<readonly [string, HeaderValue]>
  | readonly string[];

/** A call to a service, as its caller describes it. */
export interface ServiceCall {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string | undefined;
  /** Starts with one slash; characters beyond visible ASCII must be percent-encoded. */
  path: string;
  /**
   * Appended to the path; a list gives the name once for each value, undefined and null are left
   * out. A Date or any other object is an error: give the text that is to be sent.
   */
  query?: CallQuery | undefined;
  /**
   * Objects and arrays are sent as JSON; strings, bytes and URLSearchParams as they are, a string
   * that is the JSON of an object or a list as `application/json` unless the headers name a type.
   * Streams, generators and other iterables are sent as they come, once: such a call is retried
   * only while no instance has been given any part of the body.
   */
  body?: unknown;
  headers?: CallHeaders | undefined;
  /** Milliseconds for the whole call, retries included. Default: the service's `timeout`. */
  timeout?: number | undefined;
  /** Attempts after the first. Default: as the service's `retry` says. */
  retries?: number | undefined;
  /**
   * Makes a POST or PATCH safe to send again: sent as `Idempotency-Key`, the same with each
   * attempt.
   */
  idempotencyKey?: string | undefined;
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string | undefined;
  /**
   * Calls only instances with all of this metadata, such as `{ version: '2' }`. Default: as the
   * balancer says.
   */
  select?: Selector | undefined;
  /** Cancels the call. */
  signal?: AbortSignal | undefined;
  /** The largest body that is accepted, in bytes. Default: the service's. */
  maxResponseSize?: number | undefined;
}

/** A call, checked and ready to be sent to any instance. */
export interface PreparedRequest {
  readonly method: string;
  readonly path: string;
  /** headers holds names and values in turn. */
  readonly headers: readonly string[];
  readonly body: PreparedBody;
  /** replayable tells whether the body can be sent twice. */
  readonly replayable: boolean;
  /** idempotent tells whether sending the request twice does the same as sending it once. */
  readonly idempotent: boolean;
}

/** Headers by which a caller could change where a request goes or where it ends. */
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
// biome-ignore lint/suspicious/noControlCharactersInRegex: the expression is there to reject control characters
const FORBIDDEN_IN_VALUE = /[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]/;
/** A slash, then visible ASCII without fragment, and without backslash before the query. */
const PATH = /^\/[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]*(?:\?[\x21\x22\x24-\x7e]*)?$/;

/** Visible ASCII without fragment. */
const SEARCH = /^[\x21\x22\x24-\x7e]*$/;

/**
 * Checks a call and prepares its request.
 *
 * @throws InvalidRequestError naming the part that is malformed
 */
export function prepareCall(call: ServiceCall): PreparedRequest {
  const method = parseMethod(call);
  const headers: string[] = [];
  if (call.headers !== undefined && call.headers !== null) addHeaders(call.headers, headers);
  const body = prepareBody(call.body, headers);
  setIdempotencyKey(headers, call);
  return {
    method,
    path: buildPath(call),
    headers,
    body,
    replayable: !(body instanceof Readable),
    idempotent: isIdempotent(method, headers),
  };
}

export function isIdempotent(method: string, headers: readonly string[]): boolean {
  if (isIdempotentMethod(method)) return true;
  const index = indexOfHeader(headers, 'idempotency-key');
  return index !== -1 && isIdempotencyKey(headers[index + 1]!);
}

export function parseMethod({ method = 'GET' }: Pick<ServiceCall, 'method'>): string {
  if (isIdempotentMethod(method)) return method;
  if (typeof method !== 'string' || !TOKEN.test(method))
    throw new InvalidRequestError(`not an HTTP method: ${shownStart(method)}`);
  const upper = method.toUpperCase();
  if (upper === 'CONNECT')
    throw new InvalidRequestError('CONNECT asks for a tunnel to another host, which a service does not give');
  return upper;
}

export function buildPath({ path, query }: Pick<ServiceCall, 'path' | 'query'>): string {
  if (typeof path !== 'string' || path.startsWith('//') || !PATH.test(path))
    throw createPathError(path, 'start with one slash and');
  if (query === undefined || query === null) return path;
  const search = buildSearch(query);
  if (search === '') return path;
  return `${path}${path.includes('?') ? '&' : '?'}${search}`;
}

/**
 * Checks the path of a request that another client has made of a URL. There
 * `http://user-service//x` has the path `//x`, which cannot lead to another host: the connection is
 * chosen by then.
 */
export function parseUrlPath(path: unknown): string {
  if (typeof path !== 'string' || !PATH.test(path)) throw createPathError(path, 'start with a slash and');
  return path;
}

function createPathError(path: unknown, how: string): InvalidRequestError {
  return new InvalidRequestError(
    `the path must ${how} hold only visible ASCII without backslash and '#' (percent-encode the rest); ` +
      `got ${shown(typeof path === 'string' ? path.split(/[?#]/, 1)[0]!.slice(0, 200) : path)}`,
  );
}

/** Builds the query without the question mark. */
export function buildSearch(query: CallQuery): string {
  if (typeof query === 'string') {
    if (SEARCH.test(query)) return query.startsWith('?') ? query.slice(1) : query;
    throw new InvalidRequestError(
      `a query that is a string must hold only visible ASCII without '#' (percent-encode the rest, or give an ` +
        'object); got another',
    );
  }
  const search = new URLSearchParams();
  const append = (name: string, value: unknown) => {
    if (value === undefined || value === null) return;
    if (typeof value === 'object' || typeof value === 'function' || typeof value === 'symbol') {
      const hint =
        value instanceof Date ? 'toISOString(), say' : 'as a string, or several with a list of strings';
      throw new InvalidRequestError(
        `the query ${shown(name)} must be a string, a number, true or false, or a list of them; got ${shown(value)}: give it ${hint}`,
      );
    }
    search.append(name, String(value));
  };
  forEachPair(query, 'query', (name, value) => {
    if (typeof name !== 'string') throw new InvalidRequestError(`not the name of a query: ${shown(name)}`);
    if (Array.isArray(value)) for (const item of value) append(name, item);
    else append(name, value);
  });
  return search.toString();
}

function addHeaders(given: NonNullable<ServiceCall['headers']>, headers: string[]): void {
  forEachHeader(given, (name, value) => {
    if (value === undefined || value === null) return;
    if (typeof name !== 'string' || !TOKEN.test(name))
      throw new InvalidRequestError(`not a header name: ${shownStart(name)}`);
    const lower = name.toLowerCase();
    if (RESERVED_HEADERS.has(lower))
      throw new InvalidRequestError(`the header '${lower}' is set by the client itself`);
    if (Array.isArray(value)) for (const item of value) addHeader(headers, lower, item);
    else addHeader(headers, lower, value);
  });
}

/** Headers that stay the same in all attempts of a call. */
const LASTING_HEADERS: ReadonlySet<string> = new Set([...PROPAGATED_HEADERS, 'idempotency-key']);

/**
 * Gives the headers of a call with others in place of those of the same names.
 *
 * @throws InvalidRequestError if one is malformed, or may not change from attempt to attempt
 */
export function replaceHeaders(headers: readonly string[], changes: CallHeaders): string[] {
  const pairs: [string, HeaderValue][] = [];
  forEachHeader(changes, (name, value) => pairs.push([name as string, value as HeaderValue]));
  const changed: string[] = [];
  addHeaders(pairs, changed);
  const names = new Set(pairs.map(([name]) => name.toLowerCase()));
  for (const name of LASTING_HEADERS) {
    if (names.has(name))
      throw new InvalidRequestError(`the header '${name}' is the same in all attempts of a call`);
  }
  for (const [name, value] of pairsOf(headers)) if (!names.has(name)) changed.push(name, value);
  return changed;
}

/** Shows only the start of a text, which may be a credential in the wrong place. */
function shownStart(value: unknown): string {
  if (typeof value !== 'string') return shown(value);
  return `one that begins with ${JSON.stringify(/^[\w-]{0,20}/.exec(value)![0])}`;
}

function addHeader(headers: string[], name: string, value: unknown): void {
  if (typeof value === 'object' || typeof value === 'function' || typeof value === 'symbol') {
    throw new InvalidRequestError(
      `the value of the header '${name}' must be a string, a number or a list of them; got ${shown(value)}`,
    );
  }
  const text = String(value);
  if (FORBIDDEN_IN_VALUE.test(text))
    throw new InvalidRequestError(
      `the value of the header '${name}' has a control character or one beyond Latin-1`,
    );
  // The content type is sent once, with the caller's last value.
  if (name === 'content-type') setHeader(headers, name, text);
  else headers.push(name, text);
}

/**
 * Sets the idempotency key of a call in its headers, once: the option of the call replaces the keys
 * that they have.
 *
 * @throws InvalidRequestError if the option is not well formed, or if the headers have several keys
 */
export function setIdempotencyKey(
  headers: string[],
  { idempotencyKey }: { idempotencyKey?: string | undefined },
): void {
  if (idempotencyKey === undefined) {
    keepOneKey(headers);
    return;
  }
  if (typeof idempotencyKey !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(idempotencyKey)) {
    throw new InvalidRequestError('the idempotencyKey must be 1 to 255 visible ASCII characters');
  }
  setHeader(headers, 'idempotency-key', idempotencyKey);
}

function keepOneKey(headers: string[]): void {
  const index = indexOfHeader(headers, 'idempotency-key');
  if (index === -1) return;
  const key = headers[index + 1]!;
  for (let other = index + 2; other < headers.length; other += 2) {
    if (headers[other] === 'idempotency-key' && headers[other + 1] !== key)
      throw new InvalidRequestError('a request has one Idempotency-Key; its headers say several');
  }
  setHeader(headers, 'idempotency-key', key);
}
