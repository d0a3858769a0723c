import { type ParsedUrlQueryInput, stringify } from 'node:querystring';
import { type Readable, Stream } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';
import { checkOptions } from './call-options.ts';
import type { RelayOptions } from './dispatch-options.ts';
import { FormBody } from './form-body.ts';
import { indexOfHeader, setHeader } from './header-list.ts';
import { IteratedBody } from './iterated-body.ts';
import { forEachHeader } from './pairs.ts';
import {
  buildSearch,
  type CallQuery,
  isIdempotent,
  type PreparedRequest,
  parseMethod,
  parseUrlPath,
  setIdempotencyKey,
} from './service-call.ts';

type Options = Dispatcher.DispatchOptions;

/**
 * A body as undici takes it, or one of a few other kinds: a Blob, a web stream, iterables of bytes
 * or strings.
 */
export type RelayBody =
  | Options['body']
  | ArrayBuffer
  | ArrayBufferView
  | Blob
  | FormData
  | URLSearchParams
  | ReadableStream
  | Iterable<string | Uint8Array>
  | AsyncIterable<string | Uint8Array>;

/** A call to a service in the terms of undici. Its response goes to a handler of undici's. */
export interface RelayRequest extends RelayOptions, Partial<Pick<Options, 'headers' | 'idempotent'>> {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string | undefined;
  /** Starts with a slash. */
  path: string;
  /** Added to the path. An object is written as undici writes it. */
  query?: CallQuery | Options['query'] | null | undefined;
  /**
   * A body that is no stream and no iterable can be sent again; so can an iterable whose
   * `content-length` is at most 64 KiB. A call with any other body is retried only while no
   * instance has received any of it.
   */
  body?: RelayBody | undefined;
  /**
   * Milliseconds for the call up to the head of its response, retries included. Default: the
   * `timeout` of the service.
   */
  timeout?: number | undefined;
  /** Retries, beyond the first attempt. Default: as the `retry` of the service says. */
  retries?: number | undefined;
  /** Sent as `Idempotency-Key`, which makes a POST or PATCH safe to send again. */
  idempotencyKey?: string | undefined;
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string | undefined;
  /** Sends the call only to instances with all of this metadata. */
  select?: Selector | undefined;
  /** Cancels the call, its body included. */
  signal?: AbortSignal | undefined;
}

/**
 * Prepares a relayed request. Where undici itself rejects a part, the check is left to undici.
 *
 * @throws InvalidRequestError naming the part that is malformed
 */
export function prepareRelay(request: RelayRequest): PreparedRequest {
  checkOptions(request);
  const method = parseMethod(request);
  const headers: string[] = [];
  if (request.headers !== undefined && request.headers !== null) {
    forEachHeader(request.headers, (name, value) => addHeader(headers, name, value));
  }
  setIdempotencyKey(headers, request);
  const body = prepareBody(request.body, headers);
  return {
    method,
    path: buildPath(request),
    headers,
    body: body as PreparedRequest['body'],
    replayable:
      body instanceof IteratedBody || body instanceof FormBody ? body.replayable : isReplayable(body),
    idempotent: checkIdempotent(request.idempotent) ?? isIdempotent(method, headers),
  };
}

/**
 * Builds the path with its query. A plain object is written as undici writes it. Of any other
 * object, such as URLSearchParams, undici would send nothing.
 */
function buildPath({ path, query }: RelayRequest): string {
  const own = parseUrlPath(path);
  if (query === undefined || query === null) return own;
  const checked = buildSearch(query);
  const search =
    typeof query === 'object' && isPlain(query) ? stringify(query as ParsedUrlQueryInput) : checked;
  if (search === '') return own;
  return `${own}${own.includes('?') ? '&' : '?'}${search}`;
}

function checkIdempotent(idempotent: unknown): boolean | undefined {
  if (typeof idempotent === 'boolean') return idempotent;
  if (idempotent === undefined || idempotent === null) return undefined;
  throw new InvalidRequestError(`idempotent must be true or false; got ${shown(idempotent)}`);
}

/** Prepares the body, and adds the headers that tell its type and length. */
function prepareBody(body: RelayBody | undefined, headers: string[]): RelayBody | IteratedBody | FormBody {
  if (body === undefined || body === null) return null;
  if (isForm(body)) return prepareForm(body, headers);
  if (isReplayable(body) || isNodeStream(body)) return body;
  if (body instanceof URLSearchParams) {
    if (indexOfHeader(headers, 'content-type') === -1)
      headers.push('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
    return body.toString();
  }
  if (typeof body !== 'object' || !(Symbol.asyncIterator in body || Symbol.iterator in body)) return body;
  const length = indexOfHeader(headers, 'content-length');
  return new IteratedBody(
    body as Iterable<string | Uint8Array>,
    length === -1 ? Infinity : Number(headers[length + 1]),
  );
}

/** Encodes a form. undici takes no FormData of another undici, such as the one of Node. */
function prepareForm(form: FormData, headers: string[]): FormBody {
  const body = new FormBody(form);
  if (indexOfHeader(headers, 'content-type') === -1) headers.push('content-type', body.type);
  if (indexOfHeader(headers, 'content-length') === -1) headers.push('content-length', String(body.length));
  return body;
}

/**
 * Whether the body is a FormData, of any undici. The streams of the package form-data have the same
 * tag.
 */
function isForm(body: unknown): body is FormData {
  const { [Symbol.toStringTag]: tag, [Symbol.iterator]: iterator } = Object(body) as Partial<FormData>;
  return tag === 'FormData' && typeof iterator === 'function' && !isNodeStream(body);
}

/** Whether a body can be sent twice as it is. */
export function isReplayable(body: RelayBody): boolean {
  if (body === null || body === undefined || typeof body === 'string') return true;
  if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer || body instanceof Blob) return true;
  return isForm(body);
}

export function isNodeStream(body: unknown): body is Readable {
  return body instanceof Stream || typeof (body as Readable | null)?.pipe === 'function';
}

/** Adds a header in the forms that undici takes, its name in lower case. */
function addHeader(headers: string[], name: unknown, value: unknown): void {
  if (value === undefined) return;
  if (typeof name !== 'string') throw new InvalidRequestError('the name of a header must be a string');
  const lower = name.toLowerCase();
  // The instance has a host of its own.
  if (lower === 'host') return;
  if (typeof value === 'string') {
    if (lower === 'content-length') setContentLength(headers, value);
    else if (lower === 'content-type') setHeader(headers, lower, value);
    else headers.push(lower, value);
  } else if (Array.isArray(value)) {
    for (const item of value) addHeader(headers, lower, item);
  } else if ((typeof value === 'object' && value !== null) || typeof value === 'symbol') {
    throw new InvalidRequestError(`the value of the header '${lower}' must be a string`);
  } else {
    addHeader(headers, lower, value === null ? '' : String(value));
  }
}

/**
 * Reads a Content-Length. The same length several times over stands for one (RFC 9110, section
 * 8.6): the built-in fetch of some versions of Node sends that where the caller has set the header.
 */
export function contentLengthOf(value: string): string {
  return /^(\d+)(?:\s*,\s*\1)*$/.exec(value)?.[1] ?? value;
}

function setContentLength(headers: string[], value: string): void {
  const length = contentLengthOf(value);
  const index = indexOfHeader(headers, 'content-length');
  if (index === -1 || headers[index + 1] !== length) headers.push('content-length', length);
}
