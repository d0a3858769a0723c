import { AsyncLocalStorage } from 'node:async_hooks';
import { processState } from './process-state.ts';

/** The context of a request that a service handles, and passes on to the services that it calls. */
export interface RequestContext {
  /** `X-Request-ID`, the same in all services that take part. */
  readonly requestId: string;
  /** W3C Trace Context, passed on as it came. */
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
  /** When the caller stops waiting, on the clock of `performance.now()`; Infinity if unknown. */
  readonly deadline: number;
  /**
   * Tells of the request that this one compensates, by its `Compensates-Key`. Undefined if it has
   * none, or if no ServerGuard with idempotency keys has read it.
   */
  readonly compensates?: Compensated | undefined;
  /**
   * Tells who the request is made for. Undefined unless the ServerGuard has the option `identity`.
   */
  readonly identity?: Identity | undefined;
}

/** The caller that a request is made for, as the gateway has found out and signed. */
export interface Identity {
  /** Whether the caller showed a token or an API key. */
  readonly kind: 'jwt' | 'apiKey';
  /** The `sub` of the token, if it has one, or the subject of the API key. */
  readonly subject: string | undefined;
  readonly scopes: ReadonlySet<string>;
  /** The issuer of the token, within which the subject is unique; undefined for an API key. */
  readonly issuer: string | undefined;
}

/**
 * A request that another one compensates: `seen` if it had its response. If it had none, nothing is
 * known of its effect, unless the service keeps the key with the effect; but no guard of the service
 * lets it through any more.
 */
export type Compensated =
  | { readonly seen: false }
  | { readonly seen: true; readonly response: CompensatedResponse };

/** The response to a request that another one compensates, as its handler gave it. */
export interface CompensatedResponse {
  /** Below 500: a status of 4xx may mean that there is nothing to undo. */
  readonly status: number;
  /** By lower-case names, without the headers that the store does not keep, such as `set-cookie`. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body: Uint8Array;
}

/** The form of a request id that may be sent in a header. */
export const REQUEST_ID = /^[\w.:=+/@-]{1,128}$/;

/** W3C Trace Context, section 3.2.2: version ff and ids of zeros alone are invalid. */
export const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}$/;

/** A list of printable characters. W3C Trace Context, section 3.3.1.5, asks for 512 at least. */
export const TRACESTATE = /^[\x20-\x7e]{1,512}$/;

const storage = processState('request-context', () => new AsyncLocalStorage<RequestContext>());

/** Runs a function, and all that it starts, within the context. */
export function runInRequestContext<T>(context: RequestContext, fn: () => T): T {
  return storage.run(context, fn);
}

/** Gives the context of the request that is being handled, if there is one. */
export function currentRequestContext(): RequestContext | undefined {
  return storage.getStore();
}
