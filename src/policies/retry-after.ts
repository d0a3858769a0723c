import { HoldfastError } from '../errors.ts';
import type { Outcome } from './outcome.ts';

const NAME = 'retry-after';

/**
 * Gives the milliseconds from now for which a Retry-After header asks: a number of seconds or an
 * HTTP date (RFC 9110, section 10.2.3). Undefined if it is neither.
 */
export function parseRetryAfter(header: unknown): number | undefined {
  if (typeof header !== 'string') return undefined;
  const value = header.trim();
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = /^[A-Za-z]{3,9},? /.test(value) ? Date.parse(toUtc(value)) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/**
 * Adds the time zone: all dates are in UTC (RFC 9110, section 5.6.7), and asctime's form does not
 * say so.
 */
function toUtc(date: string): string {
  return /\d$/.test(date) && !/[+-]\d\d:?\d\d$/.test(date) ? `${date} GMT` : date;
}

function headersOf(holder: unknown): unknown {
  return (holder as { headers?: unknown } | null | undefined)?.headers;
}

/**
 * Gives the milliseconds for which the callee asked: the `retryAfter` of a HoldfastError, or the
 * Retry-After header of a returned response, or of an error that has `headers` or a `response`.
 */
export function retryAfterOf(outcome: Outcome<unknown>): number | undefined {
  const holder = outcome.ok ? outcome.value : outcome.error;
  if (holder instanceof HoldfastError && 'retryAfter' in holder) return holder.retryAfter as number;
  const headers =
    headersOf(holder) ?? headersOf((holder as { response?: unknown } | null | undefined)?.response);
  if (typeof headers !== 'object' || headers === null) return undefined;
  return parseRetryAfter(headerIn(headers));
}

/** Gives the value in a Headers object, a Map or a plain object, with the name in any case. */
function headerIn(headers: object): unknown {
  const { get } = headers as { get?: unknown };
  const found =
    typeof get === 'function' ? get.call(headers, NAME) : (headers as Record<string, unknown>)[NAME];
  if (found !== undefined && found !== null) return found;
  const entries = headers instanceof Map ? headers : Object.entries(headers);
  for (const [name, value] of entries) if (String(name).toLowerCase() === NAME) return value;
  return undefined;
}
