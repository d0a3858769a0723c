import { randomUUID } from 'node:crypto';
import { processState } from '../internal/process-state.ts';
import {
  type Compensated,
  type CompensatedResponse,
  currentRequestContext,
  type Identity,
  REQUEST_ID,
  type RequestContext,
  runInRequestContext,
  TRACEPARENT,
  TRACESTATE,
} from '../internal/request-context.ts';
import { shown } from '../internal/shown.ts';
import { isFunction } from '../internal/validate.ts';
import { forEachHeader } from './pairs.ts';

export {
  type Compensated,
  type CompensatedResponse,
  currentRequestContext,
  type Identity,
  type RequestContext,
};

/**
 * The header of a response that says that the server has spent its own retries on the request.
 * Clients of Holdfast do not retry after such a response, so that the layers of a system do not
 * multiply their attempts.
 */
export const RETRIES_SPENT_HEADER = 'x-retries-spent';

/** The header with the milliseconds for which the caller waits after it has sent the request. */
export const TIMEOUT_HEADER = 'x-request-timeout';

type IncomingHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** Headers whose names may be in any case: an object as in Node, or Headers, a Map or pairs. */
export type ContextHeaders = IncomingHeaders | Iterable<readonly [string, string | string[] | undefined]>;

/** The most characters of a list of time limits: a longer list is not read. */
const MAX_TIMEOUTS_LENGTH = 256;

/** The requests that made a call whose retries are spent. */
const spentFor = processState('retries-spent-for', () => new WeakSet<RequestContext>());

/**
 * Reads the context from the headers of an incoming request, whatever the case of their names.
 * Headers come from strangers: a header that is malformed or too long counts as not sent.
 *
 * @throws TypeError if there are no headers at all
 */
export function requestContextFrom(headers: ContextHeaders): RequestContext {
  if (typeof headers !== 'object' || headers === null) {
    throw new TypeError(`requestContextFrom() takes the headers of a request; got ${shown(headers)}`);
  }
  const inLowerCase: Record<string, string | string[]> = Object.create(null);
  forEachHeader(headers, (name, value) => {
    if (typeof name === 'string' && value !== undefined) inLowerCase[name.toLowerCase()] = value as string;
  });
  return contextFrom(inLowerCase);
}

/** Reads the context from headers whose names are in lower case, as Node gives them. */
export function contextFrom(headers: IncomingHeaders): RequestContext {
  const traceparent = wellFormed(headers.traceparent, TRACEPARENT);
  const timeout = parseTimeout(headers[TIMEOUT_HEADER]);
  return {
    requestId: wellFormed(headers['x-request-id'], REQUEST_ID) ?? randomUUID(),
    traceparent,
    tracestate: traceparent && wellFormed(headers.tracestate, TRACESTATE),
    deadline: timeout === undefined ? Infinity : performance.now() + timeout,
  };
}

/**
 * Reads the milliseconds of an `X-Request-Timeout`: the least where there are several, as when a
 * proxy has added one of its own. Undefined if none is well formed.
 */
export function parseTimeout(value: string | readonly string[] | undefined): number | undefined {
  if (value === undefined) return undefined;
  const text = typeof value === 'string' ? value : value.join();
  if (/^\d{1,9}$/.test(text)) return Number(text);
  if (text.length > MAX_TIMEOUTS_LENGTH) return undefined;
  const several = text.split(/[ \t]*,[ \t]*/).filter((item) => /^\d{1,9}$/.test(item));
  return several.length === 0 ? undefined : Math.min(...several.map(Number));
}

function wellFormed(value: string | string[] | undefined, pattern: RegExp): string | undefined {
  return typeof value === 'string' && pattern.test(value) ? value : undefined;
}

/**
 * Runs a function, and all that it starts, within the context: the calls that a ServiceClient makes
 * there carry its request id and trace, and end at its deadline.
 *
 * @throws TypeError if `context` is no RequestContext, or `fn` is no function
 * @example
 * server.addHook('onRequest', (request, _reply, done) => {
 *   runWithRequestContext(requestContextFrom(request.headers), done);
 * });
 */
export function runWithRequestContext<T>(context: RequestContext, fn: () => T): T {
  if (typeof context?.requestId !== 'string') {
    throw new TypeError(
      `runWithRequestContext() takes a context, as requestContextFrom() gives it; got ${shown(context)}`,
    );
  }
  if (typeof fn !== 'function') isFunction(fn, 'the function of runWithRequestContext()');
  return runInRequestContext(context, fn);
}

/**
 * Notes that a call, made for the request that is being handled, has spent its retries without
 * success.
 */
export function noteRetriesSpent(context: RequestContext | undefined = currentRequestContext()): void {
  if (context !== undefined) spentFor.add(context);
}

/**
 * Whether a call of the request has spent its retries: if the request fails, its caller should not
 * retry it.
 */
export function wereRetriesSpent(context: RequestContext): boolean {
  return spentFor.has(context);
}
