import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import { BulkheadFullError, ThrottledError, TimeoutError } from '../../src/errors.ts';
import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { excludeFromBreaker } from '../../src/policies/outcome.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  collectWarnings,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  pass,
  rejectionOf,
  stall,
} from './helpers.ts';

const overloaded = new Error('overloaded');

beforeEach(fakeTime);

/** Rejects nothing: at 1 a throttle lets all calls through. */
const letThrough = () => 1;

async function accept(throttle: AdaptiveThrottle, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await throttle.execute(() => 'fine');
}

async function refuse(throttle: AdaptiveThrottle, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await throttle.execute(() => Promise.reject(overloaded)).catch(() => {});
}

describe('a throttle in front of a backend that accepts', () => {
  it('a throttle in front of a backend that accepts passes on the value and the error as they are', async () => {
    const throttle = new AdaptiveThrottle({ random: letThrough });
    const value = {};
    expect(await throttle.execute(() => value)).toBe(value);
    expect(await throttle.execute(async () => value)).toBe(value);
    expect(await rejectionOf(throttle.execute(() => Promise.reject(overloaded)))).toBe(overloaded);
    expect(await rejectionOf(throttle.execute(() => fling(overloaded)))).toBe(overloaded);
  });

  it('a throttle in front of a backend that accepts rejects no call and reads no random number', async () => {
    const random = vi.fn(() => 0);
    const throttle = new AdaptiveThrottle({ random });
    await accept(throttle, 1_000);
    expect(throttle.rejectionProbability).toBe(0);
    expect(random).not.toHaveBeenCalled();
  });

  it('a throttle rejects no call as long as the backend accepts one of k', async () => {
    const throttle = new AdaptiveThrottle({ random: () => 0 });
    await accept(throttle, 50);
    await refuse(throttle, 50);
    expect(throttle.rejectionProbability).toBe(0);
    await refuse(throttle, 1);
    expect(throttle.rejectionProbability).toBe(1 / 102);
    await expect(throttle.execute(() => 'never')).rejects.toBeInstanceOf(ThrottledError);
  });

  it('a throttle in front of a backend that accepts uses no timer', async () => {
    const throttle = new AdaptiveThrottle();
    await accept(throttle);
    await refuse(throttle);
    expect(vi.getTimerCount()).toBe(0);
  });
});

it('a throttle rejects with probability max(0, (requests − k · accepts) / (requests + 1)), its own rejections included', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(undefined, 1, 1.1, 1.5, 2, 3),
      fc.array(
        fc.record({ dice: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), ok: fc.boolean() }),
        { maxLength: 80, size: 'max' },
      ),
      async (k, calls) => {
        let dice = 0;
        const throttle = new AdaptiveThrottle({ k, random: () => dice });
        let [requests, accepts] = [0, 0];
        for (const call of calls) {
          const probability = Math.max(0, (requests - (k ?? 2) * accepts) / (requests + 1));
          expect(throttle.rejectionProbability).toBeCloseTo(probability, 12);
          dice = call.dice;
          let made = false;
          const outcome = await throttle
            .execute(() => {
              made = true;
              return call.ok ? 'fine' : Promise.reject(overloaded);
            })
            .catch((error: unknown) => error);
          expect(made).toBe(!(dice < probability));
          if (!made) expect(outcome).toBeInstanceOf(ThrottledError);
          requests++;
          if (made && call.ok) accepts++;
        }
      },
    ),
    { numRuns: 200 },
  );
});

describe('a call that is rejected', () => {
  it('a call that a throttle rejects is not made, and emitted', async () => {
    const throttle = new AdaptiveThrottle({ random: () => 0 });
    const told: ThrottledError[] = [];
    throttle.on('reject', ({ error }) => told.push(error));
    await refuse(throttle);
    const operation = vi.fn();
    const error = await rejectionOf(throttle.execute(operation));
    expect(error).toBeInstanceOf(ThrottledError);
    expect(error).toMatchObject({ code: 'ERR_THROTTLED' });
    expect(operation).not.toHaveBeenCalled();
    expect(told).toEqual([error]);
  });

  it('a call is rejected even if a listener throws, which becomes a warning', async () => {
    const collected = collectWarnings('HoldfastListenerWarning');
    const throttle = new AdaptiveThrottle({ random: () => 0 });
    throttle.on('reject', () => fling(new Error('broken listener')));
    await refuse(throttle);
    expect(await rejectionOf(throttle.execute(() => 'never'))).toBeInstanceOf(ThrottledError);
    await collected.stop();
    expect(collected.warnings).toHaveLength(1);
  });

  it('a throttle never rejects with certainty: a backend that accepts nothing still gets a call now and then', async () => {
    const throttle = new AdaptiveThrottle({ random: letThrough });
    await refuse(throttle, 999);
    expect(throttle.rejectionProbability).toBe(0.999);
    const halfway = new AdaptiveThrottle({ random: () => 1 / 2 });
    await refuse(halfway);
    expect(await halfway.execute(() => 'fine')).toBe('fine');
  });
});

