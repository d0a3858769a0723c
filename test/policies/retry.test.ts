import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  BulkheadFullError,
  CircuitOpenError,
  HoldfastError,
  NoInstanceError,
  RetryBudgetExhausted,
  ServiceConnectionError,
  TimeoutError,
} from '../../src/errors.ts';
import { constantBackoff, decorrelatedJitter, exponentialBackoff } from '../../src/policies/backoff.ts';
import { type CallContext, type CallOptions, Context } from '../../src/policies/context.ts';
import type { Outcome } from '../../src/policies/outcome.ts';
import { compose, type Policy } from '../../src/policies/policy.ts';
import { Retry } from '../../src/policies/retry.ts';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import type { RetryOptions } from '../../src/policies/retry-options.ts';
import { areRetriesSpent } from '../../src/policies/spent-retries.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { defer, fakeTime, fling, flush, follow, listenersOn, pass, rejectionOf } from './helpers.ts';

const down = new Error('service down');

beforeEach(fakeTime);
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
});

/** Gives the waits that were announced, and the times of the attempts, when every attempt fails. */
async function waitsOf(options: RetryOptions, error: unknown = down, callOptions?: CallOptions) {
  const retry = new Retry(options);
  const announced: number[] = [];
  retry.on('retry', ({ delay }) => announced.push(delay));
  const startedAt = performance.now();
  const tries: number[] = [];
  const call = follow(
    retry.execute(() => {
      tries.push(performance.now() - startedAt);
      return fling(error);
    }, callOptions),
  );
  while (call.outcome === undefined) {
    await flush();
    vi.advanceTimersToNextTimer();
  }
  expect(call.outcome).toEqual({ ok: false, error });
  return { announced, tries };
}

/** An operation that fails the given number of times, then succeeds. */
function flaky(failures: number, error: unknown = down) {
  let left = failures;
  return vi.fn(async () => {
    if (left-- > 0) throw error;
    return 'fine';
  });
}

