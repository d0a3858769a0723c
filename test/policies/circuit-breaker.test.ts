import { inspect } from 'node:util';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { BulkheadFullError, CircuitOpenError } from '../../src/errors.ts';
import { constantBackoff, exponentialBackoff } from '../../src/policies/backoff.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type {
  CircuitBreakerOptions,
  CircuitBreakerSnapshot,
} from '../../src/policies/circuit-breaker-options.ts';
import { compose, type Policy } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  collectWarnings,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  listenersOn,
  pass,
  rejectionOf,
  stall,
} from './helpers.ts';

const down = new Error('service down');

beforeEach(fakeTime);
async function fail(breaker: CircuitBreaker, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await breaker.execute(() => Promise.reject(down)).catch(() => {});
}

async function succeed(breaker: CircuitBreaker, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await breaker.execute(() => 'fine');
}

/** A call under way that the test ends itself. */
function begin(breaker: Policy, options?: { signal: AbortSignal }) {
  const operation = defer();
  let began = false;
  const call = follow(
    breaker.execute(() => {
      began = true;
      return operation.promise;
    }, options),
  );
  return {
    call,
    get began() {
      return began;
    },
    async succeed() {
      operation.resolve('fine');
      await flush();
    },
    async fail() {
      operation.reject(down);
      await flush();
    },
  };
}

/** Open, and its wait is over: the next call is a probe. */
async function readyToProbe(options: CircuitBreakerOptions = {}): Promise<CircuitBreaker> {
  const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000, ...options });
  await fail(breaker);
  await pass(1_000);
  return breaker;
}

describe('a closed breaker', () => {
  it('a closed breaker passes on the value and the error as they are', async () => {
    const breaker = new CircuitBreaker();
    const value = {};
    expect(await breaker.execute(() => value)).toBe(value);
    expect(await breaker.execute(async () => value)).toBe(value);
    expect(await rejectionOf(breaker.execute(() => Promise.reject(down)))).toBe(down);
    expect(
      await rejectionOf(
        breaker.execute(() => {
          throw down;
        }),
      ),
    ).toBe(down);
  });

  it('a closed breaker opens after 5 failures in a row by default, and not before', async () => {
    const breaker = new CircuitBreaker();
    await fail(breaker, 4);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a closed breaker counts failures in a row: a success begins the count anew', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 3 });
    await fail(breaker, 2);
    await succeed(breaker);
    await fail(breaker, 2);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a closed breaker never opens on failures in a row when the threshold is Infinity', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: Infinity });
    await fail(breaker, 1_000);
    expect(breaker.state).toBe('closed');
  });

  it('a closed breaker counts a returned value as a failure when isFailure says so', async () => {
    const breaker = new CircuitBreaker({
      failureThreshold: 1,
      isFailure: (outcome) => outcome.ok && outcome.value === 503,
    });
    await fail(breaker, 5);
    expect(breaker.state).toBe('closed');
    expect(await breaker.execute(() => 503)).toBe(503);
    expect(breaker.state).toBe('open');
  });

  it('a closed breaker does not count what isIgnored says, neither for nor against', async () => {
    const notFound = new Error('no such user');
    const breaker = new CircuitBreaker({
      failureThreshold: 2,
      isIgnored: (outcome) => !outcome.ok && outcome.error === notFound,
    });
    await fail(breaker);
    await breaker.execute(() => Promise.reject(notFound)).catch(() => {});
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a closed breaker does not count calls that a full bulkhead inside rejected, neither for nor against', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    const bulkhead = new Bulkhead({ maxConcurrent: 1 });
    const service = compose(breaker, bulkhead);
    const slow = defer();
    await fail(breaker);
    const first = follow(service.execute(() => slow.promise));
    for (let i = 0; i < 10; i++) {
      expect(await rejectionOf(service.execute(() => 'never'))).toBeInstanceOf(BulkheadFullError);
    }
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
    slow.resolve('late');
    await flush();
    expect(first.outcome).toEqual({ ok: true, value: 'late' });
  });
});

describe('a breaker that goes by the share of failures', () => {
  it('a breaker that goes by the share of failures opens when the share is reached among the last n calls', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, window: { calls: 10 }, minimumCalls: 4 });
    await succeed(breaker, 2);
    await fail(breaker, 1);
    expect(breaker.state).toBe('closed');
    await fail(breaker, 1);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of failures waits for minimumCalls before it judges', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.1, window: { calls: 100 }, minimumCalls: 8 });
    await fail(breaker, 7);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of failures asks for 20 calls, or as many as the window holds by default', async () => {
    const byTime = new CircuitBreaker({ failureRatio: 0.1 });
    await fail(byTime, 19);
    expect(byTime.state).toBe('closed');
    await fail(byTime);
    expect(byTime.state).toBe('open');
    const byCount = new CircuitBreaker({ failureRatio: 0.1, window: { calls: 3 } });
    await fail(byCount, 2);
    expect(byCount.state).toBe('closed');
    await fail(byCount);
    expect(byCount.state).toBe('open');
  });

  it('a breaker that goes by the share of failures does not open on failures in a row too, unless that is set as well', async () => {
    const options = { failureRatio: 0.9, window: { calls: 100 }, minimumCalls: 100 };
    const ratioOnly = new CircuitBreaker(options);
    await fail(ratioOnly, 50);
    expect(ratioOnly.state).toBe('closed');
    const both = new CircuitBreaker({ ...options, failureThreshold: 6 });
    await fail(both, 6);
    expect(both.state).toBe('open');
  });

  it('a breaker that goes by the share of failures forgets calls that n newer ones have pushed out', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, window: { calls: 4 }, minimumCalls: 4 });
    await fail(breaker);
    await succeed(breaker, 4);
    await fail(breaker);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of failures forgets calls that are older than the window', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, window: 10_000, minimumCalls: 4 });
    await fail(breaker, 3);
    await pass(10_000);
    await fail(breaker, 3);
    expect(breaker.state).toBe('closed');
    await pass(5_000);
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of failures does not open on a success alone, even at ratio 0', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0, slowCallRatio: 0, minimumCalls: 1 });
    await succeed(breaker, 10);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of failures begins with an empty window after it has closed again', async () => {
    const breaker = new CircuitBreaker({
      failureRatio: 0.5,
      window: { calls: 4 },
      minimumCalls: 4,
      resetTimeout: 10,
    });
    await fail(breaker, 4);
    await pass(10);
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
    await fail(breaker, 3);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });
});

