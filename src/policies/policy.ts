import {
  type Labels,
  OBSERVE,
  type Observable,
  type Observation,
  observePart,
} from '../internal/observation.ts';
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

/**
 * Runs an operation so that it survives a kind of failure. Safe to share among concurrent calls.
 */
export interface Policy {
  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T>;
}

class Composed implements Policy, Observable {
  readonly #outer: Policy;
  readonly #inner: Policy;

  constructor(outer: Policy, inner: Policy) {
    this.#outer = outer;
    this.#inner = inner;
  }

  [OBSERVE](observation: Observation, labels: Labels): void {
    observePart(this.#outer, observation, labels);
    observePart(this.#inner, observation, labels);
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    if (typeof operation !== 'function') return none.execute(operation, options);
    return this.#outer.execute((context) => this.#inner.execute(operation, context), options);
  }
}

/**
 * Makes one policy out of several, the outermost first: `compose(fallback, timeout, retry,
 * breaker)` retries inside the timeout, and each retry goes through the breaker.
 *
 * @throws TypeError without a policy, or if an argument is not a policy
 */
export function compose(...policies: Policy[]): Policy {
  if (policies.length === 0) throw new TypeError('compose() needs at least one policy');
  policies.forEach((policy, index) => {
    if (typeof policy?.execute !== 'function') {
      throw new TypeError(`argument ${index + 1} of compose() is not a policy: it has no execute()`);
    }
  });
  return policies.reduceRight((inner, outer) => new Composed(outer, inner));
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
export function wrap<This, A extends unknown[], T>(
  policy: Policy,
  fn: (this: This, ...args: A) => PromiseLike<T> | T,
): (this: This, ...args: A) => Promise<T> {
  hasMethods('execute')(policy, 'the policy of wrap()');
  isFunction(fn, 'the function of wrap()');
  return function (...args) {
    return policy.execute(() => fn.apply(this, args));
  };
}