describe('how often a call is tried', () => {
  it('a retry makes one attempt of a call that succeeds, and returns the value as it is', async () => {
    const value = {};
    const operation = vi.fn(() => value);
    expect(await new Retry().execute(operation)).toBe(value);
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('a retry makes three attempts by default', async () => {
    expect((await waitsOf({ backoff: constantBackoff(0) })).tries).toHaveLength(3);
  });

  it.each([1, 2, 7])('maxAttempts %i of a retry counts the first attempt', async (maxAttempts) => {
    expect((await waitsOf({ maxAttempts, backoff: constantBackoff(5) })).tries).toHaveLength(maxAttempts);
  });

  it('a retry makes as many attempts as a function of the call says', async () => {
    const retry = new Retry({
      maxAttempts: ({ attributes }) => (attributes.idempotent === true ? 4 : 1),
      backoff: constantBackoff(0),
    });
    for (const [idempotent, times] of [
      [true, 4],
      [false, 1],
    ] as const) {
      const operation = flaky(Infinity);
      expect(await rejectionOf(retry.execute(operation, { attributes: { idempotent } }))).toBe(down);
      expect(operation).toHaveBeenCalledTimes(times);
    }
  });

  it.each([0, Number.NaN, 1.5, '3'])(
    'a maxAttempts function that gives %s is an error that names the option',
    async (given) => {
      const retry = new Retry({ maxAttempts: () => given as number });
      const error = await rejectionOf(retry.execute(flaky(9)));
      expect((error as Error).message).toContain('maxAttempts');
    },
  );

  it('a retry with maxAttempts Infinity continues until the call succeeds', async () => {
    const operation = flaky(1_000);
    const retry = new Retry({ maxAttempts: Infinity, backoff: constantBackoff(0) });
    expect(await retry.execute(operation)).toBe('fine');
    expect(operation).toHaveBeenCalledTimes(1_001);
  });

  it('a retry tells each attempt its number, and the same deadline and attributes', async () => {
    const told: unknown[] = [];
    const options = { deadline: performance.now() + 1_000, attributes: { service: 'users' } };
    await rejectionOf(
      new Retry({ maxAttempts: 3, backoff: constantBackoff(0) }).execute(
        ({ attempt, deadline, attributes }) => {
          told.push([attempt, deadline, attributes]);
          throw down;
        },
        options,
      ),
    );
    expect(told).toEqual([1, 2, 3].map((attempt) => [attempt, options.deadline, options.attributes]));
  });

  it('a retry makes one attempt, synchronous throws included, where shouldRetry returns false', async () => {
    const fatal = new Error('no such user');
    const retry = new Retry({ shouldRetry: (outcome) => !outcome.ok && outcome.error !== fatal });
    const operation = vi.fn(() => fling(fatal));
    expect(await rejectionOf(retry.execute(operation))).toBe(fatal);
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('a retry stops at a later failure for which shouldRetry returns false', async () => {
    const fatal = new Error('no such user');
    const retry = new Retry({
      maxAttempts: 9,
      backoff: constantBackoff(0),
      shouldRetry: (outcome) => !outcome.ok && outcome.error !== fatal,
    });
    const operation = vi.fn(({ attempt }: { attempt: number }) => fling(attempt === 2 ? fatal : down));
    expect(await rejectionOf(retry.execute(operation))).toBe(fatal);
    expect(operation).toHaveBeenCalledTimes(2);
  });

  it.each([new CircuitOpenError('open', 10), new BulkheadFullError('full'), new NoInstanceError('users')])(
    'a retry does not retry a call that Holdfast itself rejected ($name)',
    async (refusal) => {
      const operation = flaky(1, refusal);
      expect(await rejectionOf(new Retry().execute(operation))).toBe(refusal);
      expect(operation).toHaveBeenCalledTimes(1);
    },
  );

  it('a retry never begins when the caller has cancelled before', async () => {
    const operation = vi.fn();
    const reason = new Error('gone');
    expect(await rejectionOf(new Retry().execute(operation, { signal: AbortSignal.abort(reason) }))).toBe(
      reason,
    );
    expect(operation).not.toHaveBeenCalled();
  });
});

describe('how a call that is retried ends', () => {
  it.each([
    new Error('plain'),
    new TypeError('Cannot read properties of undefined'),
    new TypeError('fetch failed'),
    Object.assign(new Error('aborted'), { name: 'AbortError' }),
    'a string',
    undefined,
    null,
    0,
    { status: 500 },
  ])('a call that is retried ends with the last error as it is: %o', async (error) => {
    const operation = vi.fn(() => fling(error));
    expect(await rejectionOf(new Retry({ backoff: constantBackoff(0) }).execute(operation))).toBe(error);
    expect(operation).toHaveBeenCalledTimes(3);
  });

  it('a call that is retried ends with the last error, not the first', async () => {
    const errors = [new Error('first'), new Error('second'), new Error('third')];
    const retry = new Retry({ backoff: constantBackoff(0) });
    expect(await rejectionOf(retry.execute(({ attempt }) => fling(errors[attempt - 1])))).toBe(errors[2]);
  });

  it('a call that is retried ends with the value of the first attempt that succeeds', async () => {
    const operation = flaky(2);
    expect(await new Retry({ backoff: constantBackoff(0) }).execute(operation)).toBe('fine');
    expect(operation).toHaveBeenCalledTimes(3);
  });

  it('a call that is retried ends with the last returned value when values are retried too', async () => {
    const responses = [{ status: 503 }, { status: 503 }, { status: 503 }];
    const retry = new Retry({
      backoff: constantBackoff(0),
      shouldRetry: (outcome) => !outcome.ok || (outcome.value as { status: number }).status === 503,
    });
    expect(await retry.execute(({ attempt }) => responses[attempt - 1])).toBe(responses[2]);
    const recovering = vi.fn(({ attempt }: { attempt: number }) => ({ status: attempt === 1 ? 503 : 200 }));
    expect(await retry.execute(recovering)).toEqual({ status: 200 });
    expect(recovering).toHaveBeenCalledTimes(2);
  });

  it.each([1, 2])(
    'a call ends with the error of a shouldRetry that throws after attempt %i, and is not retried',
    async (broken) => {
      const bug = new Error('a bug in shouldRetry');
      const retry = new Retry({
        maxAttempts: 5,
        backoff: constantBackoff(0),
        shouldRetry: (_outcome, { attempt }) => attempt < broken || fling(bug),
      });
      const operation = flaky(Infinity);
      expect(await rejectionOf(retry.execute(operation))).toBe(bug);
      expect(operation).toHaveBeenCalledTimes(broken);
    },
  );
});

describe('how long a retry waits', () => {
  it.each<[string, RetryOptions['backoff'], number[]]>([
    ['no jitter', exponentialBackoff({ base: 100, max: 500, jitter: 'none' }), [100, 200, 400, 500]],
    ['another factor', exponentialBackoff({ base: 1, factor: 10, jitter: 'none' }), [1, 10, 100, 1_000]],
    ['full jitter', exponentialBackoff({ base: 100, max: 500, random: () => 0.5 }), [50, 100, 200, 250]],
    [
      'equal jitter',
      exponentialBackoff({ base: 100, max: 500, jitter: 'equal', random: () => 0.5 }),
      [75, 150, 300, 375],
    ],
    [
      'decorrelated jitter',
      decorrelatedJitter({ base: 100, max: 1_000, random: () => 0.5 }),
      [200, 350, 575, 912.5],
    ],
    ['a constant', constantBackoff(70), [70, 70, 70, 70]],
    ['any function', (attempt, previous) => attempt * 10 + previous, [10, 30, 60, 100]],
  ])('a retry waits according to its backoff: %s', async (_name, backoff, waits) => {
    const { announced, tries } = await waitsOf({ maxAttempts: 5, backoff });
    expect(announced).toEqual(waits);
    const between = tries.slice(1).map((time, index) => time - tries[index]!);
    waits.forEach((wait, index) => {
      expect(between[index]).toBeGreaterThanOrEqual(Math.floor(wait));
      expect(between[index]).toBeLessThanOrEqual(Math.ceil(wait));
    });
  });

  it('a retry waits from 100 ms doubling with full jitter by default', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    expect((await waitsOf({ maxAttempts: 10 })).announced).toEqual([
      50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000,
    ]);
  });

  it('a backoff is told the outcome, the number of the retry and the wait before', async () => {
    const backoff = vi.fn((attempt: number, _previous: number, _outcome?: Outcome<unknown>) => attempt * 10);
    await waitsOf({ maxAttempts: 3, backoff });
    const outcome = { ok: false, error: down };
    expect(backoff.mock.calls.slice(0, 2)).toEqual([
      [1, 0, outcome],
      [2, 10, outcome],
    ]);
  });

  it.each([Number.NaN, -1, undefined, 'soon'])(
    'a backoff that gives %s is an error that says so',
    async (wait) => {
      const retry = new Retry({ backoff: () => wait as number });
      const error = await rejectionOf(retry.execute(flaky(9)));
      expect(error).toBeInstanceOf(typeof wait === 'number' ? RangeError : TypeError);
      expect((error as Error).message).toContain('backoff');
      expect((error as Error).message).toContain(String(wait));
    },
  );

  it('a backoff longer than a timer can keep is cut, not fired at once', async () => {
    const { announced } = await waitsOf({ maxAttempts: 2, backoff: () => 1e12 });
    expect(announced).toEqual([2 ** 31 - 1]);
  });

  it('a retry does not call the backoff when no retry follows', async () => {
    const backoff = vi.fn(() => 0);
    await waitsOf({ maxAttempts: 1, backoff });
    expect(backoff).not.toHaveBeenCalled();
    await waitsOf({ maxAttempts: 3, backoff });
    expect(backoff).toHaveBeenCalledTimes(2);
  });
});

describe('a Retry-After', () => {
  const tooMany = (header: string) => Object.assign(new Error('429'), { headers: { 'retry-after': header } });

  it('a Retry-After in seconds is obeyed when the backoff is shorter', async () => {
    expect(
      (await waitsOf({ maxAttempts: 2, backoff: constantBackoff(100) }, tooMany('3'))).announced,
    ).toEqual([3_000]);
  });

  it('a Retry-After as an HTTP date is obeyed when the backoff is shorter', async () => {
    vi.setSystemTime(new Date('2026-01-01T00:00:00Z'));
    const error = tooMany('Thu, 01 Jan 2026 00:00:07 GMT');
    expect((await waitsOf({ maxAttempts: 2, backoff: constantBackoff(100) }, error)).announced).toEqual([
      7_000,
    ]);
  });

  it('a Retry-After that is shorter than the backoff does not shorten it', async () => {
    expect(
      (await waitsOf({ maxAttempts: 2, backoff: constantBackoff(5_000) }, tooMany('3'))).announced,
    ).toEqual([5_000]);
  });

  it('a Retry-After of a returned response is obeyed', async () => {
    const response = { status: 503, headers: new Headers({ 'Retry-After': '2' }) };
    const retry = new Retry({ maxAttempts: 2, backoff: constantBackoff(0), shouldRetry: () => true });
    const call = follow(retry.execute(() => response));
    await pass(1_999);
    expect(call.outcome).toBeUndefined();
    await pass(1);
    expect(call.outcome).toEqual({ ok: true, value: response });
  });

  it('a Retry-After past the deadline ends the retrying at once with the last error', async () => {
    const error = tooMany('3');
    const retry = new Retry({ backoff: constantBackoff(0) });
    const givenUp = vi.fn();
    retry.on('give-up', givenUp);
    const operation = flaky(9, error);
    expect(await rejectionOf(retry.execute(operation, { deadline: performance.now() + 2_000 }))).toBe(error);
    expect(operation).toHaveBeenCalledTimes(1);
    expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'deadline', attempts: 1 }));
  });

  it.each([
    ['a minute unless told otherwise', undefined, '60', '61'],
    ['maxRetryAfter', 5_000, '5', '6'],
  ])(
    'a Retry-After longer than %s ends the retrying at once with the last error',
    async (_name, maxRetryAfter, waited, refused) => {
      const options = { maxAttempts: 2, backoff: constantBackoff(0), maxRetryAfter };
      expect((await waitsOf(options, tooMany(waited))).announced).toEqual([Number(waited) * 1_000]);
      const retry = new Retry(options);
      const givenUp = vi.fn();
      retry.on('give-up', givenUp);
      const error = tooMany(refused);
      expect(await rejectionOf(retry.execute(flaky(9, error)))).toBe(error);
      expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'retry-after', attempts: 1 }));
    },
  );

  it('a Retry-After that is malformed counts as none', async () => {
    for (const header of ['soon', '', '-5', '1e9', '12.5']) {
      expect(
        (await waitsOf({ maxAttempts: 2, backoff: constantBackoff(10) }, tooMany(header))).announced,
      ).toEqual([10]);
    }
  });
});

