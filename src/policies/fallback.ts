import { isThenable } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { isFunction, nonEmptyString, validateOptions } from '../internal/validate.ts';
import { unlessAborted } from './abort.ts';
import {
  type Attributes,
  type CallContext,
  type CallOptions,
  type Context,
  type Operation,
  toPolicyContext,
} from './context.ts';
import { type Outcome, start, unwrap } from './outcome.ts';
import type { Policy } from './policy.ts';
import type { PolicyOptions } from './policy-options.ts';

export interface FallbackOptions extends PolicyOptions {
  /**
   * Which outcomes are replaced; a promise is awaited. Default: every failure except a cancellation
   * by the caller.
   */
  shouldFallback?: (outcome: Outcome<unknown>, context: CallContext) => boolean | PromiseLike<boolean>;
}

export interface FallbackEvents {
  /** An outcome is replaced. */
  fallback: [event: { outcome: Outcome<unknown>; attributes: Attributes }];
}

/**
 * Replaces chosen outcomes by a value, or by the result of a function of the outcome. If that
 * function throws, the caller gets its error.
 *
 * @example
 * const recommendations = new Fallback([]);
 * const fromCache = new Fallback((outcome) => cache.get('prices'), { shouldFallback: (outcome) => !outcome.ok });
 */
export class Fallback<F = unknown> extends Emitter<FallbackEvents> implements Policy {
  readonly name: string | undefined;
  readonly #fallback: F | ((outcome: Outcome<unknown>, context: CallContext) => F | PromiseLike<F>);
  readonly #shouldFallback: FallbackOptions['shouldFallback'];

  constructor(
    fallback: F | ((outcome: Outcome<unknown>, context: CallContext) => F | PromiseLike<F>),
    options: FallbackOptions = {},
  ) {
    super('fallback');
    validateOptions('Fallback', options, { name: nonEmptyString, shouldFallback: isFunction });
    this.name = options.name;
    this.#fallback = fallback;
    this.#shouldFallback = options.shouldFallback;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const context = toPolicyContext(operation, options);
    const result: Promise<T> = context.aborted ? Promise.reject(context.reason) : start(operation, context);
    return result.then(
      this.#shouldFallback && ((value) => this.#resolve({ ok: true, value }, context)),
      (error) => this.#resolve({ ok: false, error }, context),
    );
  }

  #resolve<T>(outcome: Outcome<T>, context: Context): T | PromiseLike<T> {
    const replaced =
      this.#shouldFallback === undefined
        ? !outcome.ok && !context.cancelled
        : this.#shouldFallback(outcome, context);
    return isThenable(replaced)
      ? unlessAborted(replaced, context).then((known) => this.#replace(outcome, known, context))
      : this.#replace(outcome, replaced, context);
  }

  #replace<T>(outcome: Outcome<T>, replaced: boolean, context: Context): T | PromiseLike<T> {
    if (!replaced) return unwrap(outcome);
    this.emit('fallback', { outcome, attributes: context.attributes });
    // The caller chose a value that can stand in for the value of its operation.
    const fallback = this.#fallback as
      | T
      | ((outcome: Outcome<unknown>, context: CallContext) => T | PromiseLike<T>);
    return typeof fallback === 'function'
      ? (fallback as (outcome: Outcome<unknown>, context: CallContext) => T | PromiseLike<T>)(
          outcome,
          context,
        )
      : fallback;
  }
}