describe('a breaker that goes by the share of slow calls', () => {
  async function take(breaker: CircuitBreaker, milliseconds: number): Promise<void> {
    const call = begin(breaker);
    await pass(milliseconds);
    await call.succeed();
  }

  it.each([{ window: { calls: 10 } }, { window: 10_000 }])(
    'a breaker that goes by the share of slow calls opens when too many calls succeed too slowly within $window',
    async ({ window }) => {
      const breaker = new CircuitBreaker({
        slowCallRatio: 0.5,
        slowCallDuration: 100,
        window,
        minimumCalls: 4,
      });
      await take(breaker, 99);
      await take(breaker, 99);
      await take(breaker, 100);
      expect(breaker.state).toBe('closed');
      await take(breaker, 250);
      expect(breaker.state).toBe('open');
    },
  );

  it('a breaker that goes by the share of slow calls takes a second as slow by default', async () => {
    const breaker = new CircuitBreaker({ slowCallRatio: 1, window: { calls: 1 } });
    await take(breaker, 999);
    expect(breaker.state).toBe('closed');
    await take(breaker, 1_000);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of slow calls forgets slow calls that newer ones have pushed out', async () => {
    const breaker = new CircuitBreaker({ slowCallRatio: 0.5, slowCallDuration: 100, window: { calls: 4 } });
    await take(breaker, 100);
    for (let i = 0; i < 4; i++) await take(breaker, 1);
    await take(breaker, 100);
    expect(breaker.state).toBe('closed');
    await take(breaker, 100);
    expect(breaker.state).toBe('open');
  });

  it('a breaker that goes by the share of slow calls opens again on a slow probe', async () => {
    const breaker = new CircuitBreaker({
      slowCallRatio: 1,
      slowCallDuration: 100,
      window: { calls: 1 },
      resetTimeout: 10,
      halfOpen: { calls: 1 },
    });
    await take(breaker, 100);
    await pass(10);
    await take(breaker, 100);
    expect(breaker.state).toBe('open');
    await pass(10);
    await take(breaker, 99);
    expect(breaker.state).toBe('closed');
  });
});

describe('an open breaker', () => {
  it('an open breaker rejects calls without making them, and says when to come back', async () => {
    const breaker = new CircuitBreaker({ name: 'user-service', failureThreshold: 1, resetTimeout: 1_000 });
    await fail(breaker);
    await pass(400);
    const operation = vi.fn();
    const error = await rejectionOf(breaker.execute(operation));
    expect(operation).not.toHaveBeenCalled();
    expect(error).toBeInstanceOf(CircuitOpenError);
    expect(error).toMatchObject({ code: 'ERR_CIRCUIT_OPEN', retryAfter: 600 });
    expect((error as Error).message).toContain("'user-service'");
    expect((error as Error).message).toContain('open');
  });

  it('an open breaker lets a probe through exactly when its wait is over', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    await fail(breaker);
    await pass(999);
    await expect(breaker.execute(() => 'fine')).rejects.toMatchObject({ retryAfter: 1 });
    await pass(1);
    expect(breaker.state).toBe('open');
    expect(await breaker.execute(() => 'fine')).toBe('fine');
    expect(breaker.state).toBe('closed');
  });

  it('an open breaker waits 30 seconds by default', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    await fail(breaker);
    await expect(breaker.execute(() => 'fine')).rejects.toMatchObject({ retryAfter: 30_000 });
  });

  it('an open breaker waits longer each time it opens in a row with a backoff, and starts anew once it has closed', async () => {
    const waits: number[] = [];
    const breaker = new CircuitBreaker({
      failureThreshold: 1,
      resetTimeout: exponentialBackoff({ base: 100, factor: 3, jitter: 'none' }),
    });
    breaker.on('open', ({ wait, openings }) => waits.push(openings, wait));
    await fail(breaker);
    for (let wait = 100; wait < 2_700; wait *= 3) {
      await pass(wait - 1);
      await expect(breaker.execute(() => 'early')).rejects.toBeInstanceOf(CircuitOpenError);
      await pass(1);
      await fail(breaker);
    }
    await pass(2_700);
    await succeed(breaker);
    await fail(breaker);
    expect(waits).toEqual([1, 100, 2, 300, 3, 900, 4, 2_700, 1, 100]);
  });

  it('an open breaker tells the backoff the wait before and the outcome that opened it', async () => {
    const backoff = vi.fn((_opening: number, previous: number) => previous * 2 + 10);
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: backoff });
    await fail(breaker);
    await pass(10);
    await fail(breaker);
    const outcome = { ok: false, error: down };
    expect(backoff.mock.calls).toEqual([
      [1, 0, outcome],
      [2, 10, outcome],
    ]);
  });

  it('an open breaker is not closed by a slow success that began before it opened', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 1_000 });
    const slow = begin(breaker);
    await fail(breaker, 2);
    await slow.succeed();
    expect(breaker.state).toBe('open');
    expect(slow.call.outcome).toEqual({ ok: true, value: 'fine' });
  });

  it('an open breaker does not wait longer for a failure that began before it opened', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    const slow = begin(breaker);
    await fail(breaker);
    await pass(900);
    await slow.fail();
    await pass(100);
    expect(await breaker.execute(() => 'probe')).toBe('probe');
  });
});