describe('the deadline and maxElapsed', () => {
  it('a wait that would end past the deadline is not begun: the last error comes at once', async () => {
    const retry = new Retry({ maxAttempts: 9, backoff: constantBackoff(400) });
    const givenUp = vi.fn();
    retry.on('give-up', givenUp);
    const operation = flaky(9);
    const call = follow(retry.execute(operation, { deadline: performance.now() + 1_000 }));
    await pass(799);
    expect(call.outcome).toBeUndefined();
    await pass(1);
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(operation).toHaveBeenCalledTimes(3);
    expect(vi.getTimerCount()).toBe(0);
    expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'deadline', attempts: 3 }));
  });

  it('a wait that would end past the deadline of an enclosing Timeout is not begun', async () => {
    const service = compose(
      new Timeout(1_000),
      new Retry({ maxAttempts: 9, backoff: constantBackoff(1_000) }),
    );
    const call = follow(service.execute(flaky(9)));
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    await pass(1_000);
  });

  it('no retry begins after maxElapsed', async () => {
    const retry = new Retry({ maxAttempts: 9, backoff: constantBackoff(400), maxElapsed: 1_000 });
    const givenUp = vi.fn();
    retry.on('give-up', givenUp);
    const operation = flaky(9);
    const call = follow(retry.execute(operation));
    await pass(800);
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(operation).toHaveBeenCalledTimes(3);
    expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'elapsed', attempts: 3 }));
  });
});