describe('what counts', () => {
  const counting = () => new AdaptiveThrottle({ k: 1, random: letThrough });

  it('a throttle does not count a cancelled call, before, during or after its operation obeys', async () => {
    const throttle = counting();
    await refuse(throttle);
    const before = throttle.rejectionProbability;
    const gone = { signal: AbortSignal.abort(new Error('gone')) };
    const operation = vi.fn();
    await rejectionOf(throttle.execute(operation, gone));
    expect(operation).not.toHaveBeenCalled();
    for (const end of ['resolve', 'reject'] as const) {
      const controller = new AbortController();
      const work = defer();
      const call = follow(throttle.execute(() => work.promise, { signal: controller.signal }));
      controller.abort(new Error('user left'));
      work[end](overloaded);
      await flush();
      expect(call.outcome).toBeDefined();
    }
    expect(throttle.rejectionProbability).toBe(before);
  });

  it('a throttle does not count a call that a policy inside rejected', async () => {
    const throttle = counting();
    await refuse(throttle);
    const bulkhead = new Bulkhead({ maxConcurrent: 1 });
    void bulkhead.execute(() => new Promise(() => {}));
    const service = compose(throttle, bulkhead);
    expect(await rejectionOf(service.execute(() => 'never'))).toBeInstanceOf(BulkheadFullError);
    expect(throttle.rejectionProbability).toBe(1 / 2);
  });

  it('a throttle does not count a failure that says nothing about the backend as a whole', async () => {
    const throttle = counting();
    const error = new TimeoutError('one dead instance', 1);
    excludeFromBreaker(error);
    await throttle.execute(() => Promise.reject(error)).catch(() => {});
    expect(throttle.rejectionProbability).toBe(0);
  });

  it('a throttle does not count a call that its deadline cut short', async () => {
    const throttle = counting();
    const call = follow(
      compose(new Timeout(1_000), throttle, new Timeout(500)).execute(
        ({ signal }) =>
          new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        { deadline: performance.now() + 100 },
      ),
    );
    await pass(100);
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_DEADLINE_EXCEEDED' } });
    expect(throttle.rejectionProbability).toBe(0);
  });

  it('a throttle counts a timeout as not accepted, within and around, even if a success comes late', async () => {
    const throttle = counting();
    follow(compose(throttle, new Timeout(50)).execute(() => new Promise(() => {})));
    const late = defer();
    follow(compose(new Timeout(50), throttle).execute(() => late.promise));
    await pass(50);
    expect(throttle.rejectionProbability).toBe(1 / 2);
    late.resolve('too late');
    await flush();
    expect(throttle.rejectionProbability).toBe(2 / 3);
  });

  it('a throttle does not count a timeout, within or around, if this process was blocked meanwhile', async () => {
    const throttle = counting();
    const within = follow(compose(throttle, new Timeout(50)).execute(() => new Promise(() => {})));
    const late = defer();
    const around = follow(compose(new Timeout(50), throttle).execute(() => late.promise));
    await stall(300);
    late.resolve('too late');
    await flush();
    for (const { outcome } of [within, around]) expect(outcome).toMatchObject({ error: { stalled: 250 } });
    expect(throttle.rejectionProbability).toBe(0);
  });

  it('isAccepted of a throttle can accept an error and not accept a value', async () => {
    const notFound = new Error('no such user');
    const throttle = new AdaptiveThrottle({
      k: 1,
      random: letThrough,
      isAccepted: (outcome) => (outcome.ok ? outcome.value !== 503 : outcome.error === notFound),
    });
    for (let i = 0; i < 5; i++) await throttle.execute(() => Promise.reject(notFound)).catch(() => {});
    await accept(throttle);
    expect(throttle.rejectionProbability).toBe(0);
    expect(await throttle.execute(() => 503)).toBe(503);
    expect(throttle.rejectionProbability).toBe(1 / 8);
  });

  it('isAccepted of a throttle gets the context of the call', async () => {
    const isAccepted = vi.fn(() => true);
    let given: unknown;
    await new AdaptiveThrottle({ isAccepted }).execute((context) => {
      given = context;
    });
    expect(isAccepted).toHaveBeenCalledWith({ ok: true, value: undefined }, given);
  });

  it('a caller gets the error that isAccepted of a throttle throws, and the call does not count', async () => {
    const broken = new Error('broken predicate');
    const throttle = new AdaptiveThrottle({ isAccepted: () => fling(broken) });
    expect(await rejectionOf(throttle.execute(() => 'fine'))).toBe(broken);
    expect(await rejectionOf(throttle.execute(() => Promise.reject(overloaded)))).toBe(broken);
    expect(throttle.rejectionProbability).toBe(0);
  });
});