describe('a half-open breaker', () => {
  it.each([1, 3])(
    'a half-open breaker admits exactly %i of a hundred callers that arrive together',
    async (probes) => {
      const breaker = await readyToProbe({ halfOpen: { calls: probes, failureRatio: 1 } });
      const calls = Array.from({ length: 100 }, () => begin(breaker));
      await flush();
      expect(breaker.state).toBe('half-open');
      expect(calls.filter((call) => call.began)).toHaveLength(probes);
      const refused = calls.filter((call) => call.call.outcome !== undefined);
      expect(refused).toHaveLength(100 - probes);
      for (const { call } of refused) {
        expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_CIRCUIT_OPEN', retryAfter: 0 } });
      }
    },
  );

  it('a half-open breaker opens again on one failed probe if it has no ratio', async () => {
    const breaker = await readyToProbe();
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it.each([
    ['by failures', { failureRatio: 0.5 }],
    ['by slow calls', { slowCallRatio: 0.5, slowCallDuration: 10 }],
  ])(
    'a half-open breaker with a ratio (%s) closes by one success and opens again by two failures',
    async (_, options) => {
      for (const succeeds of [true, false]) {
        const breaker = await readyToProbe({ minimumCalls: 1, ...options });
        breaker.trip();
        await pass(1_000);
        await fail(breaker);
        expect(breaker.state).toBe('half-open');
        await (succeeds ? succeed(breaker) : fail(breaker));
        expect(breaker.state).toBe(succeeds ? 'closed' : 'open');
      }
    },
  );

  it('a half-open breaker decides as soon as the probes to come cannot change it', async () => {
    const halfOpen = { calls: 10, failureRatio: 0.5 };
    const closing = await readyToProbe({ halfOpen });
    await fail(closing, 4);
    await succeed(closing, 5);
    expect(closing.state).toBe('half-open');
    await succeed(closing);
    expect(closing.state).toBe('closed');
    const opening = await readyToProbe({ halfOpen });
    await succeed(opening, 5);
    await fail(opening, 4);
    expect(opening.state).toBe('half-open');
    await fail(opening);
    expect(opening.state).toBe('open');
  });

  it('a half-open breaker judges by its own failureRatio unless halfOpen has one', async () => {
    const failuresToOpen = async (options: CircuitBreakerOptions) => {
      const breaker = await readyToProbe(options);
      for (let failures = 1; ; failures++) {
        await fail(breaker);
        if (breaker.state === 'open') return failures;
      }
    };
    const halfOpen = { calls: 10 };
    expect(await failuresToOpen({ halfOpen })).toBe(5);
    expect(await failuresToOpen({ halfOpen, failureRatio: 0.3 })).toBe(3);
    expect(await failuresToOpen({ halfOpen, failureRatio: 0.8, slowCallRatio: 0.2 })).toBe(2);
    expect(await failuresToOpen({ halfOpen: { calls: 10, failureRatio: 0.7 }, failureRatio: 0.3 })).toBe(7);
  });

  it('a half-open breaker and a closed one open at a ratio whose product with the calls is rounded up', async () => {
    const failureRatio = 0.07;
    const breaker = new CircuitBreaker({ failureRatio, minimumCalls: 100, halfOpen: { calls: 100 } });
    await succeed(breaker, 93);
    await fail(breaker, 6);
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
    await pass(30_000);
    await fail(breaker, 6);
    expect(breaker.state).toBe('half-open');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a half-open breaker sends a dead service no more probes than open it again, however many callers come', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 9, failureRatio: 0.3 } });
    const probes: ReturnType<typeof begin>[] = [];
    for (let round = 0; round < 3; round++) {
      const calls = Array.from({ length: 20 }, () => begin(breaker));
      probes.push(...calls.filter((call) => call.began));
      await probes[round]!.fail();
    }
    expect(probes).toHaveLength(3);
    expect(breaker.state).toBe('open');
  });

  it('a half-open breaker with a ratio of half seldom opens again while a steady fifth of the calls fails', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, resetTimeout: 1_000 });
    let reopened = 0;
    breaker.on('open', ({ openings }) => {
      if (openings > 1) reopened++;
    });
    // A linear congruential generator: one call of five fails by chance, the same ones in each run.
    let seed = 1;
    const failsByChance = () => {
      seed = (seed * 16_807) % 2_147_483_647;
      return seed % 5 === 0;
    };
    for (let recovery = 0; recovery < 100; recovery++) {
      breaker.trip();
      while (breaker.state !== 'closed') {
        await pass(1_000);
        await (failsByChance() ? fail(breaker) : succeed(breaker));
      }
    }
    // One probe in five fails, and one pair in 25.
    expect(reopened).toBeLessThan(8);
  });

  it('a half-open breaker closes only after as many successes as leave too few probes to fail', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 3, failureRatio: 0 } });
    await succeed(breaker, 2);
    expect(breaker.state).toBe('half-open');
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
  });

  it('a half-open breaker counts successes anew in each half-open phase', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 2, failureRatio: 0 } });
    await succeed(breaker);
    await fail(breaker);
    await pass(1_000);
    await succeed(breaker);
    expect(breaker.state).toBe('half-open');
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
  });

  it('a half-open breaker gives the place of a finished probe to the next caller', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 3, failureRatio: 0 } });
    const first = begin(breaker);
    await first.succeed();
    const second = begin(breaker);
    expect(second.began).toBe(true);
    expect(begin(breaker).began).toBe(false);
  });

  it('a half-open breaker is not opened by a late failure that began before the trip', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    const late = begin(breaker);
    await fail(breaker);
    await pass(1_000);
    const probe = begin(breaker);
    await late.fail();
    expect(breaker.state).toBe('half-open');
    await probe.succeed();
    expect(breaker.state).toBe('closed');
  });

  it('a half-open breaker is not closed by a late success that began before the trip', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    const late = begin(breaker);
    await fail(breaker);
    await pass(1_000);
    begin(breaker);
    await late.succeed();
    expect(breaker.state).toBe('half-open');
  });

  it.each(['succeed', 'fail'] as const)(
    'a half-open breaker ignores a probe of an earlier half-open phase that happens to %s',
    async (end) => {
      const breaker = await readyToProbe({ halfOpen: { calls: 2, failureRatio: 1 } });
      const old = begin(breaker);
      breaker.trip();
      expect(breaker.state).toBe('open');
      await pass(1_000);
      const probe = begin(breaker);
      await old[end]();
      expect(breaker.state).toBe('half-open');
      // Nor does it free a place that it no longer holds.
      const second = begin(breaker);
      expect(second.began).toBe(true);
      expect(begin(breaker).began).toBe(false);
      await probe.succeed();
      expect(breaker.state).toBe('closed');
    },
  );

  it('a half-open breaker neither floods nor sticks when many calls fail at once (opossum #119, #385)', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 3, resetTimeout: 1_000 });
    const opened = vi.fn();
    breaker.on('open', opened);
    const burst = Array.from({ length: 50 }, () => begin(breaker));
    for (const call of burst) await call.fail();
    expect(opened).toHaveBeenCalledTimes(1);
    for (let round = 0; round < 5; round++) {
      await pass(1_000);
      const calls = Array.from({ length: 50 }, () => begin(breaker));
      expect(calls.filter((call) => call.began)).toHaveLength(1);
      await calls.find((call) => call.began)!.fail();
      expect(breaker.state).toBe('open');
    }
    await pass(1_000);
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
  });
});

