import type { IncomingMessage } from 'node:http';
import type { CallEngine } from '../client/call-engine.ts';
import { isIdempotentMethod } from '../client/methods.ts';
import { isIdempotent } from '../client/service-call.ts';
import type { Variant } from '../client/service-variants.ts';
import { IDENTITY_HEADER } from './auth/identity-signer.ts';
import type { Principal } from './auth/principal.ts';
import type { GatewayState } from './gateway-state.ts';
import type { RequestSource } from './http/forwarding.ts';
import { toDashes } from './http/header-name.ts';
import type { RequestHead } from './http/request-head.ts';
import { badPath, type CanonicalPath } from './routing/canonical-path.ts';
import type { RouteMatch } from './routing/router.ts';

/** A request whose route is known. */
export interface RoutedRequest extends RouteMatch {
  readonly head: RequestHead;
  readonly source: RequestSource;
  /** In its canonical form; as it was written for a route with `rawPath`. */
  readonly path: string;
}

/** The parts of a request to a service that do not depend on its body. */
export interface ServiceRequest {
  readonly service: string;
  readonly path: string;
  /** Names and values in turn. */
  readonly headers: string[];
  readonly timeout: number | undefined;
  readonly retries: number | undefined;
  /** Whether it may be sent again after it may have arrived. */
  readonly idempotent: boolean;
  readonly variant: Variant | undefined;
  /** Milliseconds for which a response may be silent; 0 for any time. */
  readonly bodyTimeout: number;
}

const PARAMETERS = /;[^/]*/g;

/**
 * Finds the route of a request.
 *
 * @throws Rejection
 */
export function routeRequest(
  state: GatewayState,
  request: IncomingMessage,
  head: RequestHead,
  { path, ambiguity }: CanonicalPath,
  source: RequestSource,
): RoutedRequest {
  const { method = 'GET', headers } = request;
  const query = { method, path, host: hostnameOf(head.authority), headers };
  const { route, values } = state.router.find(query);
  const { rawPath = false } = route.options;
  if (ambiguity !== undefined && !rawPath) throw badPath(ambiguity);
  if (path.includes(';') && !rawPath) {
    // Servlets cut parameters off before they route: then no other route, with rules of its own, may apply.
    const other = state.router.peek({ ...query, path: path.replace(PARAMETERS, '') });
    if (other !== undefined && other !== route)
      throw badPath('has a parameter without which it has another route');
  }
  return { head, route, values, source, path: rawPath ? head.target.path : path };
}

/** Builds what goes to the service, and picks the version of it. */
export function buildServiceRequest(
  { authenticator }: GatewayState,
  engine: CallEngine,
  request: IncomingMessage,
  { head, route, values, source, path }: RoutedRequest,
  principal: Principal | undefined,
): ServiceRequest {
  const { service, options, split, requestHeaders } = route;
  let { headers } = head;
  if (authenticator?.droppedHeaders.size) headers = withoutHeaders(headers, authenticator.droppedHeaders);
  headers.push(...source.headers);
  if (requestHeaders !== undefined) headers = withoutHeaders(headers, requestHeaders.replaced);
  if (principal !== undefined) headers.push(IDENTITY_HEADER, authenticator!.signer.sign(principal, service));
  if (requestHeaders !== undefined) headers.push(...requestHeaders.set);
  const { address } = source;
  return {
    service,
    path: `${route.rewrite === undefined ? path : route.rewrite(values)}${head.target.search}`,
    headers,
    timeout: options.timeout,
    retries: options.retries,
    // A stranger's key says nothing of whether the service looks at it.
    idempotent: options.idempotencyKeys
      ? isIdempotent(request.method!, headers)
      : isIdempotentMethod(request.method!),
    // undici's default would end event streams that have nothing to tell for five minutes.
    bodyTimeout: engine.policiesOf(service).connection.bodyTimeout ?? 0,
    variant: split?.pick({ headers: request.headers, address, principal }, (version) =>
      engine.hasInstance(service, version),
    ),
  };
}

/** Gives the host without its port and the dot of a full name, in lower case. */
function hostnameOf(authority: string): string {
  const colon = authority.lastIndexOf(':');
  const hasPort = colon > authority.lastIndexOf(']');
  const host = (hasPort ? authority.slice(0, colon) : authority).toLowerCase();
  return host.endsWith('.') ? host.slice(0, -1) : host;
}

/** @param names as `toDashes` writes them */
function withoutHeaders(headers: string[], names: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let index = 0; index < headers.length; index += 2) {
    if (!names.has(toDashes(headers[index]!))) kept.push(headers[index]!, headers[index + 1]!);
  }
  return kept;
}
