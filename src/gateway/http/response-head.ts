import { RETRIES_SPENT_HEADER } from '../../client/propagation.ts';
import type { ResponseHeaders } from '../../client/response.ts';
import { IDENTITY_HEADER } from '../auth/identity-signer.ts';
import type { CompiledHeaderRules } from '../routing/route.ts';
import { toDashes } from './header-name.ts';

/**
 * Headers of a response that belong to the connection to the service (RFC 9110, section 7.6.1), that
 * the gateway sets itself, or that are for the mesh alone.
 */
const NOT_FORWARDED: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-request-id',
  IDENTITY_HEADER,
  RETRIES_SPENT_HEADER,
]);

/** Names that no trailer may have: framing, authentication, routing (RFC 9110, section 6.5.1). */
const NO_TRAILERS: ReadonlySet<string> = new Set([
  ...NOT_FORWARDED,
  'content-length',
  'content-encoding',
  'content-type',
  'content-range',
  'host',
  'authorization',
  'proxy-authorization',
  'www-authenticate',
  'set-cookie',
  'cookie',
  'cache-control',
  'expires',
  'date',
  'age',
  'vary',
  'location',
  'retry-after',
  'max-forwards',
  'expect',
  'range',
]);

/**
 * Adds the headers of a service's response to a list of names and values in turn.
 *
 * @param own the names of headers that the gateway sets in their place
 */
export function addResponseHeaders(
  list: string[],
  status: number,
  headers: ResponseHeaders,
  rules: CompiledHeaderRules | undefined,
  own: ReadonlySet<string> | undefined,
): void {
  const named = connectionOptions(headers.connection);
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || NOT_FORWARDED.has(name) || named?.includes(name)) continue;
    // RFC 9110, section 8.6: there is no body, and not everybody knows.
    if (status === 204 && name === 'content-length') continue;
    if (rules?.replaced.has(toDashes(name)) || own?.has(name)) continue;
    if (typeof value === 'string') list.push(name, value);
    else for (const one of value) list.push(name, one);
  }
  if (rules !== undefined) list.push(...rules.set);
}

/**
 * Whether the body has a coding that only the connection to the service may know. The gateway asks for
 * none (RFC 9112, section 7.4), and a client could not read it.
 */
export function hasUnknownCoding({ 'transfer-encoding': coding }: ResponseHeaders): boolean {
  return coding !== undefined && String(coding).toLowerCase() !== 'chunked';
}

/** Gives the trailers that may go on to the client, as names and values in turn. */
export function forwardableTrailers(trailers: ResponseHeaders): [name: string, value: string][] {
  const forwarded: [name: string, value: string][] = [];
  for (const name in trailers) {
    const value = trailers[name];
    if (value === undefined || NO_TRAILERS.has(name)) continue;
    for (const one of [value].flat()) forwarded.push([name, one]);
  }
  return forwarded;
}

function connectionOptions(connection: string | string[] | undefined): string[] | undefined {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return undefined;
  return String(connection)
    .split(',')
    .map((name) => name.trim().toLowerCase());
}