describe('a caller that cancels', () => {
  it('a caller that cancels a retried call during a wait is released at once with its reason, and leaves neither listener nor timer', async () => {
    const controller = new AbortController();
    const reason = new Error('user left');
    const operation = flaky(9);
    const retry = new Retry({ backoff: constantBackoff(10_000) });
    const call = follow(retry.execute(operation, { signal: controller.signal }));
    await flush();
    expect(listenersOn(controller.signal)).toBe(1);
    expect(vi.getTimerCount()).toBe(1);
    controller.abort(reason);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: reason });
    expect((call.outcome as { error: unknown }).error).toBe(reason);
    expect(vi.getTimerCount()).toBe(0);
    expect(listenersOn(controller.signal)).toBe(0);
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('a caller that cancels during an attempt gets its outcome, and no further attempt is made', async () => {
    for (const failing of [1, 2]) {
      const controller = new AbortController();
      const retry = new Retry({ backoff: constantBackoff(0), maxAttempts: 5 });
      const givenUp = vi.fn();
      retry.on('give-up', givenUp);
      const operation = vi.fn(({ attempt }: { attempt: number }) => {
        if (attempt === failing) controller.abort();
        throw down;
      });
      expect(await rejectionOf(retry.execute(operation, { signal: controller.signal }))).toBe(down);
      expect(operation).toHaveBeenCalledTimes(failing);
      expect(givenUp).toHaveBeenCalledWith(
        expect.objectContaining({ reason: 'cancelled', attempts: failing }),
      );
    }
  });

  it('a caller that cancels a retried call from a retry listener is heard before the wait begins', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const retry = new Retry({ backoff: constantBackoff(10_000) });
    retry.on('retry', () => controller.abort(reason));
    expect(await rejectionOf(retry.execute(flaky(9), { signal: controller.signal }))).toBe(reason);
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a caller that cancels a retried call leaves no listener behind when the retry succeeds either', async () => {
    const { signal } = new AbortController();
    const call = follow(new Retry({ backoff: constantBackoff(10) }).execute(flaky(2), { signal }));
    await pass(20);
    expect(call.outcome).toEqual({ ok: true, value: 'fine' });
    expect(listenersOn(signal)).toBe(0);
  });
});

