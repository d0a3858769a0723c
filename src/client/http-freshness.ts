import type { Freshness } from '../policies/cache-options.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';

/** The longest header that is read. */
export const MAX_HEADER_LENGTH = 1_024;

/**
 * The statuses that may be kept. Source: RFC 9110, section 15.1, but without 206, which is a part
 * of a response, and 501, which is an error of the call here.
 */
const CACHEABLE_STATUSES: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414]);

/** Response directives with which a response is never served stale. */
const NEVER_STALE = ['must-revalidate', 'proxy-revalidate'];

/**
 * The longest time in seconds that a response can ask for: one that asks for more, by mistake or by
 * malice, gets a day.
 */
const MAX_SECONDS = 86_400;

/**
 * Parses the directives of a Cache-Control header; undefined if the header is too long to be read.
 * A directive that comes twice with different arguments gets none, so that it counts as malformed.
 * Source: RFC 9111, section 5.2.
 */
export function parseDirectives(
  header: string | string[] | undefined,
): ReadonlyMap<string, string> | undefined {
  const text = header === undefined ? '' : String(header);
  if (text.length > MAX_HEADER_LENGTH) return undefined;
  const directives = new Map<string, string>();
  for (const [, name, quoted, token] of text.matchAll(
    /([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/g,
  )) {
    const key = name!.toLowerCase();
    const argument = quoted ?? token ?? '';
    const before = directives.get(key);
    directives.set(key, before === undefined || before === argument ? argument : '');
  }
  return directives;
}

/** Whether the directives have one with any of the names. */
export function hasAny(directives: ReadonlyMap<string, string>, names: readonly string[]): boolean {
  return names.some((name) => directives.has(name));
}

/**
 * Gives how long a response with the directives is fresh, and how long it may be served stale;
 * undefined if it may not be kept.
 *
 * @param elapsed milliseconds that the call took
 */
export function freshnessOf(
  { status, headers }: ResponseHead,
  directives: ReadonlyMap<string, string>,
  elapsed: number,
): Freshness | undefined {
  const lifetime = lifetimeOf(directives, headers);
  if (lifetime === undefined || !CACHEABLE_STATUSES.has(status)) return undefined;
  // RFC 9111, section 4.2.3: the corrected age value, for which clocks need not agree.
  const ttl = 1000 * (Math.min(lifetime, MAX_SECONDS) - parseAge(headers)) - elapsed;
  if (hasAny(directives, NEVER_STALE)) return { ttl, staleWhileRevalidate: 0, staleIfError: 0 };
  return {
    ttl,
    staleWhileRevalidate: extensionOf(directives, 'stale-while-revalidate'),
    staleIfError: extensionOf(directives, 'stale-if-error'),
  };
}

/**
 * Gives the seconds for which a response is fresh from when it was made. Source: RFC 9111, section
 * 4.2.1.
 */
function lifetimeOf(directives: ReadonlyMap<string, string>, headers: ResponseHeaders): number | undefined {
  const argument = directives.get('s-maxage') ?? directives.get('max-age');
  if (argument !== undefined) return parseSeconds(argument);
  if (headers.expires === undefined) return undefined;
  const expires = parseDate(headers.expires);
  // A response without a date is from now. Only here is the wall clock used, since `Expires` is a
  // date.
  const date = headers.date === undefined ? Date.now() : parseDate(headers.date);
  return expires === undefined || date === undefined ? 0 : (expires - date) / 1000;
}

/** Gives the milliseconds of a stale-* directive; with undefined the options hold. */
function extensionOf(directives: ReadonlyMap<string, string>, name: string): number | undefined {
  const argument = directives.get(name);
  if (argument !== undefined) return 1000 * Math.min(parseSeconds(argument), MAX_SECONDS);
  // RFC 9111, section 5.2.2.10: `s-maxage` forbids what the options allow, as `proxy-revalidate`
  // does.
  return directives.has('s-maxage') ? 0 : undefined;
}

/** Parses seconds. A malformed number makes a response stale. Source: RFC 9111, section 4.2.1. */
function parseSeconds(argument: string): number {
  return /^\d+$/.test(argument) ? Number(argument) : 0;
}

/**
 * Parses the age of a response in seconds. The first of several values counts; a malformed one does
 * not. Source: RFC 9111, section 5.1.
 */
function parseAge({ age }: ResponseHeaders): number {
  return age === undefined ? 0 : parseSeconds(String(age).split(',', 1)[0]!.trim());
}

/**
 * The form in which dates are sent, and the two obsolete ones, the last of which names no zone.
 * Source: RFC 9110, section 5.6.7.
 */
const HTTP_DATE =
  /^(?:[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})$/;

/** Parses a date into epoch milliseconds. */
function parseDate(header: string | string[]): number | undefined {
  if (typeof header !== 'string' || !HTTP_DATE.test(header)) return undefined;
  const date = Date.parse(header.endsWith('GMT') ? header : `${header} GMT`);
  return Number.isNaN(date) ? undefined : date;
}
