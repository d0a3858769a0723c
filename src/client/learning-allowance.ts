import type { Candidate } from '../balancing/strategy.ts';

/** The failures in a row by which an instance is found to be down. */
const FAILURES = 5;
/** Milliseconds for which a timeout counts as the one before the next. */
const RECENT = 10_000;

/**
 * Pays for the retries by which a client finds out which instances are down: five calls that an
 * instance has failed are sent to another that seems well, whatever the retry budget holds. A
 * client with few calls has a small budget, and would let calls fail while it learns, though the
 * next instance serves them. Once an instance was ejected and has returned, five more are paid.
 * Where no instance seems well, as in a total outage or a collapse, nothing is paid.
 */
export class LearningAllowance {
  readonly #spent = new WeakMap<Candidate, { failures: number; ejected: boolean }>();
  /** #timedOutAt holds when the latest call that timed out on an instance began. */
  readonly #timedOutAt = new WeakMap<Candidate, number>();
  /** #latest is the instance of the latest success. */
  #latest: Candidate | undefined = undefined;
  /** #latestAt is when the call of the latest success began. */
  #latestAt = -Infinity;
  /** #otherAt is when the latest successful call on another instance than `#latest` began. */
  #otherAt = -Infinity;

  /** Takes in the success of a call that began at this time. */
  recordSuccess(candidate: Candidate, startedAt: number): void {
    if (candidate !== this.#latest) {
      this.#otherAt = this.#latestAt;
      this.#latest = candidate;
    }
    this.#latestAt = startedAt;
  }

  /** Takes in a call that timed out on the instance and began at this time. */
  recordTimeout(candidate: Candidate, startedAt: number): void {
    const latest = this.#timedOutAt.get(candidate) ?? -Infinity;
    this.#timedOutAt.set(candidate, Math.max(startedAt, latest));
  }

  /**
   * Whether the instance on which a call timed out is alone in trouble: another one has served a
   * call that began no earlier than this one, or no earlier than the recent timeout before it. A
   * caller that makes one call after the other sees the others respond only in between.
   */
  isAlone(candidate: Candidate, startedAt: number): boolean {
    const before = this.#timedOutAt.get(candidate) ?? -Infinity;
    const since = startedAt - before < RECENT ? Math.min(startedAt, before) : startedAt;
    return (candidate === this.#latest ? this.#otherAt : this.#latestAt) >= since;
  }

  /** Pays for one retry of a call that the instance has failed; false if it does not. */
  withdraw(candidate: Candidate): boolean {
    let spent = this.#spent.get(candidate);
    const { failing } = candidate;
    if (spent === undefined) {
      spent = { failures: 0, ejected: failing };
      this.#spent.set(candidate, spent);
    }
    if (spent.ejected && !failing) spent.failures = 0;
    spent.ejected = failing;
    return ++spent.failures <= FAILURES;
  }
}
