import type { Abortable } from '../../../policies/abort.ts';
import type { RequestBody } from '../idempotency/body-hash.ts';

/** A request as a ServerGuard sees it, whichever framework it came through. */
export interface IncomingRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** By lower-case names, as node:http gives them. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** What events tell of a request: nothing that its caller could not see in a log. */
export type RequestSummary = Pick<IncomingRequest, 'method' | 'path'>;

export function summaryOf({ method, path }: IncomingRequest): RequestSummary {
  return { method, path };
}

/** What a shim brings: a request, and how to learn more of it where that is needed. */
export interface Exchange {
  readonly request: IncomingRequest;
  /** The path and the query, as they came. */
  readonly target: string;
  /** Aborted when the client has gone. */
  readonly gone: Abortable;
  readonly body: RequestBody;
}

export function pathOf(target: string): string {
  const query = target.indexOf('?');
  return query === -1 ? target : target.slice(0, query);
}
