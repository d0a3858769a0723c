import type { Candidate } from '../balancing/strategy.ts';

/** Failures in a row by which an instance is found to be down. */
const FAILURES = 5;

/**
 * Pays for the retries that it takes to find out which instances are down: of each instance five failed calls are made
 * elsewhere, on an instance that seems well, whatever the retry budget holds. A client with few calls has a small budget,
 * and would let calls fail while it learns, though the next instance serves them. An instance that has been ejected and
 * returned can be learned of anew. Where no instance seems well, as in a total outage or a collapse, it pays nothing.
 */
export class LearningAllowance {
  readonly #spent = new WeakMap<Candidate, { failures: number; ejected: boolean }>();

  /** Whether it pays for one retry of a call that the instance has failed. */
  withdraw(candidate: Candidate): boolean {
    let spent = this.#spent.get(candidate);
    const { failing } = candidate;
    if (spent === undefined || (spent.ejected && !failing)) {
      spent = { failures: 0, ejected: failing };
      this.#spent.set(candidate, spent);
    }
    spent.ejected = failing;
    return ++spent.failures <= FAILURES;
  }
}