describe('a call that its caller cancels', () => {
  it('a cancelled call through a breaker counts as neither success nor failure', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    await fail(breaker);
    for (const end of ['fail', 'succeed'] as const) {
      const controller = new AbortController();
      const call = begin(breaker, { signal: controller.signal });
      controller.abort();
      await call[end]();
    }
    expect(breaker.state).toBe('closed');
    await fail(breaker);
    expect(breaker.state).toBe('open');
  });

  it('a cancelled call through a breaker is not made at all if it was cancelled before', async () => {
    const breaker = await readyToProbe();
    const operation = vi.fn();
    const reason = new Error('too late');
    expect(await rejectionOf(breaker.execute(operation, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    expect(operation).not.toHaveBeenCalled();
    expect(breaker.state).toBe('open');
  });

  it('a cancelled call through a breaker frees its probe place at once, even if its operation ignores the signal (opossum #484, #819)', async () => {
    const breaker = await readyToProbe();
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController();
      const probe = begin(breaker, { signal: controller.signal });
      expect(probe.began).toBe(true);
      expect(begin(breaker).began).toBe(false);
      controller.abort();
      expect(breaker.state).toBe('half-open');
    }
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
  });

  it('a cancelled call through a breaker frees its probe place once only, however its operation ends afterwards', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 5, failureRatio: 0 } });
    const controller = new AbortController();
    const cancelled = begin(breaker, { signal: controller.signal });
    controller.abort();
    const next = begin(breaker);
    expect(next.began).toBe(true);
    await cancelled.fail();
    expect(breaker.state).toBe('half-open');
    expect(begin(breaker).began).toBe(false);
  });

  it('a cancelled call through a breaker leaves no listener on its signal', async () => {
    const breaker = await readyToProbe({ halfOpen: { calls: 9, failureRatio: 0 } });
    const { signal } = new AbortController();
    const probe = begin(breaker, { signal });
    expect(listenersOn(signal)).toBe(1);
    await probe.succeed();
    expect(listenersOn(signal)).toBe(0);
  });
});

describe('a call that runs out of time', () => {
  it('a call through a breaker that runs out of time counts as a failure when an enclosing Timeout cut it', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    const service = compose(new Timeout(100), breaker);
    for (let i = 0; i < 2; i++) {
      const call = follow(
        service.execute(
          ({ signal }) =>
            new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        ),
      );
      await pass(100);
      expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    }
    expect(breaker.state).toBe('open');
  });

  it('a call through a breaker that runs out of time counts as a failure even if its operation ignores the signal and succeeds too late', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    const service = compose(new Timeout(100), breaker);
    for (let i = 0; i < 2; i++) {
      const operation = defer();
      const call = follow(service.execute(() => operation.promise));
      await pass(100);
      expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
      operation.resolve('too late');
      await flush();
    }
    expect(breaker.state).toBe('open');
  });

  it('a probe that runs out of time opens a half-open breaker again at once when an enclosing Timeout cut the probe', async () => {
    const breaker = await readyToProbe();
    const call = follow(compose(new Timeout(100), breaker).execute(() => new Promise(() => {})));
    await pass(100);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    expect(breaker.state).toBe('open');
  });

  it('a call through a breaker that runs out of time does not count when the deadline that the caller came with has cut it', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    const service = compose(new Timeout(1_000), breaker);
    const call = follow(
      service.execute(
        ({ signal }) =>
          new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted')))),
        { deadline: performance.now() + 50 },
      ),
    );
    await pass(50);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_DEADLINE_EXCEEDED' } });
    expect(breaker.state).toBe('closed');
  });

  it('a breaker frees the place of a probe that the deadline of its caller has cut', async () => {
    const breaker = await readyToProbe();
    const service = compose(new Timeout(1_000), breaker);
    const call = follow(service.execute(() => new Promise(() => {}), { deadline: performance.now() + 50 }));
    await pass(50);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_DEADLINE_EXCEEDED' } });
    expect(breaker.state).toBe('half-open');
    await succeed(breaker);
    expect(breaker.state).toBe('closed');
  });
});

describe('isolate() and reset()', () => {
  it('isolate() and reset() of a breaker reject every call until reset, whatever time passes', async () => {
    const breaker = new CircuitBreaker({ resetTimeout: 10 });
    breaker.isolate();
    await pass(1_000_000);
    await expect(breaker.execute(() => 'fine')).rejects.toMatchObject({
      code: 'ERR_CIRCUIT_OPEN',
      retryAfter: Infinity,
    });
    expect(breaker.state).toBe('isolated');
    breaker.reset();
    expect(await breaker.execute(() => 'fine')).toBe('fine');
    expect(breaker.state).toBe('closed');
  });

  it('isolate() and reset() of a breaker forget what was counted', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    await fail(breaker);
    breaker.reset();
    await fail(breaker);
    expect(breaker.state).toBe('closed');
  });

  it('isolate() and reset() of a breaker do not count a failure that began before reset()', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    const late = begin(breaker);
    breaker.reset();
    await late.fail();
    expect(breaker.state).toBe('closed');
  });

  it('isolate() and reset() of a breaker are not undone by calls that were under way', async () => {
    const breaker = await readyToProbe();
    const probe = begin(breaker);
    breaker.isolate();
    await probe.succeed();
    expect(breaker.state).toBe('isolated');
  });

  it('isolate() and reset() of a breaker start the waits anew', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: (openings) => openings * 100 });
    await fail(breaker);
    await pass(100);
    await fail(breaker);
    breaker.reset();
    await fail(breaker);
    await expect(breaker.execute(() => 'fine')).rejects.toMatchObject({ retryAfter: 100 });
  });
});

