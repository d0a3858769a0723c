import { describe, expectTypeOf, it } from 'vitest';
import {
  AdaptiveConcurrency,
  AdaptiveThrottle,
  Cache,
  CircuitBreaker,
  compose,
  Fallback,
  Hedge,
  type Operation,
  type Outcome,
  type Policy,
  Retry,
  Timeout,
  wrap,
} from '../../src/index.ts';

interface Price {
  readonly amount: number;
}

const readPrice = async (_id: string): Promise<Price> => ({ amount: 5 });

describe('the type of a Fallback', () => {
  const instead = new Fallback('unknown');

  it('a call through a Fallback ends with the value of its operation, or with the one in its place', () => {
    expectTypeOf(instead.execute(() => readPrice('a'))).toEqualTypeOf<Promise<Price | string>>();
    expectTypeOf(new Fallback(undefined).execute(() => 1)).toEqualTypeOf<Promise<number | undefined>>();
  });

  it('a function of a Fallback, and the value that it promises, have the type of that value', () => {
    const fallback = new Fallback(async (outcome: Outcome<Price>) => outcome.ok);
    expectTypeOf(fallback).toEqualTypeOf<Fallback<boolean>>();
  });

  it('a Fallback stays known in what it is composed with, at any place and depth', () => {
    const composed = compose(new Timeout(100), compose(new Retry(), instead), new Fallback(null));
    expectTypeOf(composed).toEqualTypeOf<Policy<string | null>>();
    expectTypeOf(wrap(composed, readPrice)('a')).toEqualTypeOf<Promise<Price | string | null>>();
  });

  it('a Fallback is no policy that gives only what its operation gives', () => {
    expectTypeOf(instead).not.toExtend<Policy>();
    expectTypeOf(instead).toExtend<Policy<string>>();
  });
});

describe('the type of what has no Fallback', () => {
  it('policies without a Fallback, composed, give what the operation gives', () => {
    expectTypeOf(compose(new Timeout(100), new Retry())).toEqualTypeOf<Policy>();
    expectTypeOf(wrap(new Retry(), readPrice)('a')).toEqualTypeOf<Promise<Price>>();
  });

  it('a policy of a user, which knows nothing of fallbacks, gives what the operation gives', () => {
    const own = { execute: async <T>(operation: Operation<T>) => operation(undefined as never) };
    expectTypeOf(compose(own, new Retry())).toEqualTypeOf<Policy>();
    expectTypeOf(wrap(own, readPrice)).toEqualTypeOf<(this: unknown, id: string) => Promise<Price>>();
  });
});

describe('the type of a function that decides by an outcome', () => {
  it('a function that decides may be typed for the results of its own calls', () => {
    const isDear = (outcome: Outcome<Price>) => outcome.ok && outcome.value.amount > 9;
    const all = () => [
      new Retry({ shouldRetry: isDear }),
      new CircuitBreaker({ isFailure: isDear, isIgnored: isDear }),
      new Hedge({ isFailure: isDear }),
      new AdaptiveThrottle({ isAccepted: isDear }),
      new AdaptiveConcurrency({ isDropped: isDear }),
      new Cache({ key: () => 'a', ttl: 1_000, sizeOf: (outcome: Outcome<Price>) => (outcome.ok ? 1 : 0) }),
      new Fallback(0, { shouldFallback: isDear }),
    ];
    expectTypeOf(all).returns.items.toExtend<Policy<unknown>>();
  });

  it('one without a type of its own gets a value of which nothing is known, and the context', () => {
    new Retry({
      shouldRetry: (outcome, { attempt }) => {
        if (outcome.ok) expectTypeOf(outcome.value).toEqualTypeOf<unknown>();
        expectTypeOf(attempt).toEqualTypeOf<number>();
        return false;
      },
    });
    // @ts-expect-error a number is no decision
    new Retry({ shouldRetry: () => 5 });
  });
});
