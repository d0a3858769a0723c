import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';

/** What a service was told by its caller, and tells those that it calls in turn. */
export interface RequestContext {
  /** `X-Request-ID`: the same through all services that take part. */
  readonly requestId: string;
  /** W3C Trace Context, passed on as it came. */
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  /** When the caller stops waiting, on the clock of `performance.now()`; Infinity if it did not say. */
  readonly deadline: number;
}

/**
 * What a server answers with when its own retries of what the request needs are spent: clients of Holdfast do
 * not try such an answer again, so that the layers of a system do not multiply their tries.
 */
export const RETRIES_SPENT_HEADER = 'x-retries-spent';

type IncomingHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** W3C Trace Context, section 3.2.2: version ff and ids of zeros alone are invalid. */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}$/;

const storage = new AsyncLocalStorage<RequestContext>();

/** The requests for which a call was made whose retries are spent. */
const spentFor = new WeakSet<RequestContext>();

/**
 * Reads the context from the headers of an incoming request. Headers come from strangers: what is not well
 * formed, or is too long, counts as not sent.
 */
export function requestContextFrom(headers: IncomingHeaders): RequestContext {
  const traceparent = wellFormed(headers.traceparent, TRACEPARENT);
  const timeout = wellFormed(headers['x-request-timeout'], /^\d{1,9}$/);
  return {
    requestId: wellFormed(headers['x-request-id'], /^[\w.:=+/@-]{1,128}$/) ?? randomUUID(),
    traceparent,
    tracestate: traceparent && wellFormed(headers.tracestate, /^[\x20-\x7e]{1,512}$/),
    deadline: timeout === undefined ? Infinity : performance.now() + Number(timeout),
  };
}

function wellFormed(value: string | string[] | undefined, pattern: RegExp): string | undefined {
  return typeof value === 'string' && pattern.test(value) ? value : undefined;
}

/**
 * Runs a function, and all that it starts, within the context: the calls that a ServiceClient makes there
 * carry its request id and trace, and end at its deadline.
 *
 * @example
 * server.addHook('onRequest', (request, _reply, done) => {
 *   runWithRequestContext(requestContextFrom(request.headers), done);
 * });
 */
export function runWithRequestContext<T>(context: RequestContext, fn: () => T): T {
  return storage.run(context, fn);
}

/** The context of the request that is being served, if there is one. */
export function currentRequestContext(): RequestContext | undefined {
  return storage.getStore();
}

/** Notes that a call, made for the request that is being served, was tried in vain as often as it may be. */
export function noteRetriesSpent(context: RequestContext | undefined = storage.getStore()): void {
  if (context !== undefined) spentFor.add(context);
}

/** Whether that was noted of a request: should it fail, its caller had better not try it again. */
export function wereRetriesSpent(context: RequestContext): boolean {
  return spentFor.has(context);
}