it('the event open of a breaker says by which rule it opened', async () => {
  const reasons: string[] = [];
  const watched = (options: CircuitBreakerOptions) => {
    const breaker = new CircuitBreaker({ resetTimeout: 1_000, minimumCalls: 2, ...options });
    breaker.on('open', ({ reason }) => void reasons.push(reason));
    return breaker;
  };
  const inARow = watched({ failureThreshold: 1 });
  await fail(inARow);
  await pass(1_000);
  await fail(inARow);
  const byRatio = watched({ failureRatio: 0.5 });
  await fail(byRatio);
  await fail(byRatio);
  const bySlowness = watched({ slowCallRatio: 0.5, slowCallDuration: 100 });
  const calls = [begin(bySlowness), begin(bySlowness)];
  await pass(200);
  for (const call of calls) await call.succeed();
  watched({}).trip();
  expect(reasons).toEqual(['failures-in-a-row', 'probe', 'failure-ratio', 'slow-calls', 'trip']);
});

describe('trip()', () => {
  it('trip() of a breaker opens a closed breaker as a reached threshold would, and leaves an open and an isolated one alone', async () => {
    const breaker = new CircuitBreaker({ resetTimeout: 1_000 });
    breaker.trip();
    await pass(400);
    breaker.trip();
    await expect(breaker.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 600 });
    await pass(600);
    await begin(breaker).succeed();
    expect(breaker.state).toBe('closed');
    breaker.isolate();
    breaker.trip();
    expect(breaker.state).toBe('isolated');
  });

  it('trip() of a breaker opens a half-open breaker as a failed probe would, and the probe that ends later changes nothing', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: (openings) => openings * 1_000 });
    const opened = vi.fn();
    await fail(breaker);
    await pass(1_000);
    const probe = begin(breaker);
    breaker.on('open', opened);
    breaker.trip();
    expect(opened).toHaveBeenCalledExactlyOnceWith({
      reason: 'trip',
      stats: expect.any(Object),
      outcome: undefined,
      wait: 2_000,
      openings: 2,
    });
    await probe.succeed();
    await expect(breaker.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 2_000 });
  });

  it('trip() of a breaker lets no probe through a breaker that is due for one, until another wait is over', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: (openings) => openings * 1_000 });
    await fail(breaker);
    await pass(1_000);
    breaker.trip();
    await expect(breaker.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 2_000 });
    await pass(2_000);
    expect(await breaker.execute(() => 'probe')).toBe('probe');
  });
});

describe('the events of a breaker', () => {
  it('a breaker emits each change once, in order, and each rejection', async () => {
    const told: unknown[] = [];
    const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 1_000 });
    breaker.on('open', (event) => told.push(['open', event]));
    breaker.on('half-open', () => told.push('half-open'));
    breaker.on('close', () => told.push('close'));
    breaker.on('isolate', () => told.push('isolate'));
    breaker.on('reject', ({ error }) => told.push(error.code));
    await fail(breaker, 2);
    await rejectionOf(breaker.execute(() => 'no'));
    await pass(1_000);
    await succeed(breaker, 2);
    breaker.isolate();
    breaker.isolate();
    breaker.reset();
    breaker.reset();
    const outcome = { ok: false, error: down };
    expect(told).toEqual([
      [
        'open',
        {
          reason: 'failures-in-a-row',
          outcome,
          wait: 1_000,
          openings: 1,
          stats: expect.objectContaining({ failures: 2 }),
        },
      ],
      'ERR_CIRCUIT_OPEN',
      'half-open',
      'close',
      'isolate',
      'close',
    ]);
  });

  it('a breaker emits each change of state under one name as well', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 1_000 });
    const told: string[] = [];
    breaker.on('state', ({ from, to }) => told.push(`${from} → ${to}`));
    await fail(breaker, 2);
    await pass(1_000);
    await succeed(breaker, 1);
    breaker.isolate();
    breaker.reset();
    breaker.reset();
    expect(told).toEqual([
      'closed → open',
      'open → half-open',
      'half-open → closed',
      'closed → isolated',
      'isolated → closed',
    ]);
  });

  it('the events of a breaker reach every listener, and one that throws or rejects disturbs nothing', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    const opened = vi.fn();
    const refused = vi.fn();
    breaker.on('open', () => {
      throw new Error('a listener threw');
    });
    breaker.on('open', async () => {
      throw new Error('a listener rejected');
    });
    breaker.on('open', opened);
    breaker.on('reject', () => fling('a string'));
    breaker.on('reject', refused);
    expect(await rejectionOf(breaker.execute(() => Promise.reject(down)))).toBe(down);
    expect(breaker.state).toBe('open');
    expect(await rejectionOf(breaker.execute(() => 'no'))).toBeInstanceOf(CircuitOpenError);
    await flush();
    expect(opened).toHaveBeenCalledTimes(1);
    expect(refused).toHaveBeenCalledTimes(1);
    const messages = warn.mock.calls.map(([message]) => String(message));
    expect(messages).toHaveLength(3);
    for (const text of ['a listener threw', 'a listener rejected', 'a string']) {
      expect(messages.some((message) => message.includes(text))).toBe(true);
    }
  });

  it('a listener of a breaker may change the state: one that isolates on half-open keeps the probe from being made', async () => {
    const breaker = await readyToProbe();
    breaker.on('half-open', () => breaker.isolate());
    const operation = vi.fn();
    await expect(breaker.execute(operation)).rejects.toBeInstanceOf(CircuitOpenError);
    expect(operation).not.toHaveBeenCalled();
  });
});

