/** Pins the promises on which users of cockatiel, opossum and p-retry rely, and can rely here. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { constantBackoff, exponentialBackoff } from '../../src/policies/backoff.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import { Fallback } from '../../src/policies/fallback.ts';
import { compose, type Policy, wrap } from '../../src/policies/policy.ts';
import { RateLimiter } from '../../src/policies/rate-limiter.ts';
import { Retry } from '../../src/policies/retry.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { begin, defer, fakeTime, fling, flush, follow, listenersOn, pass, rejectionOf } from './helpers.ts';

beforeEach(fakeTime);

const down = new Error('down');
const fails = () => Promise.reject(down);
const at = () => constantBackoff(0);

const EVERY_POLICY: readonly [string, () => Policy<unknown>][] = [
  ['Retry', () => new Retry()],
  ['CircuitBreaker', () => new CircuitBreaker()],
  ['Timeout', () => new Timeout(1_000)],
  ['Bulkhead', () => new Bulkhead()],
  ['RateLimiter', () => new RateLimiter({ limit: 100 })],
  ['Fallback', () => new Fallback('instead')],
  ['Coalesce', () => new Coalesce({ key: () => 'a' })],
];

describe.each(EVERY_POLICY)('as in cockatiel, a %s', (_name, make) => {
  it('as in cockatiel, a %s gives what a function returns, whether it is synchronous or not', async () => {
    expect(await make().execute(() => 42)).toBe(42);
    expect(await make().execute(async () => 42)).toBe(42);
  });

  it('as in cockatiel, a %s does not call the function when the signal was aborted before, and rejects with its reason', async () => {
    const operation = vi.fn();
    const signal = AbortSignal.abort(down);
    expect(await rejectionOf(make().execute(operation, { signal }))).toBe(down);
    expect(operation).not.toHaveBeenCalled();
  });

  it('as in cockatiel, a %s leaves no listener on the signal of its caller', async () => {
    const { signal } = new AbortController();
    const policy = make();
    for (let call = 0; call < 20; call++) await policy.execute(({ signal: own }) => own.aborted, { signal });
    expect(listenersOn(signal)).toBe(0);
  });
});

it.each(EVERY_POLICY.filter(([name]) => name !== 'Retry' && name !== 'Fallback'))(
  'as in cockatiel, a %s lets the error of the function through as it is, even if that threw at once',
  async (_name, make) => {
    expect(await rejectionOf(make().execute(() => fling('no Error')))).toBe('no Error');
    expect(await rejectionOf(make().execute(fails))).toBe(down);
  },
);

describe('as in cockatiel, a retry', () => {
  it('as in cockatiel, a retry tells the function the number of the attempt, from 1 on', async () => {
    const attempts: number[] = [];
    const retry = new Retry({ maxAttempts: 3, backoff: at() });
    await rejectionOf(
      retry.execute(({ attempt }) => {
        attempts.push(attempt);
        throw down;
      }),
    );
    expect(attempts).toEqual([1, 2, 3]);
  });

  it('as in cockatiel, a retry waits longer each time with an exponential backoff, and tells of each wait before it', async () => {
    const delays: number[] = [];
    const retry = new Retry({
      maxAttempts: 4,
      backoff: exponentialBackoff({ base: 100, jitter: 'none' }),
    });
    retry.on('retry', ({ delay }) => delays.push(delay));
    const call = follow(retry.execute(fails));
    await pass(700);
    expect(delays).toEqual([100, 200, 400]);
    expect(call.outcome).toEqual({ ok: false, error: down });
  });

  it('as in cockatiel, a retry can take a returned value for a failure', async () => {
    const statuses = [503, 503, 200];
    const retry = new Retry({
      backoff: at(),
      shouldRetry: (outcome) => outcome.ok && outcome.value === 503,
    });
    expect(await retry.execute(() => statuses.shift())).toBe(200);
  });

  it('as in cockatiel, a retry tells when it gives up, and when it has succeeded after all', async () => {
    const told: unknown[] = [];
    const retry = new Retry({ maxAttempts: 2, backoff: at() });
    retry.on('give-up', ({ attempts, reason }) => told.push(['give-up', attempts, reason]));
    retry.on('recover', ({ attempts }) => told.push(['recover', attempts]));
    await rejectionOf(retry.execute(fails));
    await retry.execute(({ attempt }) => (attempt === 1 ? fails() : 'well'));
    expect(told).toEqual([
      ['give-up', 2, 'attempts'],
      ['recover', 2],
    ]);
  });
});

describe('as in cockatiel, the policies of a composition', () => {
  it('as in cockatiel, the policies of a composition act from the first, which is the outermost, to the last', async () => {
    const inner = compose(
      new Retry({ maxAttempts: 3, backoff: at() }),
      new CircuitBreaker({ failureThreshold: 2 }),
    );
    const operation = vi.fn(fails);
    expect(await rejectionOf(inner.execute(operation))).toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
    expect(operation).toHaveBeenCalledTimes(2);
    const outer = compose(
      new CircuitBreaker({ failureThreshold: 2 }),
      new Retry({ maxAttempts: 3, backoff: at() }),
    );
    expect(await rejectionOf(outer.execute(operation))).toBe(down);
    expect(operation).toHaveBeenCalledTimes(5);
  });

  it('as in cockatiel, the policies of a composition hand down one signal, which a timeout aborts', async () => {
    const seen: AbortSignal[] = [];
    const policy = compose(new Timeout(100), new Retry(), new CircuitBreaker());
    const call = follow(
      policy.execute(({ signal }) => {
        seen.push(signal);
        return new Promise(() => {});
      }),
    );
    await pass(100);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    expect(seen.map(({ aborted, reason }) => [aborted, reason.code])).toEqual([[true, 'ERR_TIMEOUT']]);
  });
});

describe('as in cockatiel, a bulkhead', () => {
  it('as in cockatiel, a bulkhead lets calls that wait begin in the order in which they came, and rejects what finds no place', async () => {
    const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 2 });
    const [first, second, third, fourth] = [0, 1, 2, 3].map(() => begin(bulkhead));
    await flush();
    expect(fourth!.call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_BULKHEAD_FULL' } });
    expect([second!.began, third!.began]).toEqual([false, false]);
    first!.operation.resolve(1);
    await flush();
    expect([second!.began, third!.began]).toEqual([true, false]);
    second!.operation.reject(down);
    await flush();
    expect(third!.began).toBe(true);
  });
});

describe('as in opossum, a breaker', () => {
  it('as in opossum, a breaker fails fast while it is open, without a call', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    await rejectionOf(breaker.execute(fails));
    const operation = vi.fn();
    expect(await rejectionOf(breaker.execute(operation))).toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
    expect(operation).not.toHaveBeenCalled();
  });

  it('as in opossum, a breaker lets one call alone through when it is half-open, and opens again if that fails', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 100 });
    await rejectionOf(breaker.execute(fails));
    await pass(100);
    const probe = begin(breaker);
    const others = [begin(breaker), begin(breaker)];
    await flush();
    expect(others.map(({ call }) => call.outcome?.ok)).toEqual([false, false]);
    probe.operation.reject(down);
    await flush();
    expect(breaker.state).toBe('open');
  });

  it('as in opossum, a breaker does not count an error that a filter takes out', async () => {
    const notFound = Object.assign(new Error('not found'), { statusCode: 404 });
    const breaker = new CircuitBreaker({
      failureThreshold: 1,
      isIgnored: (outcome) => !outcome.ok && outcome.error === notFound,
    });
    expect(await rejectionOf(breaker.execute(() => Promise.reject(notFound)))).toBe(notFound);
    expect(breaker.state).toBe('closed');
    await rejectionOf(breaker.execute(fails));
    expect(breaker.state).toBe('open');
  });

  it('as in opossum, a breaker does not open by a ratio before there were calls enough to tell', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, minimumCalls: 4 });
    for (let call = 1; call <= 3; call++) await rejectionOf(breaker.execute(fails));
    expect(breaker.state).toBe('closed');
    await rejectionOf(breaker.execute(fails));
    expect(breaker.state).toBe('open');
  });

  it('as in opossum, a breaker goes on in another process where one left off, as in functions that live for one call', async () => {
    let saved = JSON.stringify(new CircuitBreaker());
    for (let run = 1; run <= 5; run++) {
      const breaker = new CircuitBreaker({ initialState: JSON.parse(saved) });
      await rejectionOf(breaker.execute(fails));
      saved = JSON.stringify(breaker);
    }
    const next = new CircuitBreaker({ initialState: JSON.parse(saved) });
    expect(await rejectionOf(next.execute(() => 'no'))).toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });

  it('as in opossum, a breaker passes the arguments and the `this` of a wrapped function on', async () => {
    const account = {
      balance: 5,
      add: wrap(new CircuitBreaker(), function (this: { balance: number }, one: number, other: number) {
        this.balance += one + other;
        return this.balance;
      }),
    };
    expect(await account.add(1, 2)).toBe(8);
  });

  it('as in opossum, a breaker has a fallback that is told of the error, of an open circuit too', async () => {
    const seen: unknown[] = [];
    const fallback = new Fallback((outcome) => {
      seen.push(!outcome.ok && ((outcome.error as { code?: string }).code ?? outcome.error));
      return 'instead';
    });
    const policy = compose(fallback, new CircuitBreaker({ failureThreshold: 1 }));
    expect(await policy.execute(fails)).toBe('instead');
    expect(await policy.execute(fails)).toBe('instead');
    expect(seen).toEqual([down, 'ERR_CIRCUIT_OPEN']);
  });

  it('as in opossum, a breaker makes one call of those that ask for the same at the same time', async () => {
    const operation = vi.fn(() => defer().promise);
    const coalesce = new Coalesce({ key: ({ attributes }) => attributes.id as string });
    for (const id of ['u1', 'u1', 'u2']) follow(coalesce.execute(operation, { attributes: { id } }));
    await flush();
    expect(operation).toHaveBeenCalledTimes(2);
  });

  it('as in opossum, a breaker counts a timeout inside as a failure, with an error that has a code', async () => {
    const policy = compose(new CircuitBreaker({ failureThreshold: 1 }), new Timeout(50));
    const call = begin(policy);
    await pass(50);
    expect(call.call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    expect(await rejectionOf(policy.execute(() => 1))).toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });
});

describe('as in p-retry, a retry', () => {
  it('as in p-retry, a retry gives the first success, and the last error as it is', async () => {
    const retry = new Retry({ maxAttempts: 3, backoff: at() });
    expect(await retry.execute(({ attempt }) => (attempt === 3 ? 'well' : fails()))).toBe('well');
    const errors = [new Error('first'), new TypeError('second'), new RangeError('third')];
    const [, , third] = errors;
    expect(await rejectionOf(retry.execute(() => fling(errors.shift())))).toBe(third);
  });

  it('as in p-retry, a retry makes one attempt with maxAttempts 1, and continues without a bound with Infinity', async () => {
    const operation = vi.fn(fails);
    await rejectionOf(new Retry({ maxAttempts: 1, backoff: at() }).execute(operation));
    expect(operation).toHaveBeenCalledTimes(1);
    const endless = new Retry({ maxAttempts: Infinity, backoff: at() });
    expect(await endless.execute(({ attempt }) => (attempt === 500 ? attempt : fails()))).toBe(500);
  });

  it('as in p-retry, a retry waits for a shouldRetry that is async, and fails with what that throws', async () => {
    const operation = vi.fn(fails);
    const shouldRetry = vi.fn(async () => operation.mock.calls.length < 3);
    expect(
      await rejectionOf(new Retry({ maxAttempts: 9, backoff: at(), shouldRetry }).execute(operation)),
    ).toBe(down);
    expect(operation).toHaveBeenCalledTimes(3);
    const broken = new Error('broken');
    const throwing = new Retry({ backoff: at(), shouldRetry: () => fling(broken) });
    expect(await rejectionOf(throwing.execute(fails))).toBe(broken);
  });

  it('as in p-retry, a retry does not repeat a success because an async shouldRetry gave a promise', async () => {
    const operation = vi.fn(() => 'created');
    const retry = new Retry({ maxAttempts: 5, backoff: at(), shouldRetry: async (outcome) => !outcome.ok });
    expect(await retry.execute(operation)).toBe('created');
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('as in p-retry, a retry retries a TypeError of the function as any other error', async () => {
    const operation = vi.fn(() => Promise.reject(new TypeError('fetch failed')));
    await rejectionOf(new Retry({ maxAttempts: 2, backoff: at() }).execute(operation));
    expect(operation).toHaveBeenCalledTimes(2);
  });

  it('as in p-retry, a retry begins no attempt once its time is over', async () => {
    const operation = vi.fn(fails);
    const retry = new Retry({ maxAttempts: Infinity, maxElapsed: 250, backoff: constantBackoff(100) });
    const call = follow(retry.execute(operation));
    await pass(1_000);
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(operation).toHaveBeenCalledTimes(3);
  });

  it.each([
    ['waits for the next attempt', {}],
    ['waits for what shouldRetry decides', { shouldRetry: () => new Promise<boolean>(() => {}) }],
    [
      'waits for what shouldRetry decides of a retry',
      { backoff: at(), shouldRetry: vi.fn(() => new Promise<boolean>(() => {})).mockResolvedValueOnce(true) },
    ],
  ])(
    'as in p-retry, a retry that is aborted while it %s rejects at once with the reason of the signal',
    async (_, options) => {
      const caller = new AbortController();
      const { signal } = caller;
      const call = follow(
        new Retry({ backoff: constantBackoff(1_000), ...options }).execute(fails, { signal }),
      );
      await flush();
      await pass(1);
      expect(call.outcome).toBeUndefined();
      caller.abort(new Error('the user left'));
      await flush();
      expect(call.outcome).toMatchObject({ ok: false, error: { message: 'the user left' } });
      expect(listenersOn(signal)).toBe(0);
    },
  );

  it('as in p-retry, a retry ignores what an async shouldRetry decides after its caller has left', async () => {
    const caller = new AbortController();
    const decision = defer<boolean>();
    const operation = vi.fn(fails);
    const retry = new Retry({ backoff: at(), shouldRetry: () => decision.promise });
    const call = follow(retry.execute(operation, { signal: caller.signal }));
    await flush();
    caller.abort(down);
    decision.resolve(true);
    await flush();
    await pass(1);
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('as in p-retry, a retry makes a function that can be called any number of times', async () => {
    let calls = 0;
    const unsteady = wrap(new Retry({ backoff: at() }), async (value: string) => {
      if (++calls % 2 === 1) throw down;
      return value;
    });
    expect([await unsteady('a'), await unsteady('b')]).toEqual(['a', 'b']);
  });
});
