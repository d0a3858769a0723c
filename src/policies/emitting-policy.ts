import type { EventEmitter } from 'eventemitter3';
import { markDetached, nameCaller } from '../internal/caller-frames.ts';
import { CLOCK, type Clock, systemClock } from '../internal/clock.ts';
import { Emitter } from '../internal/emitter.ts';
import { type CallOptions, type Context, type Operation, toPolicyContext } from './context.ts';
import type { Policy } from './policy.ts';
import type { TimedPolicyOptions } from './policy-options.ts';

/**
 * A policy with events. It rejects a call that was aborted before it began, and turns what the
 * user's functions throw into a rejection, so that no policy has to see to either by itself.
 */
export abstract class EmittingPolicy<Events extends EventEmitter.ValidEventTypes>
  extends Emitter<Events>
  implements Policy
{
  readonly name: string | undefined;
  readonly #clock: Clock;

  /**
   * @param options checked by the policy itself, once it is an emitter.
   * @internal
   */
  constructor(kind: string, options: TimedPolicyOptions | undefined) {
    super(kind);
    this.name = options?.name;
    this.#clock = options?.clock ?? systemClock;
  }

  /**
   * The clock of its options, or that of the process.
   *
   * @internal
   */
  protected get clock(): Clock {
    return this.#clock;
  }

  /** @internal */
  get [CLOCK](): Clock | undefined {
    return this.#clock;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const context = toPolicyContext(operation, options);
    if (context.aborted) return Promise.reject(context.reason);
    try {
      return this.run(operation, context);
    } catch (error) {
      nameCaller(error, this.execute);
      // A later attempt begins when its caller has returned.
      if (context.attempt > 1) markDetached(error);
      return Promise.reject(error);
    }
  }

  /**
   * Runs the operation of a call that was not aborted before.
   *
   * @internal
   */
  protected abstract run<T>(operation: Operation<T>, context: Context): Promise<T>;
}
