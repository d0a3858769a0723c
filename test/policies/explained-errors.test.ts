import { beforeEach, describe, expect, it } from 'vitest';
import {
  AdaptiveConcurrency,
  AdaptiveThrottle,
  Bulkhead,
  Cache,
  CircuitBreaker,
  CircuitOpenError,
  Coalesce,
  compose,
  Fallback,
  Hedge,
  type Policy,
  RateLimiter,
  Retry,
  RetryBudget,
  Timeout,
} from '../../src/index.ts';
import { fakeTime, fling, pass, rejectionOf as rejectionNow } from './helpers.ts';

beforeEach(fakeTime);

/** Gives the rejection of a call, however long that takes. */
async function rejectionOf(call: Promise<unknown>): Promise<unknown> {
  const rejection = rejectionNow(call);
  rejection.catch(() => {});
  await pass(1_000);
  return rejection;
}

const hang = () => new Promise<never>(() => {});
const boom = new Error('boom');
const name = 'payments';

const makers: Record<string, (options: { name?: string }) => { readonly name: string | undefined }> = {
  AdaptiveConcurrency: (options) => new AdaptiveConcurrency(options),
  AdaptiveThrottle: (options) => new AdaptiveThrottle(options),
  Bulkhead: (options) => new Bulkhead(options),
  Cache: (options) => new Cache({ ...options, key: () => 'key', ttl: 1 }),
  CircuitBreaker: (options) => new CircuitBreaker(options),
  Coalesce: (options) => new Coalesce({ ...options, key: () => 'key' }),
  Fallback: (options) => new Fallback(0, options),
  Hedge: (options) => new Hedge(options),
  RateLimiter: (options) => new RateLimiter({ ...options, limit: 1 }),
  Retry: (options) => new Retry(options),
  RetryBudget: (options) => new RetryBudget(options),
  Timeout: (options) => new Timeout(1_000, options),
};

describe.each(Object.entries(makers))('the name of a %s', (_kind, make) => {
  it('is told by the policy, has none by default, and must be a text that is not empty', () => {
    expect(make({ name }).name).toBe(name);
    expect(make({}).name).toBeUndefined();
    expect(() => make({ name: '' })).toThrow(/option 'name'/);
  });
});

const call = (policy: Policy) => rejectionOf(policy.execute(hang));

/** Gives the rejections of policies with the name, and the cause that a budget with it gives. */
async function rejectionsWith(name: string): Promise<unknown[]> {
  const bulkhead = new Bulkhead({ name, maxConcurrent: 1 });
  const limit = new AdaptiveConcurrency({ name, initialLimit: 1 });
  const limiter = new RateLimiter({ name, limit: 0.001 });
  for (const policy of [bulkhead, limit, limiter]) void policy.execute(hang);
  const throttle = new AdaptiveThrottle({ name, random: () => 0, window: 60_000 });
  await rejectionOf(throttle.execute(() => fling(boom)));
  const breaker = new CircuitBreaker({ name });
  breaker.isolate();
  const policies = [bulkhead, limit, limiter, throttle, new Timeout(1, { name }), breaker];
  const retry = new Retry({ budget: new RetryBudget({ name, initial: 0, ratio: 0 }) });
  const error = await rejectionOf(retry.execute(() => new Timeout(1).execute(hang)));
  return [...(await Promise.all(policies.map(call))), (error as Error).cause];
}

it('the rejections of a policy with a name, and of a budget, say it', async () => {
  expect((await rejectionsWith('payments')).map((error) => (error as Error).message)).toEqual([
    "bulkhead 'payments' full: 1 calls under way, 0 waiting",
    expect.stringContaining("concurrency limit 'payments' reached"),
    expect.stringContaining("rate limited by 'payments': "),
    expect.stringContaining("throttled by 'payments': "),
    "timed out after 1 ms (the timeout 'payments')",
    "the circuit of 'payments' is isolated: the call was not made",
    expect.stringContaining("the retry budget 'payments' is spent"),
  ]);
});

it('a rejection shows the name of its policy on one line, and no more than 200 characters of it', async () => {
  for (const error of await rejectionsWith(`a\n\u001b[31m${'b'.repeat(1_000)}`)) {
    expect((error as Error).message).toMatch(/^[^\p{C}]*'a\\n\\u\{1b\}\[31mb{193}…'[^\p{C}]*$/u);
  }
});

