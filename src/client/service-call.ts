import { Readable } from 'node:stream';
import { isNativeError } from 'node:util/types';
import type { Dispatcher } from 'undici';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { isThenable } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';
import { isIdempotencyKey } from './idempotency-key.ts';
import { isIdempotentMethod } from './methods.ts';
import { forEachHeader, forEachPair } from './pairs.ts';

export type QueryValue = string | number | bigint | boolean | null | undefined;

/** The query of a call: names and values as an object, a Map, URLSearchParams or pairs; or as it is sent, `a=1&b=2`. */
export type CallQuery =
  | string
  | Readonly<Record<string, QueryValue | readonly QueryValue[]>>
  | Iterable<readonly [string, QueryValue | readonly QueryValue[]]>;

export type HeaderValue = string | number | readonly string[] | undefined;

/** The headers of a call: an object, Headers, a Map, pairs, or a list of names and values in turn. */
export type CallHeaders =
  | Readonly<Record<string, HeaderValue>>
  | Iterable<readonly [string, HeaderValue]>
  | readonly string[];

/** A call to a service, as its caller describes it. */
export interface ServiceCall {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string;
  /** Starts with one slash; what is not plain ASCII must be percent-encoded. */
  path: string;
  /**
   * Appended to the path; a list gives the name once for each value, undefined and null are left out. A Date or any other
   * object is refused: say as what text it is to be sent.
   */
  query?: CallQuery | undefined;
  /**
   * Objects and arrays are sent as JSON; strings, bytes and URLSearchParams as they are, a string that is the JSON of an
   * object or a list as `application/json` unless the headers name a type. Streams, generators and other iterables are
   * sent as they come, once: such a call is retried only while no instance has been given any of it.
   */
  body?: unknown;
  headers?: CallHeaders | undefined;
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
  'Request',
  'Response',
  'WeakRef',
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

/** Visible ASCII without fragment. */
const SEARCH = /^[\x21\x22\x24-\x7e]*$/;

/** @throws InvalidRequestError naming the part that is malformed. */
export function prepare(call: ServiceCall): PreparedRequest {
  const method = methodOf(call);
  const headers: string[] = [];
  if (call.headers !== undefined && call.headers !== null) addHeaders(call.headers, headers);
  const body = bodyOf(call, headers);
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
  if (isIdempotentMethod(method)) return true;
  const index = indexOfHeader(headers, 'idempotency-key');
  return index !== -1 && isIdempotencyKey(headers[index + 1]!);
}

export function methodOf({ method = 'GET' }: Pick<ServiceCall, 'method'>): string {
  if (isIdempotentMethod(method)) return method;
  if (typeof method !== 'string' || !TOKEN.test(method))
    throw new InvalidRequestError(`not an HTTP method: ${shownStart(method)}`);
  const upper = method.toUpperCase();
  if (upper === 'CONNECT')
    throw new InvalidRequestError('CONNECT asks for a tunnel to another host, which a service does not give');
  return upper;
}

export function pathOf({ path, query }: Pick<ServiceCall, 'path' | 'query'>): string {
  if (typeof path !== 'string' || !PATH.test(path)) throw notPath(path, 'start with one slash and');
  if (query === undefined || query === null) return path;
  const search = searchOf(query);
  if (search === '') return path;
  return `${path}${path.includes('?') ? '&' : '?'}${search}`;
}

/**
 * The path of a request that another client has made of a URL. There `http://user-service//x` asks for `//x`, which
 * cannot lead to another host: the connection is chosen by then.
 */
export function pathOfUrl(path: unknown): string {
  if (typeof path !== 'string' || !PATH.test(path.replace(/^\/+/, '/')))
    throw notPath(path, 'start with a slash and');
  return path;
}

function notPath(path: unknown, how: string): InvalidRequestError {
  return new InvalidRequestError(
    `the path must ${how} hold only visible ASCII without backslash and '#' (percent-encode the rest); ` +
      `got ${shown(typeof path === 'string' ? path.split(/[?#]/, 1)[0]!.slice(0, 200) : path)}`,
  );
}

/** Without the question mark. */
export function searchOf(query: CallQuery): string {
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
        `the query '${name}' must be a string, a number, true or false, or a list of them; got ${shown(value)}: give it ${hint}`,
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

/** What may be a credential that stands in the wrong place is not shown. */
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
  // It is sent once, as the caller said it last.
  if (name === 'content-type') setHeader(headers, name, text);
  else headers.push(name, text);
}

/** Where a name stands in a list of names and values in turn; -1 if nowhere. */
export function indexOfHeader(headers: readonly string[], name: string): number {
  for (let index = 0; index < headers.length; index += 2) if (headers[index] === name) return index;
  return -1;
}

export function setHeader(headers: string[], name: string, value: string): void {
  const index = indexOfHeader(headers, name);
  if (index === -1) headers.push(name, value);
  else {
    headers[index + 1] = value;
    for (let other = headers.length - 2; other > index; other -= 2) {
      if (headers[other] === name) headers.splice(other, 2);
    }
  }
}

/**
 * Has headers give the idempotency key of a call, and once: the option of the call takes the place of what they say.
 *
 * @throws InvalidRequestError if that is not well formed, or if the headers say several
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

function bodyOf({ body }: ServiceCall, headers: string[]): Body {
  if (body === undefined || body === null) return null;
  const typed = indexOfHeader(headers, 'content-type') !== -1;
  if (typeof body === 'string') {
    if (!typed && isJson(body)) headers.push('content-type', 'application/json');
    return body;
  }
  if (body instanceof Uint8Array || body instanceof Readable) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (body instanceof URLSearchParams) {
    if (!typed) headers.push('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
    return body.toString();
  }
  if (UNSENDABLE.has((body as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag]))
    throw wouldBeEmpty(body);
  if (isThenable(body))
    throw new InvalidRequestError('the body of a call must not be a promise: await it before');
  if (isNativeError(body) && !('toJSON' in body)) throw wouldBeEmpty(body);
  if (isSource(body)) return Readable.from(body, { objectMode: false });
  if (!typed) headers.push('content-type', 'application/json');
  return jsonOf(body);
}

function wouldBeEmpty(body: object): InvalidRequestError {
  return new InvalidRequestError(
    `${shown(body)} would be sent as the JSON of an empty object: give its content as bytes, a stream, a plain ` +
      'object or a list, or have it say by toJSON() what is to be sent',
  );
}

/** Whether a text is the JSON of an object or a list. Its ends tell of most texts that they are none. */
function isJson(text: string): boolean {
  const ends = `${text.trimStart().at(0)}${text.trimEnd().at(-1)}`;
  if (ends !== '{}' && ends !== '[]') return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Whether a body is to be asked for its content piece by piece, since JSON would not have it. */
function isSource(body: unknown): body is Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array> {
  if (typeof body !== 'object' || body === null) return false;
  if (Symbol.asyncIterator in body) return true;
  if (!(Symbol.iterator in body) || Array.isArray(body) || body instanceof String || 'toJSON' in body)
    return false;
  return Object.keys(body).length === 0;
}

function jsonOf(body: unknown): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(body);
  } catch (cause) {
    // What V8 says of an object that holds itself names its properties.
    if (cause instanceof TypeError && /circular/i.test(cause.message))
      // biome-ignore lint/style/useErrorCause: it would show a part of the body
      throw new InvalidRequestError('the body cannot be written as JSON: it holds itself');
    throw new InvalidRequestError('the body cannot be written as JSON', { cause });
  }
  if (json === undefined)
    throw new InvalidRequestError(`a body of type ${typeof body} cannot be written as JSON`);
  if (typeof body === 'number' && json === 'null')
    throw new InvalidRequestError(`a body of ${body} would be sent as null, since JSON has no such number`);
  if (json === '{}' && !isPlain(body as object) && Object.keys(body as object).length === 0)
    throw wouldBeEmpty(body as object);
  return json;
}
