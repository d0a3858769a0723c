import type {
  RateLimitDecision,
  RateLimitRule,
} from '../../middleware/server/rate-limit/rate-limit-store.ts';

/** A limit, and what it says of a request. */
export interface LimitResult {
  readonly limit: { readonly name: string; readonly rule: RateLimitRule };
  readonly decision: RateLimitDecision;
}

/**
 * Builds the fields that tell a client its limits, and what is left of them. They follow
 * draft-ietf-httpapi-ratelimit-headers-10, 'RateLimit header fields for HTTP': `RateLimit-Policy` has
 * the quota `q` of each window of `w` seconds, `RateLimit` the requests `r` that are left, and in how
 * many seconds `t` all are back. The window is that of the rule, rounded up to whole seconds, and the
 * quota what the rate allows in it.
 */
export function buildRateLimitFields(results: readonly LimitResult[]): Record<string, string> {
  return {
    'ratelimit-policy': results.map(({ limit: { name, rule } }) => toPolicyItem(name, rule)).join(', '),
    ratelimit: results.map(({ limit: { name }, decision }) => toStateItem(name, decision)).join(', '),
  };
}

function toPolicyItem(name: string, { limit, interval }: RateLimitRule): string {
  const window = Math.ceil(interval / 1_000);
  return `"${name}";q=${Math.floor((limit * window * 1_000) / interval)};w=${window}`;
}

function toStateItem(name: string, { remaining, resetAfter }: RateLimitDecision): string {
  return `"${name}";r=${remaining};t=${Math.ceil(resetAfter / 1_000)}`;
}