describe('a retry budget', () => {
  const spent = () => new RetryBudget({ ratio: 0, initial: 0 });

  it('a retry budget bounds the retries of all the policies that share it', async () => {
    const budget = new RetryBudget({ ratio: 0, minPerSecond: 0.5, initial: 0 });
    const options = { maxAttempts: 4, backoff: constantBackoff(0), budget };
    const one = flaky(Infinity);
    const two = flaky(Infinity);
    await rejectionOf(new Retry(options).execute(one));
    await rejectionOf(new Retry(options).execute(two));
    expect(one).toHaveBeenCalledTimes(4);
    expect(two).toHaveBeenCalledTimes(1 + 2);
  });

  it('a retry budget is earned by first attempts, not by retries', async () => {
    const budget = new RetryBudget({ ratio: 1, initial: 0 });
    const operation = flaky(Infinity);
    await rejectionOf(new Retry({ maxAttempts: 9, backoff: constantBackoff(0), budget }).execute(operation));
    expect(operation).toHaveBeenCalledTimes(2);
  });

  it('a retry budget pays ten tokens for the retry of an attempt that timed out, and one for any other', async () => {
    const budget = new RetryBudget({ ratio: 0, initial: 22 });
    const retry = new Retry({ maxAttempts: 2, backoff: constantBackoff(0), budget });
    const failWith = (error: Error) => rejectionOf(retry.execute(flaky(9, error)));
    await failWith(new TimeoutError('timed out after 10 ms', 10));
    expect(budget.balance).toBe(12);
    await failWith(down);
    expect(budget.balance).toBe(11);
    const stalled = 8;
    await failWith(new TimeoutError('timed out after 10 ms', 10, 'ERR_TIMEOUT', stalled));
    expect(budget.balance).toBe(10);
  });

  it('a retry budget is not spent on a retry that the deadline forbids, nor on the last failure', async () => {
    const budget = new RetryBudget({ ratio: 0, minPerSecond: 1, initial: 0 });
    const retry = new Retry({ maxAttempts: 2, backoff: constantBackoff(100), budget });
    await rejectionOf(retry.execute(flaky(9), { deadline: performance.now() + 50 }));
    expect(budget.balance).toBe(10);
    const call = follow(retry.execute(flaky(9)));
    await flush();
    expect(budget.balance).toBe(9);
    await pass(100);
    expect(call.outcome).toEqual({ ok: false, error: down });
  });

  it('a retry budget that is spent is the cause of a HoldfastError, which is otherwise the same', async () => {
    const error = new ServiceConnectionError('refused', { serviceName: 'users', instanceId: 'u1' });
    const thrown = await rejectionOf(new Retry({ budget: spent() }).execute(flaky(9, error)));
    expect(thrown).toBe(error);
    expect((thrown as Error).cause).toBeInstanceOf(RetryBudgetExhausted);
  });

  it('a retry budget does not replace a cause that is there', async () => {
    const cause = new Error('ECONNREFUSED');
    const error = new ServiceConnectionError('refused', { serviceName: 'users', instanceId: 'u1', cause });
    await rejectionOf(new Retry({ budget: spent() }).execute(flaky(9, error)));
    expect(error.cause).toBe(cause);
  });

  it.each([new Error('theirs'), { status: 500 }, 'a string'])(
    'a retry budget is put on no error of others: %o',
    async (error) => {
      const retry = new Retry({ budget: spent() });
      const givenUp = vi.fn();
      retry.on('give-up', givenUp);
      expect(await rejectionOf(retry.execute(flaky(9, error)))).toBe(error);
      expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'budget', attempts: 1 }));
      if (typeof error === 'object') expect('cause' in error).toBe(false);
    },
  );

  it('a retry budget is not put on an error when attempts ran out instead', async () => {
    const error = new HoldfastError('ERR_TIMEOUT', 'slow');
    await rejectionOf(new Retry({ maxAttempts: 1, budget: new RetryBudget() }).execute(flaky(9, error)));
    expect(error.cause).toBeUndefined();
  });
});

