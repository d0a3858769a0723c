import type { Identity } from '../../../internal/request-context.ts';
import type { Abortable } from '../../../policies/abort.ts';
import type { RequestBody } from '../idempotency/body-hash.ts';

/** A request as a ServerGuard sees it, whichever framework it came through. */
export interface IncomingRequest {
  readonly method: string;
  /** The path without the query. */
  readonly path: string;
  /** The headers by lower-case names, as node:http gives them. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Tells who the request is made for, once a guard with the option `identity` has verified it. */
  readonly identity?: Identity | undefined;
}

/** The part of a request that events tell: nothing that its caller could not see in a log. */
export type RequestSummary = Pick<IncomingRequest, 'method' | 'path'>;

export function summaryOf({ method, path }: IncomingRequest): RequestSummary {
  return { method, path };
}

/** A request that a framework hands to the guard, with the ways to learn more of it. */
export interface GuardedRequest {
  readonly request: IncomingRequest;
  /** The path and the query, as they came. */
  readonly target: string;
  /** Aborted when the client has disconnected. */
  readonly disconnected: Abortable;
  readonly body: RequestBody;
}

export function pathOf(target: string): string {
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}
