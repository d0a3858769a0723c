import type { SagaEntry } from './saga-entry.ts';

/** The attempts to bring about one effect. */
export interface Attempts {
  /** The number of the latest one; 0 before the first. */
  readonly latest: number;
  /** Milliseconds for which the latest one had to wait. */
  readonly delay: number;
  /** Milliseconds for which the next one has to wait at least. */
  readonly retryAfter: number;
  /** Counts those intended since an operator's latest retry, without those that the retry budget put off. */
  readonly made: number;
  /** Counts those that failed since then, without those that were postponed. */
  readonly failed: number;
  /** Counts the attempts that are known to have had no effect. */
  readonly harmless: number;
  /** The latest ones in a row of which no outcome was recorded: their owners died. */
  readonly unanswered: number;
  /** Numbers the idempotency keys of the effect, from 1 on. All attempts since an operator's retry share one. */
  readonly key: number;
  /** The latest ones in a row of which nothing was sent: see `isPostponement`. */
  readonly postponed: number;
}

type Failure = Pick<Extract<SagaEntry, { type: 'fail' }>, 'error' | 'outcome' | 'final' | 'retryAfter'>;

export const NO_ATTEMPTS: Attempts = {
  latest: 0,
  delay: 0,
  retryAfter: 0,
  made: 0,
  failed: 0,
  harmless: 0,
  unanswered: 0,
  key: 1,
  postponed: 0,
};

export function begin(attempts: Attempts, { attempt, delay }: { attempt: number; delay: number }): Attempts {
  const { made, unanswered } = attempts;
  return { ...attempts, latest: attempt, delay, made: made + 1, unanswered: unanswered + 1 };
}

export function fail(attempts: Attempts, failure: Failure): Attempts {
  const { retryAfter = 0 } = failure;
  const harmless = attempts.harmless + (failure.outcome === 'not-happened' ? 1 : 0);
  const { made, failed, postponed } = attempts;
  const ended = { ...attempts, harmless, retryAfter, unanswered: 0 };
  if (!isPostponement(failure)) return { ...ended, failed: failed + 1, postponed: 0 };
  const isUnpaid = failure.error.code === 'ERR_RETRY_BUDGET_EXHAUSTED';
  return { ...ended, made: isUnpaid ? made - 1 : made, postponed: postponed + 1 };
}

/**
 * Whether nothing was sent, and another attempt may end better: the circuit was open, no instance was there,
 * or there was no room. What has no other way but to succeed waits for that, and is not given up by it.
 */
function isPostponement({ outcome, final }: Failure): boolean {
  return outcome === 'not-happened' && !final;
}

/**
 * Gives an effect new attempts. A service that has rejected it keeps that response under the key: so these
 * have a key of their own, unless one with the former key may have had the effect, or have it yet.
 */
export function startAgain(attempts: Attempts): Attempts {
  const key = attempts.latest === attempts.harmless ? attempts.key + 1 : attempts.key;
  return { ...attempts, key, made: 0, failed: 0, postponed: 0 };
}