it('a Retry does not retry a call whose record forbids it, whatever its options say', async () => {
  const retry = new Retry({ backoff: constantBackoff(0), shouldRetry: () => true });
  const givenUp = vi.fn();
  retry.on('give-up', givenUp);
  const operation = flaky(9);
  const record = { attributes: {}, retryable: false };
  const context = new Context(1, Infinity, record, undefined, false);
  expect(await rejectionOf(retry.execute(operation, context))).toBe(down);
  expect(operation).toHaveBeenCalledTimes(1);
  expect(givenUp).toHaveBeenCalledWith(expect.objectContaining({ reason: 'outcome', attempts: 1 }));
});

describe('one Retry within another', () => {
  const twice = () => new Retry({ maxAttempts: 2, backoff: constantBackoff(0) });

  async function triesOf(policy: Policy, operation: () => unknown = () => fling(down)): Promise<number> {
    const tried = vi.fn(operation);
    const call = follow(policy.execute(tried));
    while (call.outcome === undefined) {
      await flush();
      vi.advanceTimersToNextTimer();
    }
    return tried.mock.calls.length;
  }

  it('one Retry within another does not multiply the attempts, with any number of layers', async () => {
    expect(await triesOf(compose(twice(), twice(), twice()))).toBe(2);
  });

  it('one Retry within another does not multiply the attempts where the last response was returned and not thrown', async () => {
    const shouldRetry = (outcome: Outcome<unknown>) =>
      outcome.ok && (outcome.value as { status: number }).status === 503;
    const retry = () => new Retry({ maxAttempts: 2, backoff: constantBackoff(0), shouldRetry });
    expect(await triesOf(compose(retry(), retry()), () => ({ status: 503 }))).toBe(2);
  });

  it('an outer Retry does not retry a call that a spent budget has ended', async () => {
    const budget = new RetryBudget({ ratio: 0, initial: 0 });
    expect(await triesOf(compose(twice(), new Retry({ budget })))).toBe(1);
  });

  it('an outer Retry tells why it gave up, and the error is marked', async () => {
    const error = new Error('down');
    const outer = twice();
    const gaveUp = vi.fn();
    outer.on('give-up', gaveUp);
    expect(areRetriesSpent(error)).toBe(false);
    await triesOf(compose(outer, twice()), () => fling(error));
    expect(gaveUp).toHaveBeenCalledWith(expect.objectContaining({ attempts: 1, reason: 'spent' }));
    expect(areRetriesSpent(error)).toBe(true);
  });

  it('an outer Retry retries where the inner one did not: it makes one attempt, or its shouldRetry returned false', async () => {
    expect(await triesOf(compose(twice(), new Retry({ maxAttempts: 1 })))).toBe(2);
    expect(await triesOf(compose(twice(), new Retry({ shouldRetry: () => false })))).toBe(2);
  });

  it('a Retry retries an error that an earlier call threw as well', async () => {
    const error = new Error('the same object each time');
    expect(await triesOf(twice(), () => fling(error))).toBe(2);
    expect(await triesOf(twice(), () => fling(error))).toBe(2);
  });
});

describe('the events of a retry', () => {
  function listen(options: RetryOptions) {
    const retry = new Retry({ backoff: constantBackoff(0), ...options });
    const told: unknown[] = [];
    retry.on('retry', (event) => told.push(['retry', event]));
    retry.on('give-up', (event) => told.push(['give-up', event]));
    retry.on('recover', (event) => told.push(['recover', event]));
    return { retry, told };
  }
  const attributes = { service: 'users' };
  const outcome = { ok: false, error: down };

  it('a retry emits no event when the first attempt succeeds', async () => {
    const { retry, told } = listen({});
    await retry.execute(() => 'fine');
    expect(told).toEqual([]);
  });

  it('a retry emits each retry, then that it recovered', async () => {
    const { retry, told } = listen({});
    await retry.execute(flaky(2), { attributes });
    expect(told).toEqual([
      ['retry', { attempt: 2, delay: 0, outcome, attributes }],
      ['retry', { attempt: 3, delay: 0, outcome, attributes }],
      ['recover', { attempts: 3, attributes }],
    ]);
  });

  it('a retry emits each retry, then that it gave up after its attempts', async () => {
    const { retry, told } = listen({ maxAttempts: 2 });
    await rejectionOf(retry.execute(flaky(9), { attributes }));
    expect(told).toEqual([
      ['retry', { attempt: 2, delay: 0, outcome, attributes }],
      ['give-up', { attempts: 2, reason: 'attempts', outcome, attributes }],
    ]);
  });

  it.each([1, 2])('a retry emits that the outcome of attempt %i is not retried', async (last) => {
    const { retry, told } = listen({ shouldRetry: (_outcome, { attempt }) => attempt < last });
    await rejectionOf(retry.execute(flaky(9), { attributes }));
    expect(told.at(-1)).toEqual(['give-up', { attempts: last, reason: 'outcome', outcome, attributes }]);
  });

  it('a listener of a retry that throws disturbs nothing', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const { retry } = listen({});
    retry.on('retry', () => fling(new Error('in a listener')));
    expect(await retry.execute(flaky(2))).toBe('fine');
    expect(warn).toHaveBeenCalledTimes(2);
  });
});