describe('a breaker that goes on where another process left off', () => {
  function restart(
    breaker: CircuitBreaker,
    options: CircuitBreakerOptions,
    wallClockJump = 0,
  ): CircuitBreaker {
    const initialState = JSON.parse(JSON.stringify(breaker)) as CircuitBreakerSnapshot;
    vi.setSystemTime(Date.now() + wallClockJump);
    return new CircuitBreaker({ ...options, initialState });
  }

  it('a restored breaker stays open for what is left of the wait, and counts its openings on', async () => {
    const options = { failureThreshold: 1, resetTimeout: (openings: number) => openings * 1_000 };
    const before = new CircuitBreaker(options);
    await fail(before);
    await pass(1_000);
    await fail(before);
    await pass(500);
    expect(before.toJSON()).toEqual({ state: 'open', openings: 2, probeAt: Date.now() + 1_500 });
    const after = restart(before, options);
    await pass(500);
    await expect(after.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 1_000 });
    await pass(1_000);
    await fail(after);
    await expect(after.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 3_000 });
  });

  it('a restored breaker opens after 5 failures in a row, each in a process of its own', async () => {
    let breaker = new CircuitBreaker();
    for (let run = 1; run <= 5; run++) {
      expect(breaker.state).toBe('closed');
      await fail(breaker);
      breaker = restart(breaker, {});
    }
    expect(breaker.state).toBe('open');
  });

  it.each<[string, CircuitBreakerOptions['window']]>([
    ['of time', 60_000],
    ['of calls', { calls: 40 }],
  ])(
    'a restored breaker opens by a ratio over a window %s after 20 failures, each in a process of its own',
    async (_, window) => {
      const options = { failureRatio: 0.5, minimumCalls: 20, window };
      let breaker = new CircuitBreaker(options);
      for (let run = 1; run <= 20; run++) {
        expect(breaker.state).toBe('closed');
        await fail(breaker);
        await pass(1_000);
        breaker = restart(breaker, options);
      }
      expect(breaker.state).toBe('open');
    },
  );

  it('a restored breaker forgets what is older than its window, though its processes were short', async () => {
    const options = { failureRatio: 0.5, minimumCalls: 20, window: 10_000 };
    let breaker = new CircuitBreaker(options);
    for (let run = 1; run <= 30; run++) {
      await fail(breaker);
      await pass(1_000);
      breaker = restart(breaker, options);
    }
    expect(breaker.state).toBe('closed');
    expect(breaker.toJSON().window!.length).toBeLessThanOrEqual(10);
  });

  it.each([-86_400_000, 86_400_000])(
    'a restored breaker, when the wall clock jumped by %i ms, forgets or keeps its counts, but no longer than a window',
    async (jump) => {
      const options = { failureRatio: 0.5, minimumCalls: 20, window: 10_000 };
      const before = new CircuitBreaker(options);
      await fail(before, 19);
      const after = restart(before, options, jump);
      await pass(10_000);
      await fail(after);
      expect(after.state).toBe('closed');
    },
  );

  it('a restored breaker with a window of fewer calls keeps the shares of failed and slow ones', async () => {
    const before = new CircuitBreaker({ failureRatio: 0.9, window: { calls: 100 } });
    for (let round = 0; round < 50; round++) {
      await fail(before);
      await succeed(before, 1);
    }
    expect(before.toJSON().window).toEqual([{ calls: 100, failures: 50, slow: 0 }]);
    const after = restart(before, { failureRatio: 0.9, window: { calls: 20 } });
    expect(after.toJSON().window).toEqual([{ calls: 20, failures: 10, slow: 0 }]);
  });

  it('a restored breaker keeps the counts of a snapshot that is taken again at once', async () => {
    const options = { failureRatio: 0.9, slowCallRatio: 0.9, window: 10_000 };
    const before = new CircuitBreaker(options);
    await fail(before, 3);
    await pass(3_000);
    await succeed(before, 2);
    const after = restart(before, options);
    expect(after.toJSON()).toEqual(before.toJSON());
    expect(after.toJSON()).toMatchObject({ state: 'closed', failuresInARow: 0 });
  });

  it('a restored breaker ignores what a newer version wrote besides', () => {
    const initialState = {
      state: 'closed',
      openings: 0,
      failuresInARow: 4,
      window: [{ calls: 1, failures: 0, slow: 0, at: 0, zone: 'a' }],
      more: true,
    } as unknown as CircuitBreakerSnapshot;
    expect(new CircuitBreaker({ initialState }).toJSON()).toMatchObject({ failuresInARow: 4 });
  });

  it('a restored breaker stays closed, isolated, and probes at once after half-open', async () => {
    const closed = new CircuitBreaker();
    expect(restart(closed, {}).state).toBe('closed');
    closed.isolate();
    expect(restart(closed, {}).state).toBe('isolated');
    const halfOpen = await readyToProbe();
    begin(halfOpen);
    expect(halfOpen.state).toBe('half-open');
    expect(await restart(halfOpen, {}).execute(() => 'probe')).toBe('probe');
  });

  it('a restored breaker never waits longer than a whole wait when the wall clock was set back', async () => {
    const options = { failureThreshold: 1, resetTimeout: 1_000 };
    const before = new CircuitBreaker(options);
    await fail(before);
    const after = restart(before, options, -86_400_000);
    await expect(after.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 1_000 });
    await pass(1_000);
    expect(await after.execute(() => 'probe')).toBe('probe');
  });

  it('a restored breaker probes at once when the wall clock was set forward', async () => {
    const options = { failureThreshold: 1, resetTimeout: 1_000 };
    const before = new CircuitBreaker(options);
    await fail(before);
    expect(await restart(before, options, 86_400_000).execute(() => 'probe')).toBe('probe');
  });

  it('a restored breaker does not notice the wall clock jump while it runs', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 1_000 });
    await fail(breaker);
    vi.setSystemTime(Date.now() + 86_400_000);
    await expect(breaker.execute(() => 'no')).rejects.toMatchObject({ retryAfter: 1_000 });
  });

  it.each(['closed', 'open', 'half-open', 'isolated'] as const)(
    'a breaker can begin %s',
    async (initialState) => {
      const breaker = new CircuitBreaker({ initialState, resetTimeout: 500 });
      const call = follow(breaker.execute(() => 'fine'));
      await flush();
      expect(call.outcome?.ok).toBe(initialState === 'closed' || initialState === 'half-open');
      if (initialState === 'open') expect(call.outcome).toMatchObject({ error: { retryAfter: 500 } });
    },
  );
});

