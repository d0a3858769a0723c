import { type ParsedUrlQueryInput, stringify } from 'node:querystring';
import { type Readable, Stream } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { isPlain } from '../internal/validate.ts';
import { checkOptions } from './call-options.ts';
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

/** What undici takes as a body, and a little more: a Blob, a web stream, and iterables of bytes or strings. */
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

/** A call to a service in the terms of undici, whose answer a handler of undici's takes. */
export interface RelayRequest
  extends Partial<
    Pick<Options, 'headers' | 'headersTimeout' | 'bodyTimeout' | 'expectContinue' | 'reset' | 'idempotent'>
  > {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string;
  /** Starts with a slash. */
  path: string;
  /** Added to the path. An object is written as undici does. */
  query?: CallQuery | Options['query'] | null | undefined;
  /**
   * What is no stream and no iterable can be sent again; an iterable too if its `content-length` is at most 64 KiB. A call
   * whose body cannot is tried again only while no instance has been given any of it.
   */
  body?: RelayBody;
  /** Milliseconds for the call up to the head of its answer, retries included. Default: the service's `timeout`. */
  timeout?: number | undefined;
  /** Tries after the first. Default: as the service's `retry` says. */
  retries?: number | undefined;
  /** Sent as `Idempotency-Key`; makes a POST or PATCH safe to send again. */
  idempotencyKey?: string | undefined;
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string | undefined;
  /** Only instances with all of this metadata. */
  select?: Selector | undefined;
  /** Cancels the call, its body included. */
  signal?: AbortSignal | undefined;
}

/** @throws InvalidRequestError naming the part that is malformed. What undici itself refuses is left to it. */
export function prepareRelay(request: RelayRequest): PreparedRequest {
  checkOptions(request);
  const method = parseMethod(request);
  const headers: string[] = [];
  if (request.headers !== undefined && request.headers !== null) {
    forEachHeader(request.headers, (name, value) => addHeader(headers, name, value));
  }
  setIdempotencyKey(headers, request);
  const body = bodyOf(request.body, headers);
  return {
    method,
    path: relayedPath(request),
    headers,
    body: body as PreparedRequest['body'],
    replayable:
      body instanceof IteratedBody || body instanceof FormBody ? body.replayable : isReplayable(body),
    idempotent: flag(request.idempotent) ?? isIdempotent(method, headers),
  };
}

/**
 * The path with the query, as undici writes a query that is an object: of any other, such as URLSearchParams, it would send
 * nothing.
 */
function relayedPath({ path, query }: RelayRequest): string {
  const own = parseUrlPath(path);
  if (query === undefined || query === null) return own;
  const checked = buildSearch(query);
  const search =
    typeof query === 'object' && isPlain(query) ? stringify(query as ParsedUrlQueryInput) : checked;
  if (search === '') return own;
  return `${own}${own.includes('?') ? '&' : '?'}${search}`;
}

function flag(idempotent: unknown): boolean | undefined {
  if (typeof idempotent === 'boolean') return idempotent;
  if (idempotent === undefined || idempotent === null) return undefined;
  throw new InvalidRequestError(`idempotent must be true or false; got ${shown(idempotent)}`);
}

function bodyOf(body: RelayBody | undefined, headers: string[]): RelayBody | IteratedBody | FormBody {
  if (body === undefined || body === null) return null;
  if (isForm(body)) return formOf(body, headers);
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

/** undici takes no form of another undici's, as the one of Node. */
function formOf(form: FormData, headers: string[]): FormBody {
  const body = new FormBody(form);
  if (indexOfHeader(headers, 'content-type') === -1) headers.push('content-type', body.type);
  if (indexOfHeader(headers, 'content-length') === -1) headers.push('content-length', String(body.length));
  return body;
}

/** Whether it is a FormData, of any undici. The package form-data calls its streams so as well. */
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

/** Adds a header as undici takes it, its name in lower case. */
function addHeader(headers: string[], name: unknown, value: unknown): void {
  if (value === undefined) return;
  if (typeof name !== 'string') throw new InvalidRequestError('the name of a header must be a string');
  const lower = name.toLowerCase();
  // It is the instance's own.
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
 * RFC 9110, section 8.6: the same length several times over stands for one, as the built-in fetch of some versions
 * of Node sends it where the caller has set it.
 */
export function lengthIn(value: string): string {
  return /^(\d+)(?:\s*,\s*\1)*$/.exec(value)?.[1] ?? value;
}

function setContentLength(headers: string[], value: string): void {
  const length = lengthIn(value);
  const index = indexOfHeader(headers, 'content-length');
  if (index === -1 || headers[index + 1] !== length) headers.push('content-length', length);
}
