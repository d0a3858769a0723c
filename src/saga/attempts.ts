import type { SagaEntry } from './saga-entry.ts';

/** The attempts to bring about one effect. */
export interface Attempts {
  /** The number of the latest one; 0 before the first. */
  readonly latest: number;
  /** Milliseconds for which the latest one had to wait. */
  readonly delay: number;
  /** Milliseconds for which the next one has to wait at least. */
  readonly retryAfter: number;
  /** `made` counts those intended since an operator's latest retry, `failed` those that failed since. */
  readonly made: number;
  readonly failed: number;
  /** Counts the attempts that are known to have had no effect. */
  readonly harmless: number;
  /** The latest ones in a row of which no outcome was recorded: their owners died. */
  readonly unanswered: number;
  /** Numbers the idempotency keys of the effect, from 1 on. All attempts since an operator's retry share one. */
  readonly key: number;
  /** The latest ones in a row that the retry budget of the service has put off. They are not `made`. */
  readonly postponed: number;
}

type Failure = Pick<Extract<SagaEntry, { type: 'fail' }>, 'error' | 'outcome' | 'retryAfter'>;

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
  if (isPostponement(failure)) return { ...ended, made: made - 1, postponed: postponed + 1 };
  return { ...ended, failed: failed + 1, postponed: 0 };
}

/** Whether an attempt was not made, as there were too many others. A `run` may fail by the same error. */
function isPostponement({ error, outcome }: Failure): boolean {
  return outcome === 'not-happened' && error.code === 'ERR_RETRY_BUDGET_EXHAUSTED';
}

/**
 * Gives an effect new attempts. A service that has rejected it keeps that response under the key: so these
 * have a key of their own, unless one with the former key may have had the effect, or have it yet.
 */
export function startAgain(attempts: Attempts): Attempts {
  const key = attempts.latest === attempts.harmless ? attempts.key + 1 : attempts.key;
  return { ...attempts, key, made: 0, failed: 0, postponed: 0 };
}