describe('calls under way', () => {
  it('calls under way count for a throttle when they end: many that begin at once after a silence are all let through', async () => {
    const throttle = new AdaptiveThrottle({ random: () => 0 });
    const work = Array.from({ length: 100 }, () => defer());
    const calls = work.map(({ promise }) => follow(throttle.execute(() => promise)));
    for (const { resolve } of work) resolve('fine');
    await flush();
    expect(calls.every(({ outcome }) => outcome?.ok)).toBe(true);
    expect(throttle.rejectionProbability).toBe(0);
  });
});

it('a throttle whose random function throws rejects the call with its error, and does not make it', async () => {
  const broken = new Error('broken dice');
  const throttle = new AdaptiveThrottle({ random: () => fling(broken) });
  await refuse(throttle, 2);
  const operation = vi.fn();
  expect(await rejectionOf(throttle.execute(operation))).toBe(broken);
  expect(operation).not.toHaveBeenCalled();
});

describe('the window', () => {
  it('a throttle remembers two seconds by default, with or without calls meanwhile', async () => {
    const throttle = new AdaptiveThrottle({ random: letThrough });
    await refuse(throttle, 9);
    await pass(1_700);
    expect(throttle.rejectionProbability).toBe(0.9);
    await pass(300);
    expect(throttle.rejectionProbability).toBe(0);
  });

  it('a throttle rejects no call after a silence longer than its window', async () => {
    const throttle = new AdaptiveThrottle({ window: 1_000, random: () => 0 });
    await refuse(throttle, 10);
    await pass(86_400_000);
    expect(await throttle.execute(() => 'fine')).toBe('fine');
  });
});

describe('under constant overload', () => {
  /**
   * Calls come evenly at `rate` a second for `seconds`; the backend accepts at most `capacity` a
   * second.
   */
  async function offer(throttle: AdaptiveThrottle, rate: number, capacity: number, seconds: number) {
    const totals = { sent: 0, accepted: 0 };
    let credit = 1;
    for (let i = 0; i < rate * seconds; i++) {
      vi.advanceTimersByTime(1_000 / rate);
      credit = Math.min(capacity, credit + capacity / rate);
      await throttle
        .execute(() => {
          totals.sent++;
          if (credit < 1) throw overloaded;
          credit--;
          totals.accepted++;
        })
        .catch(() => {});
    }
    return totals;
  }

  it.each([
    { k: 2, rate: 20 },
    { k: 2, rate: 50 },
    { k: 2, rate: 100 },
    { k: 1.5, rate: 50 },
  ])(
    'of $rate calls a second to a backend that can take 10, a throttle sends $k × 10',
    async ({ k, rate }) => {
      const throttle = new AdaptiveThrottle({ k, window: 20_000, random: seeded(1) });
      await offer(throttle, rate, 10, 60);
      const { sent, accepted } = await offer(throttle, rate, 10, 60);
      expect(accepted / 60).toBeGreaterThan(9.5);
      expect(sent / accepted).toBeGreaterThan(0.9 * k);
      expect(sent / accepted).toBeLessThan(1.1 * k);
    },
  );

  it('a throttle sends all calls again soon after the backend has recovered', async () => {
    const throttle = new AdaptiveThrottle({ window: 20_000, random: seeded(2) });
    await offer(throttle, 50, 10, 60);
    expect(throttle.rejectionProbability).toBeGreaterThan(0.5);
    await offer(throttle, 50, 1_000, 60);
    expect(throttle.rejectionProbability).toBe(0);
    expect(await offer(throttle, 50, 1_000, 10)).toEqual({ sent: 500, accepted: 500 });
  });
});

describe('the options of an adaptive throttle', () => {
  it.each<[string, Record<string, unknown>]>([
    ['k', { k: 0.9 }],
    ['k', { k: Number.NaN }],
    ['k', { k: Infinity }],
    ['window', { window: 0 }],
    ['window', { window: Infinity }],
    ['isAccepted', { isAccepted: true }],
    ['random', { random: 0.5 }],
    ['K', { K: 2 }],
  ])('an adaptive throttle names the wrong option %s (%o)', (option, options) => {
    expect(() => new AdaptiveThrottle(options)).toThrow(option);
  });
});