it('calls that share a Retry do not disturb one another', async () => {
  const retry = new Retry({ maxAttempts: 3, backoff: constantBackoff(10) });
  const operations = Array.from({ length: 50 }, (_, index) => flaky(index % 4));
  const calls = operations.map((operation) => follow(retry.execute(operation)));
  await pass(20);
  calls.forEach((call, index) => {
    expect(call.outcome?.ok).toBe(index % 4 < 3);
  });
  const late = defer();
  const slow = follow(retry.execute(() => late.promise));
  late.resolve('late');
  await flush();
  expect(slow.outcome).toEqual({ ok: true, value: 'late' });
});

describe('the options of a retry', () => {
  it.each<[string, Record<string, unknown>]>([
    ['maxAttempts', { maxAttempts: 0 }],
    ['maxAttempts', { maxAttempts: 1.5 }],
    ['maxAttempts', { maxAttempts: Number.NaN }],
    ['maxAttempts', { maxAttempts: '3' }],
    ['backoff', { backoff: 100 }],
    ['shouldRetry', { shouldRetry: true }],
    ['budget', { budget: {} }],
    ['budget', { budget: 10 }],
    ['maxElapsed', { maxElapsed: -1 }],
    ['maxRetryAfter', { maxRetryAfter: Infinity }],
    ['retries', { retries: 3 }],
  ])('a retry names the wrong option %s (%o)', (option, options) => {
    expect(() => new Retry(options)).toThrow(option);
  });
});

