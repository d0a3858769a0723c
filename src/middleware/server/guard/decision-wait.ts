import { DeadlineExceededError, TimeoutError } from '../../../errors.ts';
import { Context } from '../../../policies/context.ts';
import { settle, unwrap } from '../../../policies/outcome.ts';
import { Timeout } from '../../../policies/timeout.ts';
import type { GuardedRequest } from './incoming-request.ts';

/** Milliseconds for which a guard waits for what a function of its options decides. */
const DECISION_TIMEOUT = 5_000;

/** Waits for the promises of a function of the options of a guard, which may never settle. */
export class DecisionWait {
  readonly #timeout: Timeout;

  /** @param option names the function in the error */
  constructor(option: string) {
    this.#timeout = new Timeout(DECISION_TIMEOUT, {}, option);
  }

  /**
   * Settles as the promise does; rejects once the deadline of the request has passed, its client has
   * disconnected, or after five seconds.
   *
   * @param expired gives the decision after the five seconds. Default: they reject with a TimeoutError
   */
  async decide<T>(
    given: PromiseLike<T>,
    { disconnected }: GuardedRequest,
    deadline: number,
    expired?: () => T,
  ): Promise<T> {
    const context = new Context(1, deadline, { attributes: {} }, disconnected, false);
    const settled = settle<T>(() => given, context);
    const outcome = await this.#timeout
      .execute(() => settled, context)
      .catch((error) => {
        const isOver = error instanceof TimeoutError && !(error instanceof DeadlineExceededError);
        if (isOver && expired !== undefined) return { ok: true as const, value: expired() };
        throw error;
      });
    return unwrap(outcome);
  }
}
