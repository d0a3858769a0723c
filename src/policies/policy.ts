import { CLOCK, type Clock, findCommonClock } from '../internal/clock.ts';
import {
  type Labels,
  OBSERVE,
  type Observable,
  type Observation,
  observePart,
} from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import {
  anObject,
  type Check,
  either,
  hasMethods,
  instanceOf,
  isFunction,
  oneOf,
} from '../internal/validate.ts';
import { type CallOptions, type Operation, toPolicyContext } from './context.ts';
import { start } from './outcome.ts';

/** Tells the compiler what a policy puts in the place of results. No policy has such a property. */
export declare const FALLBACK: unique symbol;

/**
 * Runs an operation so that it survives a kind of failure. Safe to share among concurrent calls.
 *
 * @typeParam F of the values that it puts in the place of results: never, but for a Fallback and what is
 * composed with one
 */
export interface Policy<F = never> {
  readonly [FALLBACK]?: (() => F) | undefined;
  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T | F>;
}

/** The type of the values that a policy puts in the place of results. */
export type FallbackOf<P> = P extends { readonly [FALLBACK]?: (() => infer F) | undefined }
  ? typeof FALLBACK extends keyof P
    ? F
    : never
  : never;

class Composed<F> implements Policy<F>, Observable {
  declare readonly [FALLBACK]?: () => F;
  readonly #outer: Policy<F>;
  readonly #inner: Policy<F>;

  readonly #clock: Clock | undefined;

  constructor(outer: Policy<F>, inner: Policy<F>, clock: Clock | undefined) {
    this.#outer = outer;
    this.#inner = inner;
    this.#clock = clock;
  }

  get [CLOCK](): Clock | undefined {
    return this.#clock;
  }

  [OBSERVE](observation: Observation, labels: Labels): void {
    observePart(this.#outer, observation, labels);
    observePart(this.#inner, observation, labels);
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T | F> {
    if (typeof operation !== 'function') return none.execute(operation, options);
    return this.#outer.execute<T | F>((context) => this.#inner.execute(operation, context), options);
  }
}

/**
 * Makes one policy out of several, the outermost first: `compose(fallback, timeout, retry,
 * breaker)` retries inside the timeout, and each retry goes through the breaker.
 *
 * @throws TypeError without a policy, if an argument is not a policy, or if two that read the time have
 *   different clocks
 */
export function compose<P extends Policy<unknown>[]>(...policies: P): Policy<FallbackOf<P[number]>>;
export function compose(...policies: Policy<unknown>[]): Policy<unknown> {
  if (policies.length === 0) throw new TypeError('compose() needs at least one policy');
  policies.forEach((policy, index) => {
    if (typeof policy?.execute !== 'function') {
      throw new TypeError(`argument ${index + 1} of compose() is not a policy: it has no execute()`);
    }
  });
  const clock = findCommonClock('compose()', policies, nameArgument);
  return policies.reduceRight((inner, outer) => new Composed(outer, inner, clock));
}

function nameArgument(policy: Policy<unknown>, index: number): string {
  return `argument ${index + 1} (${policy instanceof Composed ? 'composed policies' : shown(policy)})`;
}

/** Calls the operation, and does nothing else. */
const none: Policy = {
  execute: (operation, options) => {
    const context = toPolicyContext(operation, options);
    return context.aborted ? Promise.reject(context.reason) : start(operation, context);
  },
};

/** Composes the policies that are not undefined; there may be none. */
export function composePresent(...policies: (Policy | undefined)[]): Policy {
  const present = policies.filter((policy) => policy !== undefined);
  return present.length === 0 ? none : compose(...present);
}

/**
 * Makes the check of an option that is a policy of the type, options for one, or false for none.
 */
export function policyOption(type: abstract new (...args: never[]) => Policy, expected: string): Check {
  const options: Check = (value, option) => {
    anObject(value, option);
    if (typeof (value as Partial<Policy>).execute === 'function')
      throw new TypeError('a policy of another type');
  };
  const expectation = `${expected}, an object of its options ({} for the defaults), or false for none`;
  return either(expectation, oneOf(false), instanceOf(type, expected), options);
}

/** Gives the policy of an option: an instance as it is, one made of options, or none for false. */
export function toPolicy<P extends Policy, O>(
  type: abstract new (...args: never[]) => P,
  option: O,
  make: (options: Exclude<O, P | false>) => P,
): P | undefined {
  if (option === false) return undefined;
  return option instanceof type ? option : make(option as Exclude<O, P | false>);
}

/**
 * Makes a function with the same `this` and arguments whose every call goes through the policy.
 *
 * @throws TypeError if `policy` is no policy, or `fn` no function
 */
export function wrap<This, A extends unknown[], T, P extends Policy<unknown>>(
  policy: P,
  fn: (this: This, ...args: A) => PromiseLike<T> | T,
): (this: This, ...args: A) => Promise<T | FallbackOf<P>>;
export function wrap<This, A extends unknown[], T>(
  policy: Policy<unknown>,
  fn: (this: This, ...args: A) => PromiseLike<T> | T,
): (this: This, ...args: A) => Promise<unknown> {
  if (typeof policy === 'function' && !('execute' in policy)) {
    throw new TypeError('wrap() takes the policy first, and then the function: wrap(policy, fn)');
  }
  hasMethods('execute')(policy, 'the policy of wrap()');
  isFunction(fn, 'the function of wrap()');
  return function (...args) {
    return policy.execute(() => fn.apply(this, args));
  };
}