describe('beforeRetry', () => {
  const atOnce = { backoff: constantBackoff(0) };

  it('beforeRetry is awaited before the wait for each retry, with the outcome and the context of its attempt', async () => {
    const order: string[] = [];
    const prepared = [defer(), defer()];
    const beforeRetry = vi.fn((_outcome: Outcome<unknown>, { attempt }: CallContext) => {
      order.push(`before ${attempt + 1}`);
      return prepared[attempt - 1]!.promise;
    });
    const retry = new Retry({ backoff: constantBackoff(100), beforeRetry });
    retry.on('retry', ({ attempt }) => void order.push(`retry ${attempt}`));
    const call = follow(retry.execute(({ attempt }) => (attempt < 3 ? fling(down) : 'fine')));
    await pass(500);
    expect(order).toEqual(['before 2']);
    prepared[0]!.resolve('anything');
    await flush();
    expect(order).toEqual(['before 2', 'retry 2']);
    await pass(99);
    expect(beforeRetry).toHaveBeenCalledTimes(1);
    await pass(1);
    prepared[1]!.resolve(true);
    await pass(100);
    expect(call.outcome).toEqual({ ok: true, value: 'fine' });
    expect(beforeRetry.mock.calls[1]).toEqual([
      { ok: false, error: down },
      expect.objectContaining({ attempt: 2 }),
    ]);
  });

  it('beforeRetry is not called where no retry follows', async () => {
    const beforeRetry = vi.fn();
    const withNone = [
      { maxAttempts: 1 },
      { shouldRetry: () => false },
      { budget: new RetryBudget({ initial: 0 }) },
    ];
    for (const options of withNone)
      await rejectionOf(new Retry({ ...options, beforeRetry }).execute(() => fling(down)));
    await new Retry({ beforeRetry }).execute(() => 'fine');
    expect(beforeRetry).not.toHaveBeenCalled();
  });

  it('beforeRetry ends the retrying with the outcome as it is by false, and tells so', async () => {
    const onDiscard = vi.fn();
    for (const decline of [() => false, async () => false]) {
      const retry = new Retry({ ...atOnce, shouldRetry: () => true, beforeRetry: decline, onDiscard });
      const reasons: string[] = [];
      retry.on('give-up', ({ reason }) => void reasons.push(reason));
      const value = {};
      expect(await retry.execute(() => value)).toBe(value);
      expect(reasons).toEqual(['declined']);
    }
    expect(onDiscard).not.toHaveBeenCalled();
  });

  it('beforeRetry that declines a retry leaves the budget as it is, and one that allows it pays', async () => {
    const budget = new RetryBudget({ initial: 3, ratio: 0 });
    const balances: number[] = [];
    for (const allowed of [false, true]) {
      const retry = new Retry({ ...atOnce, maxAttempts: 2, budget, beforeRetry: async () => allowed });
      await rejectionOf(retry.execute(() => fling(down)));
      balances.push(budget.balance);
    }
    expect(balances).toEqual([3, 2]);
  });

  it('beforeRetry that leaves another call the last token of the budget is followed by no retry', async () => {
    const budget = new RetryBudget({ initial: 1, ratio: 0 });
    const beforeRetry = async () => void budget.withdraw();
    const operation = vi.fn(() => fling(down));
    const retry = new Retry({ ...atOnce, budget, beforeRetry });
    const reasons: string[] = [];
    retry.on('give-up', ({ reason }) => void reasons.push(reason));
    await rejectionOf(retry.execute(operation));
    expect([operation.mock.calls.length, reasons]).toEqual([1, ['budget']]);
  });

  it('beforeRetry ends the call with what it throws, and the value that was to be retried is discarded', async () => {
    const broken = new Error('no token');
    const onDiscard = vi.fn();
    for (const beforeRetry of [() => fling(broken), () => Promise.reject(broken)]) {
      const retry = new Retry({ ...atOnce, shouldRetry: () => true, beforeRetry, onDiscard });
      expect(await rejectionOf(retry.execute(() => 'one'))).toBe(broken);
    }
    expect(onDiscard.mock.calls.map(([value]) => value)).toEqual(['one', 'one']);
  });

  it('beforeRetry is bounded neither by the timeout of each attempt nor by maxElapsed, which ends the retrying after it', async () => {
    const prepared = defer<void>();
    const retry = new Retry({ ...atOnce, maxElapsed: 50, beforeRetry: () => prepared.promise });
    const reasons: unknown[] = [];
    retry.on('give-up', ({ reason }) => reasons.push(reason));
    const call = follow(compose(retry, new Timeout(10)).execute(() => fling(down)));
    await pass(60_000);
    expect(call.outcome).toBeUndefined();
    prepared.resolve();
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(reasons).toEqual(['elapsed']);
  });

  it('beforeRetry is left behind by a caller that cancels and by a timeout, however it ends then', async () => {
    const controller = new AbortController();
    const prepared = defer();
    const operation = vi.fn(() => fling(down));
    const retry = new Retry({ ...atOnce, beforeRetry: () => prepared.promise });
    const reason = new Error('enough');
    const cancelled = follow(retry.execute(operation, { signal: controller.signal }));
    const timed = follow(compose(new Timeout(50), retry).execute(operation));
    await flush();
    controller.abort(reason);
    await pass(50);
    expect(cancelled.outcome).toEqual({ ok: false, error: reason });
    expect(timed.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    prepared.reject(new Error('late'));
    await flush();
    expect(operation).toHaveBeenCalledTimes(2);
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it.each([
    ['the deadline of the call', { deadline: 100 }, {}, 'deadline'],
    [
      'the deadline less the wait',
      { deadline: 100 },
      { backoff: constantBackoff(60), takes: 50 },
      'deadline',
    ],
    ['maxElapsed', {}, { maxElapsed: 40, takes: 50 }, 'elapsed'],
  ])(
    'beforeRetry that goes on past %s ends the call with its own error',
    async (_, callOptions, options, why) => {
      const { deadline } = callOptions as { deadline?: number };
      const { takes = 1_000, ...rest } = options as { takes?: number };
      const beforeRetry = () => new Promise((resolve) => setTimeout(resolve, takes));
      const retry = new Retry({ ...atOnce, ...rest, beforeRetry });
      const reasons: string[] = [];
      retry.on('give-up', ({ reason }) => void reasons.push(reason));
      const call = follow(
        retry.execute(
          () => fling(down),
          deadline === undefined ? {} : { deadline: performance.now() + deadline },
        ),
      );
      await pass(101);
      expect(call.outcome).toEqual({ ok: false, error: down });
      expect(reasons).toEqual([why]);
      await pass(1_000);
    },
  );
});