it('a breaker that does not look for slow calls uses no timer in any state', async () => {
  const breaker = new CircuitBreaker({
    failureRatio: 0.5,
    failureThreshold: 1,
    resetTimeout: 1_000,
  });
  await fail(breaker);
  await rejectionOf(breaker.execute(() => 'no'));
  expect(vi.getTimerCount()).toBe(0);
  await pass(1_000);
  const probe = begin(breaker, { signal: new AbortController().signal });
  expect(vi.getTimerCount()).toBe(0);
  await probe.succeed();
  breaker.isolate();
  breaker.reset();
  expect(vi.getTimerCount()).toBe(0);
});

it('a breaker that looks for slow calls uses one timer for all of them, and none once they are over', async () => {
  const breaker = new CircuitBreaker({ slowCallRatio: 1, slowCallDuration: 100 });
  const calls = Array.from({ length: 10 }, () => begin(breaker));
  expect(vi.getTimerCount()).toBe(1);
  for (const call of calls) await call.succeed();
  await pass(100);
  expect(vi.getTimerCount()).toBe(0);
});

describe('a breaker, while this process is blocked,', () => {
  const options = { slowCallRatio: 0.1, slowCallDuration: 100, minimumCalls: 1 };

  it('a breaker in a process that is blocked takes no call for slow whose response was there when the event loop could read it', async () => {
    const breaker = new CircuitBreaker(options);
    const call = begin(breaker);
    await stall(300, () => call.succeed());
    expect(call.call.outcome).toEqual({ ok: true, value: 'fine' });
    expect(breaker.state).toBe('closed');
    await pass(1_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a breaker in a process that is blocked takes no call for slow that may not have been sent before', async () => {
    const breaker = new CircuitBreaker(options);
    const call = begin(breaker);
    await stall(300);
    await pass(50);
    await call.succeed();
    expect(breaker.state).toBe('closed');
  });

  it('a breaker in a process that is blocked takes one for slow that began when it was over', async () => {
    const breaker = new CircuitBreaker(options);
    const before = begin(breaker);
    await stall(300);
    await before.succeed();
    const after = begin(breaker);
    await pass(100);
    await after.succeed();
    expect(breaker.state).toBe('open');
  });

  it.each(['inside', 'outside'])(
    'a breaker in a process that is blocked does not count a call that a Timeout %s has ended',
    async (where) => {
      const breaker = new CircuitBreaker({ failureThreshold: 1, isIgnored: () => false });
      const timeout = new Timeout(100);
      const call = begin(where === 'inside' ? compose(breaker, timeout) : compose(timeout, breaker));
      await stall(300);
      expect(call.call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT', stalled: 200 } });
      await call.fail();
      expect(breaker.state).toBe('closed');
    },
  );

  it('a breaker in a process that is blocked counts no probe that ran out of time, so that the next call probes', async () => {
    const breaker = await readyToProbe();
    const guarded = compose(breaker, new Timeout(100));
    const probe = begin(guarded);
    await stall(300);
    expect(probe.call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    expect(breaker.state).toBe('half-open');
    await guarded.execute(() => 'well');
    expect(breaker.state).toBe('closed');
  });
});

it('a predicate that throws for a probe cut short by a Timeout around it is a warning, and the next call probes', async () => {
  const collected = collectWarnings('HoldfastListenerWarning');
  let broken = false;
  const isFailure = () => (broken ? fling(new Error('broken predicate')) : true);
  const breaker = await readyToProbe({ isFailure });
  broken = true;
  const call = follow(compose(new Timeout(50), breaker).execute(() => new Promise(() => {})));
  await pass(50);
  expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
  await collected.stop();
  expect(collected.warnings).toHaveLength(1);
  expect(begin(breaker).began).toBe(true);
});

describe('what a breaker tells of itself', () => {
  it('the stats of a breaker count its window while it is closed, and stay as they were when it opened', async () => {
    const options = { failureRatio: 0.5, window: { calls: 4 }, minimumCalls: 4, halfOpen: { calls: 1 } };
    const breaker = new CircuitBreaker(options);
    await succeed(breaker, 2);
    await fail(breaker);
    expect(breaker.stats).toEqual({ state: 'closed', calls: 3, failures: 1, slowCalls: 0, openings: 0 });
    const opened = vi.fn();
    breaker.on('open', opened);
    await fail(breaker);
    expect(breaker.stats).toEqual({ state: 'open', calls: 4, failures: 2, slowCalls: 0, openings: 1 });
    expect(opened).toHaveBeenCalledWith(expect.objectContaining({ stats: breaker.stats }));
    await pass(30_000);
    await fail(breaker);
    expect(breaker.stats).toEqual({ state: 'open', calls: 4, failures: 2, slowCalls: 0, openings: 2 });
    await pass(30_000);
    await succeed(breaker);
    expect(breaker.stats).toEqual({ state: 'closed', calls: 0, failures: 0, slowCalls: 0, openings: 0 });
  });

  it('the stats of a breaker forget calls that are older than the window, though no call comes', async () => {
    const breaker = new CircuitBreaker({ failureRatio: 0.5, window: 1_000 });
    await fail(breaker);
    expect(breaker.stats.failures).toBe(1);
    await pass(1_100);
    expect(breaker.stats).toMatchObject({ calls: 0, failures: 0 });
  });

  it('the stats of a breaker count slow calls where these can open it', async () => {
    const breaker = new CircuitBreaker({ slowCallRatio: 0.9, slowCallDuration: 100 });
    const call = begin(breaker);
    await pass(150);
    await call.succeed();
    await succeed(breaker);
    expect(breaker.stats).toMatchObject({ calls: 2, failures: 0, slowCalls: 1 });
  });

  it('the stats of a breaker without ratios count the failures in a row', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 3 });
    await fail(breaker, 2);
    expect(breaker.stats).toMatchObject({ calls: 2, failures: 2 });
    await succeed(breaker);
    expect(breaker.stats).toMatchObject({ calls: 0, failures: 0 });
    await fail(breaker, 3);
    expect(breaker.stats).toMatchObject({ state: 'open', calls: 3, failures: 3, openings: 1 });
    breaker.isolate();
    expect(breaker.stats).toEqual({ state: 'isolated', calls: 0, failures: 0, slowCalls: 0, openings: 0 });
  });

  it('the event of an opening has the counts by which it opened, though a listener has closed it since', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 2 });
    const opened = vi.fn();
    breaker.once('state', () => breaker.reset());
    breaker.on('open', opened);
    await fail(breaker, 2);
    expect(opened).toHaveBeenCalledWith(
      expect.objectContaining({
        stats: { state: 'open', calls: 2, failures: 2, slowCalls: 0, openings: 1 },
      }),
    );
  });

  it('a breaker shows its name, state and counts in logs', async () => {
    const breaker = new CircuitBreaker({ name: 'user-service', failureThreshold: 1 });
    await fail(breaker);
    expect(inspect(breaker)).toBe(
      "CircuitBreaker 'user-service' { state: 'open', calls: 1, failures: 1, slowCalls: 0, openings: 1 }",
    );
    expect(inspect({ a: { b: { breaker } } }, { depth: 1 })).not.toContain('failures');
    expect(inspect({ a: { breaker } }, { depth: 1 })).toContain("[CircuitBreaker 'user-service': open]");
    expect(inspect(new CircuitBreaker())).toMatch(/^CircuitBreaker \{ state: 'closed'/);
  });

  it('isFailure and isIgnored of a breaker get the context of the call', async () => {
    const isFailure = vi.fn(() => true);
    const isIgnored = vi.fn(() => false);
    const breaker = new CircuitBreaker({ isFailure, isIgnored });
    let given: unknown;
    await breaker.execute((context) => {
      given = context;
    });
    const outcome = { ok: true, value: undefined };
    expect(isFailure).toHaveBeenCalledWith(outcome, expect.objectContaining({ attempt: 1 }));
    expect(isFailure).toHaveBeenCalledWith(outcome, given);
    expect(isIgnored).toHaveBeenCalledWith(outcome, given);
  });
});

