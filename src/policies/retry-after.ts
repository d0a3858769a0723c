import { HoldfastError } from '../errors.ts';
import type { Outcome } from './outcome.ts';

/**
 * Milliseconds from now that a Retry-After header asks for: a number of seconds or an HTTP date (RFC 9110,
 * section 10.2.3). Undefined if it is neither.
 */
export function parseRetryAfter(header: unknown): number | undefined {
  if (typeof header !== 'string') return undefined;
  const value = header.trim();
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = /^[A-Za-z]{3,9},? /.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

function headersOf(holder: unknown): unknown {
  return (holder as { headers?: unknown } | null | undefined)?.headers;
}

/**
 * What the called side asked for, in milliseconds: the `retryAfter` of a HoldfastError, or the Retry-After
 * header of a returned response, or of an error that has `headers` or a `response`.
 */
export function retryAfterOf(outcome: Outcome<unknown>): number | undefined {
  const holder = outcome.ok ? outcome.value : outcome.error;
  if (holder instanceof HoldfastError && 'retryAfter' in holder) return holder.retryAfter as number;
  const headers =
    headersOf(holder) ?? headersOf((holder as { response?: unknown } | null | undefined)?.response);
  if (typeof headers !== 'object' || headers === null) return undefined;
  const { get } = headers as { get?: unknown };
  return parseRetryAfter(
    typeof get === 'function'
      ? get.call(headers, 'retry-after')
      : (headers as Record<string, unknown>)['retry-after'],
  );
}
