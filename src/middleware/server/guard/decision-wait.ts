import { DeadlineExceededError, TimeoutError } from '../../../errors.ts';
import { Context } from '../../../policies/context.ts';
import { settle, unwrap } from '../../../policies/outcome.ts';
import { Timeout } from '../../../policies/timeout.ts';
import type { GuardedRequest } from './incoming-request.ts';

/** Milliseconds for which a guard waits for what a function of its options decides. */
const DECISION_TIMEOUT = 5_000;

/** The error of a wait that ended at the deadline of its request; other ones of its class are of other calls. */
export const TOO_LATE = new DeadlineExceededError('the deadline of the request passed while it waited', 0);

/** Waits for the promises of a function of the options of a guard, which may never settle. */
export class DecisionWait {
  readonly #timeout: Timeout;

  /** @param option names the function in the error */
  constructor(option: string) {
    this.#timeout = new Timeout(DECISION_TIMEOUT, {}, option);
  }

  /**
   * Settles as the promise does; rejects with TOO_LATE once the deadline of the request has passed, with
   * the reason of `disconnected` once its client has disconnected, or after five seconds.
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
        // The operation never rejects: a DeadlineExceededError is that of the Timeout.
        if (error instanceof DeadlineExceededError) throw TOO_LATE;
        if (error instanceof TimeoutError && expired !== undefined)
          return { ok: true as const, value: expired() };
        throw error;
      });
    return unwrap(outcome);
  }
}