describe('the cause of a CircuitOpenError', () => {
  const opened = async (error: unknown, breaker = new CircuitBreaker({ failureThreshold: 1 })) => {
    await rejectionOf(breaker.execute(() => fling(error)));
    return breaker;
  };

  it('is the failure that opened the circuit, and the latest one after a probe that failed', async () => {
    const breaker = await opened(boom, new CircuitBreaker({ failureThreshold: 1, resetTimeout: 0 }));
    const latest = new Error('latest');
    await rejectionOf(breaker.execute(() => fling(latest)));
    const probe = breaker.execute(hang);
    expect(breaker.state).toBe('half-open');
    expect(await rejectionOf(breaker.execute(hang))).toMatchObject({ cause: latest });
    void probe;
  });

  it('is what trip() was given; and there is none where nobody knows a failure', async () => {
    const breaker = new CircuitBreaker();
    breaker.trip(boom);
    expect(await call(breaker)).toMatchObject({ cause: boom });
    breaker.isolate();
    expect(await call(breaker)).not.toHaveProperty('cause');
    const tripped = new CircuitBreaker();
    tripped.trip();
    expect(await call(tripped)).not.toHaveProperty('cause');
    expect(await call(new CircuitBreaker({ initialState: 'open' }))).not.toHaveProperty('cause');
    const byValue = new CircuitBreaker({ failureThreshold: 1, isFailure: () => true });
    await byValue.execute(() => 503);
    expect(await call(byValue)).not.toHaveProperty('cause');
  });

  it('is forgotten when the circuit closes', async () => {
    const breaker = await opened(boom);
    breaker.reset();
    breaker.trip();
    expect(await call(breaker)).not.toHaveProperty('cause');
  });

  it('never grows into a chain of open circuits, however often two breakers open because of each other', async () => {
    const options = { failureThreshold: 1, resetTimeout: 0, isIgnored: () => false };
    const breakers = [new CircuitBreaker(options), new CircuitBreaker(options)];
    let error: unknown = boom;
    for (let turn = 0; turn < 20; turn++) {
      const breaker = breakers[turn % 2]!;
      const failure = turn === 0 ? boom : new Error('the other one is open', { cause: error });
      await rejectionOf(breaker.execute(() => fling(failure)));
      const probe = breaker.execute(hang);
      error = await rejectionOf(breaker.execute(hang));
      breaker.trip(failure);
      void probe;
    }
    expect(error).toBeInstanceOf(CircuitOpenError);
    expect((error as Error).cause).toBe(boom);
  });

  it('is found though causes lead round in a circle', async () => {
    const circle = new Error('circle');
    circle.cause = new Error('back', { cause: circle });
    expect(await call(await opened(circle))).toMatchObject({ cause: { message: 'circle' } });
  });
});

describe('the failures of earlier attempts', () => {
  const retry = () => new Retry({ backoff: () => 0, maxAttempts: 20 });

  it('stand in the error of a call whose retry was rejected, the first one first, ten at most', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 12 });
    let calls = 0;
    const error = await rejectionOf(
      compose(retry(), breaker).execute(() => fling(new Error(String(++calls)))),
    );
    expect(error).toBeInstanceOf(CircuitOpenError);
    const { errors } = error as CircuitOpenError;
    expect(errors!.map((earlier) => (earlier as Error).message)).toEqual(
      Array.from({ length: 10 }, (_, index) => String(index + 1)),
    );
  });

  it('are kept where an open circuit is met at once, or by a call that fails by itself, by nobody', async () => {
    const breaker = new CircuitBreaker();
    breaker.trip();
    expect(await rejectionOf(compose(retry(), breaker).execute(hang))).not.toHaveProperty('errors');
    const own = await rejectionOf(new Retry({ backoff: () => 0 }).execute(() => fling(boom)));
    expect(own).toBe(boom);
    expect(own).not.toHaveProperty('errors');
  });
});

describe('the stack of a rejection names its caller', () => {
  const stackOf = async (policy: Policy, operation: () => unknown = hang) => {
    async function nameOfTheCaller() {
      return await policy.execute(operation);
    }
    return ((await rejectionOf(nameOfTheCaller())) as Error).stack;
  };
  const open = (failureThreshold = 1) => new CircuitBreaker({ failureThreshold });
  const isolated = () => {
    const breaker = new CircuitBreaker();
    breaker.isolate();
    return breaker;
  };
  const retry = () => new Retry({ backoff: () => 0 });

  it.each<[string, Policy, (() => unknown)?]>([
    ['a Timeout', new Timeout(1)],
    ['a Timeout that waits for its operation', new Timeout(1, { strict: false }), undefined],
    ['a breaker', isolated()],
    ['a breaker deep inside', compose(new Timeout(100), retry(), new Bulkhead(), isolated())],
    ['a breaker that a retry meets', compose(retry(), open()), () => fling(boom)],
    [
      'a breaker that a retry meets within a Timeout',
      compose(new Timeout(500), retry(), open()),
      () => fling(boom),
    ],
    ['a Timeout of each attempt', compose(new Timeout(500), retry(), new Timeout(1))],
    [
      'a wait in a queue',
      compose(new Bulkhead({ maxConcurrent: 1, maxQueue: 1, queueTimeout: 1 }), new Timeout(50)),
    ],
  ])('of %s', async (title, policy, operation) => {
    if (title === 'a wait in a queue') void policy.execute(hang).catch(() => {});
    const obeys = title.includes('waits for its operation');
    const stack = obeys
      ? await stackOf({
          execute: (_, options) =>
            policy.execute(
              ({ signal }) =>
                new Promise<never>((_resolve, reject) =>
                  signal.addEventListener('abort', () => reject(signal.reason)),
                ),
              options,
            ),
        })
      : await stackOf(policy, operation);
    expect(stack).toContain('nameOfTheCaller');
  });

  it('of a deadline that the call came with', async () => {
    const timeout = new Timeout(1_000);
    async function nameOfTheCaller() {
      return await timeout.execute(hang, { deadline: performance.now() + 2 });
    }
    expect(((await rejectionOf(nameOfTheCaller())) as Error).stack).toContain('nameOfTheCaller');
  });

  it('and it changes neither the stack of an error of the user, nor the limit of stacks', async () => {
    const before = Error.stackTraceLimit;
    const { stack } = boom;
    await rejectionOf(compose(new Timeout(500), retry(), open(9)).execute(() => fling(boom)));
    await stackOf(isolated());
    expect(boom.stack).toBe(stack);
    expect(Error.stackTraceLimit).toBe(before);
  });

  it('but stacks that are turned off stay off', async () => {
    const before = Error.stackTraceLimit;
    Error.stackTraceLimit = 0;
    try {
      expect(await stackOf(isolated())).not.toContain('\n');
    } finally {
      Error.stackTraceLimit = before;
    }
  });
});
