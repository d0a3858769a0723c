import { AsyncLocalStorage } from 'node:async_hooks';

/** The context of a request that a service handles, and passes on to the services that it calls. */
export interface RequestContext {
  /** `X-Request-ID`, the same in all services that take part. */
  readonly requestId: string;
  /** W3C Trace Context, passed on as it came. */
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  /** When the caller stops waiting, on the clock of `performance.now()`; Infinity if unknown. */
  readonly deadline: number;
}

/** The form of a request id that may be sent in a header. */
export const REQUEST_ID = /^[\w.:=+/@-]{1,128}$/;

/** W3C Trace Context, section 3.2.2: version ff and ids of zeros alone are invalid. */
export const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}$/;

/** A list of printable characters. W3C Trace Context, section 3.3.1.5, asks for 512 at least. */
export const TRACESTATE = /^[\x20-\x7e]{1,512}$/;

const storage = new AsyncLocalStorage<RequestContext>();

/** Runs a function, and all that it starts, within the context. */
export function runInRequestContext<T>(context: RequestContext, fn: () => T): T {
  return storage.run(context, fn);
}

/** Gives the context of the request that is being handled, if there is one. */
export function currentRequestContext(): RequestContext | undefined {
  return storage.getStore();
}