describe('the options of a breaker', () => {
  it.each(['halfOpenCalls', 'successThreshold'])('the options of a breaker had one named %s', (former) => {
    expect(() => new CircuitBreaker({ [former]: 2 })).toThrow(
      new TypeError(`CircuitBreaker option '${former}' was renamed to 'halfOpen'`),
    );
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['failureThreshold', { failureThreshold: 0 }, 'RangeError'],
    ['failureThreshold', { failureThreshold: 1.5 }, 'RangeError'],
    ['failureThreshold', { failureThreshold: '5' }, 'TypeError'],
    ['failureRatio', { failureRatio: 1.1 }, 'RangeError'],
    ['failureRatio', { failureRatio: Number.NaN }, 'RangeError'],
    ['slowCallRatio', { slowCallRatio: -0.1 }, 'RangeError'],
    ['slowCallDuration', { slowCallDuration: -1 }, 'RangeError'],
    ['window', { window: 0 }, 'RangeError'],
    ['window', { window: { calls: 0 } }, 'RangeError'],
    ['window', { window: { calls: 1_000_001 } }, 'RangeError'],
    ['window', { window: {} }, 'TypeError'],
    ['window', { window: null }, 'TypeError'],
    ['minimumCalls', { minimumCalls: 0 }, 'RangeError'],
    ['resetTimeout', { resetTimeout: -1 }, 'RangeError'],
    ['resetTimeout', { resetTimeout: 2 ** 31 }, 'RangeError'],
    ['resetTimeout', { resetTimeout: '30s' }, 'TypeError'],
    ['halfOpen', { halfOpen: 3 }, 'TypeError'],
    ["halfOpen' needs the option 'calls", { halfOpen: { failureRatio: 0.5 } }, 'TypeError'],
    ["halfOpen' option 'calls", { halfOpen: { calls: 0 } }, 'RangeError'],
    ["halfOpen' option 'failureRatio", { halfOpen: { calls: 3, failureRatio: 2 } }, 'RangeError'],
    ['isFailure', { isFailure: true }, 'TypeError'],
    ['isIgnored', { isIgnored: [] }, 'TypeError'],
    ['name', { name: '' }, 'TypeError'],
    ['initialState', { initialState: 'ajar' }, 'TypeError'],
    ['initialState', { initialState: 5 }, 'TypeError'],
    ['initialState.failuresInARow', { initialState: { state: 'closed', failuresInARow: -1 } }, 'RangeError'],
    ['initialState.window', { initialState: { state: 'closed', window: 5 } }, 'TypeError'],
    ['initialState.window[0].calls', { initialState: { state: 'closed', window: [null] } }, 'TypeError'],
    [
      'initialState.window[0].failures',
      { initialState: { state: 'closed', window: [{ calls: 1, failures: 2, slow: 0 }] } },
      'RangeError',
    ],
    [
      'initialState.window[0].at',
      { initialState: { state: 'closed', window: [{ calls: 1, failures: 1, slow: 0, at: 'now' }] } },
      'TypeError',
    ],
    ['initialState.openings', { initialState: { state: 'open', openings: 0 } }, 'RangeError'],
    [
      'initialState.probeAt',
      { initialState: { state: 'open', openings: 1, probeAt: Number.NaN } },
      'RangeError',
    ],
    ['failureTreshold', { failureTreshold: 5 }, 'TypeError'],
  ])('a breaker names the wrong option %s (%o)', (option, options, error) => {
    expect(() => new CircuitBreaker(options)).toThrow(option);
    expect(() => new CircuitBreaker(options)).toThrow(expect.objectContaining({ name: error }));
  });

  it('the options of a breaker may be left out or undefined', () => {
    expect(new CircuitBreaker({ failureThreshold: undefined, resetTimeout: undefined }).state).toBe('closed');
  });

  it('a breaker whose backoff gives no number of milliseconds throws an error that says so', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: () => Number.NaN });
    await expect(breaker.execute(() => Promise.reject(down))).rejects.toThrow(/backoff/);
    await expect(fail(new CircuitBreaker({ resetTimeout: constantBackoff(1) }))).resolves.toBeUndefined();
  });
});
