import { isThenable } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { isFunction, nonEmptyString, validateOptions } from '../internal/validate.ts';
import { unlessAborted } from './abort.ts';
import {
  type Attributes,
  type CallOptions,
  type Context,
  type Operation,
  toPolicyContext,
} from './context.ts';
import { type Outcome, type OutcomeFunction, start, unwrap } from './outcome.ts';
import type { FALLBACK, Policy } from './policy.ts';
import type { PolicyOptions } from './policy-options.ts';

export interface FallbackOptions extends PolicyOptions {
  /**
   * Which outcomes are replaced; a promise is awaited. Default: every failure except a cancellation
   * by the caller.
   */
  shouldFallback?: OutcomeFunction<boolean | PromiseLike<boolean>> | undefined;
}

export interface FallbackEvents {
  /** An outcome is replaced. */
  fallback: [event: { outcome: Outcome<unknown>; attributes: Attributes }];
}

/**
 * Replaces chosen outcomes by a value, or by the result of a function of the outcome. If that
 * function throws, the caller gets its error. A call ends with the value of its operation or with the
 * one in its place, so that its type is that of both.
 *
 * @example
 * const recommendations = new Fallback([]);
 * const fromCache = new Fallback((outcome) => cache.get('prices'), { shouldFallback: (outcome) => !outcome.ok });
 */
export class Fallback<F = unknown> extends Emitter<FallbackEvents> implements Policy<F> {
  readonly name: string | undefined;
  declare readonly [FALLBACK]?: () => F;
  readonly #fallback: F | OutcomeFunction<F | PromiseLike<F>>;
  readonly #shouldFallback: FallbackOptions['shouldFallback'];

  constructor(fallback: F | OutcomeFunction<F | PromiseLike<F>>, options: FallbackOptions = {}) {
    super('fallback');
    validateOptions('Fallback', options, { name: nonEmptyString, shouldFallback: isFunction });
    this.name = options.name;
    this.#fallback = fallback;
    this.#shouldFallback = options.shouldFallback;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T | F> {
    const context = toPolicyContext(operation, options);
    const result: Promise<T> = context.aborted ? Promise.reject(context.reason) : start(operation, context);
    return result.then(
      this.#shouldFallback && ((value) => this.#resolve({ ok: true, value }, context)),
      (error) => this.#resolve({ ok: false, error }, context),
    );
  }

  #resolve<T>(outcome: Outcome<T>, context: Context): T | F | PromiseLike<T | F> {
    const replaced =
      this.#shouldFallback === undefined
        ? !outcome.ok && !context.cancelled
        : this.#shouldFallback(outcome, context);
    return isThenable(replaced)
      ? unlessAborted(replaced, context).then((known) => this.#replace(outcome, known, context))
      : this.#replace(outcome, replaced, context);
  }

  #replace<T>(outcome: Outcome<T>, replaced: boolean, context: Context): T | F | PromiseLike<F> {
    if (!replaced) return unwrap(outcome);
    this.emit('fallback', { outcome, attributes: context.attributes });
    const fallback = this.#fallback;
    if (typeof fallback !== 'function') return fallback;
    return (fallback as OutcomeFunction<F | PromiseLike<F>>)(outcome, context);
  }
}
