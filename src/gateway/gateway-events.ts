import type { IncomingMessage } from 'node:http';
import type { Problem } from './problem.ts';

/** A request that the gateway itself responded to with a status of 500 or more. */
export interface GatewayFailure {
  readonly status: number;
  /** The last part of the type of the problem document, as `service-unavailable`. */
  readonly code: string;
  readonly method: string;
  /** The path without the query, as the client has sent it; at most 200 characters. */
  readonly path: string;
  /** The service that the request is for; undefined where it has come to no route. */
  readonly service: string | undefined;
  /** Why. It may tell of instances, which the client does not learn. */
  readonly error: unknown;
}

export interface GatewayEvents {
  /** A configuration with this number of routes is in force. */
  reload: [event: { routes: number }];
  /** A configuration was not allowed, and the old one stays. */
  'reload-failure': [event: { error: unknown }];
  /** The gateway responded to a request with a status of 500 or more, in place of the service. */
  failure: [failure: GatewayFailure];
}

export type FailureListener = (failure: GatewayFailure) => void;

/** The most characters of a path that an event has. */
const MAX_PATH = 200;

/** Describes a failure, without the query and the headers of the request, which may hold secrets. */
export function toFailure(
  { method = 'GET', url = '/' }: IncomingMessage,
  { status, code }: Problem,
  service: string | undefined,
  error: unknown,
): GatewayFailure {
  const path = url.split('?', 1)[0]!.slice(0, MAX_PATH);
  return { status, code, method, path, service, error };
}
