import { type Readable, Stream } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { Selector } from '../balancing/selector.ts';
import { InvalidRequestError } from '../errors.ts';
import { IteratedBody } from './iterated-body.ts';
import {
  indexOfHeader,
  isIdempotent,
  methodOf,
  type PreparedRequest,
  pathOf,
  setHeader,
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
    Pick<
      Options,
      'headers' | 'query' | 'headersTimeout' | 'bodyTimeout' | 'expectContinue' | 'reset' | 'idempotent'
    >
  > {
  /** The name under which the service is registered. */
  service: string;
  /** Default GET. */
  method?: string;
  /** Starts with one slash. */
  path: string;
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
  const method = methodOf(request);
  const headers: string[] = [];
  if (request.headers !== undefined && request.headers !== null) addHeaders(request.headers, headers);
  setIdempotencyKey(headers, request);
  const body = bodyOf(request.body, headers);
  return {
    method,
    path: pathOf({ path: request.path }),
    headers,
    body: body as PreparedRequest['body'],
    replayable: body instanceof IteratedBody ? body.replayable : isReplayable(body),
    idempotent: request.idempotent ?? isIdempotent(method, headers),
  };
}

function bodyOf(body: RelayBody | undefined, headers: string[]): RelayBody | IteratedBody {
  if (body === undefined || body === null) return null;
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

/** Whether a body can be sent twice as it is. */
export function isReplayable(body: RelayBody): boolean {
  if (body === null || body === undefined || typeof body === 'string') return true;
  if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer || body instanceof Blob) return true;
  // A form may be one of undici's own class as well.
  return (body as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag] === 'FormData';
}

export function isNodeStream(body: unknown): body is Readable {
  return body instanceof Stream || typeof (body as Readable | null)?.pipe === 'function';
}

/** All the forms in which undici takes headers, as lower-case names and values in turn. */
function addHeaders(given: NonNullable<RelayRequest['headers']>, headers: string[]): void {
  if (Array.isArray(given)) {
    if (given.length % 2 !== 0) throw new InvalidRequestError('a list of headers must have an even length');
    for (let index = 0; index < given.length; index += 2) addHeader(headers, given[index], given[index + 1]);
  } else if (typeof given !== 'object') {
    throw new InvalidRequestError('the headers must be an object, a list, or an iterable of pairs');
  } else if (Symbol.iterator in given) {
    for (const pair of given as Iterable<unknown>) {
      if (!Array.isArray(pair) || pair.length !== 2) throw new InvalidRequestError('not a pair of headers');
      addHeader(headers, pair[0], pair[1]);
    }
  } else {
    for (const name of Object.keys(given)) addHeader(headers, name, (given as Record<string, unknown>)[name]);
  }
}

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
  } else if (typeof value === 'object' && value !== null) {
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
