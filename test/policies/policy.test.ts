import { describe, expect, it, vi } from 'vitest';
import * as holdfast from '../../src/index.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { Cache } from '../../src/policies/cache.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import type { CallOptions, Operation } from '../../src/policies/context.ts';
import { Fallback } from '../../src/policies/fallback.ts';
import { Hedge } from '../../src/policies/hedge.ts';
import { compose, type Policy, wrap } from '../../src/policies/policy.ts';
import { RateLimiter } from '../../src/policies/rate-limiter.ts';
import { resilient } from '../../src/policies/resilient.ts';
import { Retry } from '../../src/policies/retry.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { fling, rejectionOf } from './helpers.ts';

function recorder(name: string, log: string[]): Policy {
  return {
    async execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
      log.push(`${name} in`);
      try {
        return await operation(options as never);
      } finally {
        log.push(`${name} out`);
      }
    },
  };
}

describe('compose', () => {
  it('compose() goes through its policies from the outermost to the innermost and back', async () => {
    const log: string[] = [];
    const policy = compose(...['a', 'b', 'c'].map((name) => recorder(name, log)));
    const result = await policy.execute(() => {
      log.push('operation');
      return 'fine';
    });
    expect(result).toBe('fine');
    expect(log).toEqual(['a in', 'b in', 'c in', 'operation', 'c out', 'b out', 'a out']);
  });

  it.each([1, 2, 50])('compose() takes %i policies', async (count) => {
    const log: string[] = [];
    const policy = compose(...Array.from({ length: count }, (_, index) => recorder(String(index), log)));
    expect(await policy.execute(() => 'fine')).toBe('fine');
    expect(log).toEqual([
      ...Array.from({ length: count }, (_, index) => `${index} in`),
      ...Array.from({ length: count }, (_, index) => `${count - 1 - index} out`),
    ]);
  });

  it('compose() composes what is composed', async () => {
    const log: string[] = [];
    const [a, b, c] = ['a', 'b', 'c'].map((name) => recorder(name, log)) as [Policy, Policy, Policy];
    await compose(compose(a, b), c).execute(() => 1);
    const nested = log.splice(0);
    await compose(a, b, c).execute(() => 1);
    expect(nested).toEqual(log);
  });

  it("compose() hands the caller's options to the operation through all of them", async () => {
    const attributes = { service: 'users' };
    const policy = compose(new Timeout(1_000), new Retry());
    expect(await policy.execute((context) => context.attributes, { attributes })).toBe(attributes);
  });

  it('compose() passes on the error as it is', async () => {
    expect(
      await rejectionOf(compose(recorder('a', []), recorder('b', [])).execute(() => fling('text'))),
    ).toBe('text');
  });

  it('compose() rejects an empty list', () => {
    expect(() => compose()).toThrow(new TypeError('compose() needs at least one policy'));
  });

  it.each([undefined, null, {}, () => {}, 'retry', { execute: 5 }])(
    'compose() rejects %o and says which argument it is',
    (odd) => {
      expect(() => compose(new Timeout(1), odd as never)).toThrow(
        /argument 2 of compose\(\) is not a policy/,
      );
    },
  );
});

describe('an operation that is no function', () => {
  const key = () => 'a';
  const policies: [string, Policy<unknown>][] = [
    ['AdaptiveConcurrency', new AdaptiveConcurrency()],
    ['AdaptiveThrottle', new AdaptiveThrottle()],
    ['Bulkhead', new Bulkhead()],
    ['Cache', new Cache({ key, ttl: 1_000 })],
    ['CircuitBreaker', new CircuitBreaker({ failureThreshold: 1 })],
    ['Coalesce', new Coalesce({ key })],
    ['Fallback', new Fallback('instead')],
    ['Hedge', new Hedge()],
    ['RateLimiter', new RateLimiter({ limit: 10 })],
    ['Retry', new Retry({ backoff: () => 0 })],
    ['Timeout', new Timeout(1_000)],
    ['compose()', compose(new Retry({ backoff: () => 0 }), new Timeout(1_000))],
    ['resilient()', resilient()],
  ];

  it.each(policies)(
    'is rejected by %s with an error that says so, and counts for nothing',
    async (_, policy) => {
      const retries = vi.fn();
      if (policy instanceof Retry) policy.on('retry', retries);
      for (const operation of [5, undefined, null, {}, Promise.resolve(5)]) {
        const error = await rejectionOf(policy.execute(operation as never));
        expect(error).toBeInstanceOf(TypeError);
        expect((error as Error).message).toMatch(/^a policy takes a function to call; got /);
      }
      expect(retries).not.toHaveBeenCalled();
      if (policy instanceof CircuitBreaker) expect(policy.state).toBe('closed');
      expect(await policy.execute(() => 'fine')).toBe('fine');
    },
  );

  it('is covered for each policy that there is', () => {
    const exported = Object.entries(holdfast).filter(
      ([name, value]) =>
        typeof value === 'function' &&
        typeof value.prototype?.execute === 'function' &&
        name !== 'ResilientPolicy',
    );
    const names = exported.map(([name]) => name).sort();
    const covered = policies.map(([name]) => name).filter((name) => !name.endsWith('()'));
    expect(covered.sort()).toEqual(names);
  });
});

describe('wrap', () => {
  it('wrap() keeps the `this` of the function, as of a method', async () => {
    class Users {
      readonly #names = new Map([['u1', 'Ada']]);
      readonly find = wrap(new Retry(), this.findAtOnce);
      findAtOnce(id: string): string | undefined {
        return this.#names.get(id);
      }
    }
    const users = new Users();
    expect(await users.find('u1')).toBe('Ada');
    Users.prototype.findAtOnce = wrap(new Retry(), Users.prototype.findAtOnce) as never;
    expect(await users.findAtOnce('u1')).toBe('Ada');
  });

  it.each([
    ['policy', () => wrap({} as never, () => 1)],
    ['policy', () => wrap(undefined as never, () => 1)],
    ['function', () => wrap(new Retry(), 5 as never)],
  ])('wrap() says what is wrong with its %s', (which, make) => {
    expect(make).toThrow(new RegExp(`the ${which} of wrap\\(\\) must be`));
  });

  it('wrap() says that the policy comes first, where the arguments are the other way round', () => {
    const swapped = wrap as (...args: unknown[]) => unknown;
    expect(() => swapped(async () => 1, new Retry())).toThrow(
      new TypeError('wrap() takes the policy first, and then the function: wrap(policy, fn)'),
    );
  });

  it('wrap() makes a function of the same arguments whose every call goes through the policy', async () => {
    let left = 2;
    const add = wrap(new Retry({ backoff: () => 0 }), (a: number, b: number) => {
      if (left-- > 0) throw new Error('flaky');
      return a + b;
    });
    expect(await add(1, 2)).toBe(3);
  });

  it('wrap() turns what the function throws into a rejection', async () => {
    expect(await rejectionOf(wrap(new Timeout(1_000), () => fling('text'))())).toBe('text');
  });
});
