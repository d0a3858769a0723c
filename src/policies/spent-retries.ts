import { processState } from '../internal/process-state.ts';

/**
 * Marks errors and responses that were retried without success as often as allowed, and keeps their
 * order: a program may throw one error object in several calls, so that a mark from before an
 * attempt says nothing about that attempt. The marks are ordered by a count of their own, since the
 * clock costs more to read than a whole attempt may, and stands still in tests.
 */
class SpentRetries {
  readonly #marks = new WeakMap<object, number>();
  #latest = 0;

  /** The latest mark. Taken before an attempt, it tells `has` which marks are older. */
  get latest(): number {
    return this.#latest;
  }

  /** Marks an error or a response. What is no object cannot be marked. */
  mark(errorOrResponse: unknown): void {
    if (isObject(errorOrResponse)) this.#marks.set(errorOrResponse, ++this.#latest);
  }

  /** Whether it was marked, after the mark `since` if there is one. */
  has(errorOrResponse: unknown, since = 0): boolean {
    return isObject(errorOrResponse) && (this.#marks.get(errorOrResponse) ?? 0) > since;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/**
 * One for the process, since layers that know nothing of each other meet in the errors they throw.
 */
export const spentRetries = processState('spent-retries', () => new SpentRetries());

/**
 * Whether the error or the response of a call was retried without success as often as allowed, by a
 * Retry of this process or at the callee. A server tells its own callers so: see
 * `RETRIES_SPENT_HEADER`.
 */
export function areRetriesSpent(errorOrResponse: unknown): boolean {
  return spentRetries.has(errorOrResponse);
}
