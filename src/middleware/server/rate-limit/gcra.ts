import { integer, MAX_DELAY, nonEmptyString, number, validateOptions } from '../../../internal/validate.ts';
import type { RateLimitDecision, RateLimitRule } from './rate-limit-store.ts';

/**
 * Says how the Generic Cell Rate Algorithm counts by a rule. It remembers one number for each key:
 * when the next request would come if requests came evenly at the limit. Each request moves that
 * time on by one step, and it may be at most `span` ahead.
 *
 * Source: ATM Forum, 'Traffic Management Specification 4.0', the virtual scheduling form; Brandur
 * Leach, 'Rate Limiting, Cells, and GCRA'.
 */
export interface Pace {
  /** Milliseconds from request to request at the limit: GCRA's T. */
  readonly step: number;
  /** Milliseconds that a burst is worth: GCRA's τ, and one step. */
  readonly span: number;
}

/**
 * Milliseconds that the clocks can tell apart. A turn nearer than that has come, but for rounding.
 */
const CLOCK_TICK = 1e-3;

const RULE = {
  limit: number(1e-6),
  interval: number(1, MAX_DELAY),
  burst: integer(1),
  by: nonEmptyString,
};

const paces = new WeakMap<RateLimitRule, Pace>();

/**
 * Gives the pace of a rule, which is validated the first time that it is seen.
 *
 * @throws TypeError or RangeError that names the option of the rule that is not allowed
 */
export function paceOf(rule: RateLimitRule): Pace {
  const known = paces.get(rule);
  if (known !== undefined) return known;
  validateOptions('a rule of a rate limit', rule, RULE);
  const { limit, interval, burst = Math.max(1, Math.floor(limit)) } = rule;
  const step = interval / limit;
  // A limit or an interval that was left out gives no number.
  if (Number.isNaN(step)) throw new TypeError('a rule of a rate limit needs `limit` and `interval`');
  const pace = { step, span: burst * step };
  paces.set(rule, pace);
  return pace;
}

/** Tells what follows for one request, and when the next one would come then. */
export interface Take {
  readonly decision: RateLimitDecision;
  readonly arrival: number;
}

/**
 * Counts a request that comes at `now`. An arrival that is further ahead than a burst reaches comes
 * from a clock that was set back, or from another rule, and counts as a burst.
 */
export function take(stored: number, now: number, pace: Pace): Take {
  const { step, span } = pace;
  const arrival = Math.max(now, Math.min(stored, now + span));
  const wait = arrival + step - span - now;
  if (wait >= CLOCK_TICK) return { decision: rejected(wait, arrival - now), arrival };
  return { decision: allowed(arrival + step - now, pace), arrival: arrival + step };
}

/** @param ahead milliseconds by which the next arrival is ahead of now */
export function allowed(ahead: number, { step, span }: Pace): RateLimitDecision {
  const remaining = Math.max(0, Math.floor((span - ahead + CLOCK_TICK) / step));
  return { allowed: true, remaining, retryAfter: 0, resetAfter: ahead };
}

/** @param ahead milliseconds by which the next arrival is ahead of now */
export function rejected(retryAfter: number, ahead: number): RateLimitDecision {
  return { allowed: false, remaining: 0, retryAfter, resetAfter: ahead };
}
