import { describe, expect, it, vi } from 'vitest';
import { type LoadBalancerEvents, runWithRequestContext } from '../../src/index.ts';
import {
  type Behaviour,
  type Call,
  type SimulatedInstance,
  type SimulatedService,
  withService,
} from '../support/simulated-service.ts';

const SEEDS = [1, 2];

/** Builds the behaviour of an instance that fails a share of its calls. */
function failing(share: number, status = 500): () => Behaviour {
  return () => (Math.random() < share ? status : 'well');
}

function succeeded(calls: readonly Call[]): number {
  return calls.filter(({ error }) => error === undefined).length / calls.length;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

/**
 * Expects the share of an instance from a moment on: 60 % of a fair one in each five seconds, 80 %
 * over fifteen.
 */
function expectFairShare(simulated: SimulatedService, instance: SimulatedInstance, from: number): void {
  for (const begin of [from, from + 5_000, from + 10_000]) {
    expect(
      simulated.shareOf(instance, begin, begin + 5_000),
      `the share from ${begin} ms on`,
    ).toBeGreaterThan(0.6);
  }
  expect(simulated.shareOf(instance, from, from + 15_000)).toBeGreaterThan(0.8);
}

describe('an instance that was bad', () => {
  const takes = () => 2.5 + Math.random();

  it.each([2, 5])(
    'an instance of %d gets its share back from three seconds after one slow response',
    async (instances) => {
      for (const seed of SEEDS) {
        await withService(
          { instances, takes },
          async (simulated) => {
            const slow = simulated.instances[0]!;
            await simulated.steady(100, 5_000);
            slow.takes = () => {
              slow.takes = takes;
              return 500;
            };
            await simulated.steady(100, 19_000);
            const { endedAt } = slow.attempts.find((attempt) => attempt.endedAt - attempt.beganAt > 400)!;
            expectFairShare(simulated, slow, endedAt + 3_000);
          },
          seed,
        );
      }
    },
  );

  it.each([2, 5])(
    'an instance of %d gets its share back from six seconds after it responded 503 for six seconds',
    async (instances) => {
      for (const seed of SEEDS) {
        await withService(
          { instances, takes },
          async (simulated) => {
            const mended = simulated.instances[0]!;
            await simulated.steady(100, 3_000);
            mended.become(503);
            await simulated.steady(100, 6_000);
            mended.become('well');
            const mendedAt = performance.now();
            await simulated.steady(100, 21_000);
            expect(succeeded(simulated.calls)).toBe(1);
            expectFairShare(simulated, mended, mendedAt + 6_000);
          },
          seed,
        );
      }
    },
  );

  it('an instance that serves only POSTs gets its share back after it responded 503 for six seconds', async () => {
    await withService({ instances: 2, takes }, async (simulated) => {
      const mended = simulated.instances[0]!;
      await simulated.steady(100, 3_000, 'POST');
      mended.become(503);
      await simulated.steady(100, 6_000, 'POST');
      mended.become('well');
      const mendedAt = performance.now();
      await simulated.steady(100, 21_000, 'POST');
      expectFairShare(simulated, mended, mendedAt + 6_000);
    });
  });
});

describe('dead instances', () => {
  it.each([
    [2, 3],
    [3, 5],
    [3, 4],
  ])(
    '%d of %d instances are dead from the beginning, and a new client loses no call in thirty-five seconds',
    async (dead, instances) => {
      for (const kind of ['refused', 503] as const) {
        await withService({ instances }, async (simulated) => {
          for (const instance of simulated.instances.slice(0, dead)) instance.become(kind);
          await simulated.steady(50, 35_000);
          const lost = simulated.calls.filter(({ error }) => error !== undefined);
          expect(simulated.breaker).toEqual([]);
          // The client cannot know which of the instances is well until one has responded.
          expect(lost.length).toBeLessThanOrEqual(kind === 'refused' ? 0 : 1);
          for (const { beganAt } of lost) expect(beganAt).toBeLessThan(500);
        });
      }
    },
  );

  it('instances with a slow first response that replace dead ones have their share from the third second on', async () => {
    for (const seed of SEEDS) {
      await withService(
        { instances: 3 },
        async (simulated) => {
          const [stays, ...crashed] = simulated.instances as [SimulatedInstance, ...SimulatedInstance[]];
          await simulated.steady(50, 5_000);
          for (const instance of crashed) instance.become('refused');
          await simulated.steady(50, 2_000);
          for (const instance of crashed) await simulated.leave(instance);
          const fresh = [await simulated.join(), await simulated.join()];
          for (const instance of fresh) {
            const { takes } = instance;
            instance.takes = () => {
              instance.takes = takes;
              return 300;
            };
          }
          const joined = performance.now();
          await simulated.steady(50, 8_000);
          expect(succeeded(simulated.calls)).toBe(1);
          for (const instance of fresh) {
            const share = simulated.shareOf(instance, joined + 2_000, joined + 8_000, [stays, ...fresh]);
            expect(share).toBeGreaterThan(0.6);
          }
        },
        seed,
      );
    }
  });
});

describe('a call that finds out that an instance is not well', () => {
  it.each(['refused', 'reset', 503, 500] as const)(
    'a call that finds out that an instance is not well is done with the first success on another, whatever attempts are left (%s)',
    async (kind) => {
      for (const retry of [undefined, { maxAttempts: 6 }]) {
        await withService({ instances: 2, client: retry && { retry } }, async (simulated) => {
          const [dead] = simulated.instances as [SimulatedInstance];
          dead.become(kind);
          const calls = await simulated.steady(100, 8_000);
          const probing = calls.filter(
            ({ beganAt, attempts }) => beganAt > 1_000 && attempts[0]?.instance === dead,
          );
          expect(probing.length).toBeGreaterThan(2);
          for (const { attempts } of probing)
            expect(attempts.map(({ failed }) => failed)).toEqual([true, false]);
        });
      }
    },
  );

  it.each([503, 500] as const)(
    'a call that finds out that an instance is not well is repeated on another whatever `shouldRetry` says about other failures (%s)',
    async (kind) => {
      const retry = { shouldRetry: vi.fn(() => false) };
      await withService({ instances: 2, client: { retry } }, async (simulated) => {
        const [dead] = simulated.instances as [SimulatedInstance];
        dead.become(kind);
        const calls = await simulated.steady(100, 8_000);
        const sent = calls.filter(({ attempts }) => attempts[0]?.instance === dead);
        const probing = sent.filter(({ beganAt }) => beganAt > 1_000);
        expect(probing.length).toBeGreaterThan(2);
        for (const { attempts } of probing)
          expect(attempts.map(({ failed }) => failed)).toEqual([true, false]);
        const others = sent.filter((call) => !probing.includes(call));
        expect(others.length).toBeGreaterThan(0);
        expect(others.some(({ attempts }) => attempts.length === 1)).toBe(true);
        expect(retry.shouldRetry).toHaveBeenCalled();
      });
    },
  );

  it('a call without another attempt is never used to find out whether an instance is well, so that it is not given up too soon', async () => {
    await withService({ instances: 2, client: { retry: { maxAttempts: 1 } } }, async (simulated) => {
      const [dead] = simulated.instances as [SimulatedInstance];
      dead.become(503);
      await simulated.steady(100, 1_000);
      dead.takes = () => 3_000;
      dead.become('well');
      const mended = performance.now();
      await simulated.steady(100, 6_000);
      const probes = dead.attempts.filter(({ beganAt }) => beganAt > mended);
      expect(probes.length).toBeGreaterThan(0);
      for (const { call } of probes) expect(call.error).toBeUndefined();
    });
  });
});

describe('a service whose instances are all down', () => {
  const OUTAGE = 15_000;

  describe.each([1, 2, 10])('all %d of them', (instances) => {
    it.each(['refused', 'reset', 503, 'hang'] as const)(
      'a service whose instances are all down opens its breaker, gets one probe per wait, and is fully used when it is back (%s)',
      async (kind) => {
        const client = kind === 'hang' ? { attemptTimeout: 1_000 } : {};
        await withService({ instances, client }, async (simulated) => {
          await simulated.steady(100, 3_000);
          const begun = performance.now();
          for (const instance of simulated.instances) instance.become(kind);
          const during = simulated.steady(100, OUTAGE);
          await simulated.world.sleep(OUTAGE);
          const mended = performance.now();
          for (const instance of simulated.instances) instance.become('well');
          await simulated.steady(100, 22_000);
          await during;

          const opened = simulated.breaker.find(({ to }) => to === 'open')!;
          expect(opened.at).toBeLessThan(begun + (kind === 'hang' ? 2_000 : 1_000));
          const rejected = simulated.calls.filter(
            ({ error, attempts }) => error?.code === 'ERR_CIRCUIT_OPEN' && attempts.length === 0,
          );
          expect(rejected.length).toBeGreaterThan(500);
          for (const { beganAt, endedAt } of rejected) expect(endedAt - beganAt).toBeLessThan(5);

          const waits = simulated.breaker.filter(({ to, at }) => to === 'half-open' && at < mended).length;
          const probes = simulated.instances.flatMap(({ attempts }) =>
            attempts.filter(({ beganAt }) => beganAt > opened.at && beganAt < mended),
          );
          expect(waits).toBeGreaterThan(1);
          expect(probes.length).toBeLessThanOrEqual(waits);

          const paid = 0.2 * simulated.calls.filter(({ beganAt }) => beganAt < mended).length;
          expect(simulated.retries).toBeLessThanOrEqual(100 + (10 * (mended - begun)) / 1_000 + paid);

          const first = simulated.calls.find(
            ({ beganAt, error }) => beganAt >= mended && error === undefined,
          )!;
          expect(first.beganAt).toBeLessThan(mended + 6_000);
          const after = simulated.calls.filter(({ beganAt }) => beganAt >= first.beganAt);
          expect(succeeded(after)).toBeGreaterThanOrEqual(0.99);
          for (const instance of simulated.instances) {
            // Each of ten instances gets too few calls for chance and latencies to even out.
            if (instances < 10) expectFairShare(simulated, instance, mended + 6_000);
            else expect(simulated.shareOf(instance, mended + 6_000, mended + 21_000)).toBeGreaterThan(0.5);
          }
        });
      },
    );
  });
});

describe('an instance that registers after the only one has died', () => {
  describe.each([45, 130])('by %d seconds', (seconds) => {
    it.each([
      ['is registered still', Number.POSITIVE_INFINITY],
      ['has just left', 1_000 * seconds - 500],
      ['left long ago', 15_000],
    ])(
      'an instance that registers after the only one died is called within a second, if the dead one %s',
      async (_, leavesAfter) => {
        await withService({ instances: 1 }, async (simulated) => {
          const dead = simulated.instances[0]!;
          await simulated.steady(10, 3_000);
          dead.become('refused');
          simulated.world.later(leavesAfter, () => void simulated.leave(dead));
          await simulated.steady(10, 1_000 * seconds);
          await simulated.join();
          const joined = performance.now();
          await simulated.steady(10, 5_000);
          const first = simulated.calls.find(
            ({ beganAt, error }) => beganAt >= joined && error === undefined,
          );
          expect(first?.endedAt ?? Number.POSITIVE_INFINITY).toBeLessThan(joined + 1_000);
          expect(succeeded(simulated.calls.filter(({ beganAt }) => beganAt >= first!.beganAt))).toBe(1);
        });
      },
    );
  });
});

describe('news of an instance of a service that has been down for long', () => {
  describe.each([5, 30])('with %d instances, all dead', (instances) => {
    it.each(['joins', 'restarts'])(
      'news that an instance %s has it called within a second, though its service has been down for long',
      async (news) => {
        await withService({ instances }, async (simulated) => {
          for (const instance of simulated.instances) instance.become(503);
          await simulated.steady(20, 45_000);
          const { id, host } = simulated.instances[1]!;
          if (news === 'joins') await simulated.join();
          else {
            simulated.instances[1]!.become('well');
            await simulated.discovery.register({
              serviceName: 'user-service',
              instanceId: id,
              host,
              port: 80,
            });
          }
          const calls = await simulated.steady(20, 3_000);
          const first = calls.findIndex(({ error }) => error === undefined);
          expect(first).not.toBe(-1);
          expect(first).toBeLessThan(20);
          expect(succeeded(calls.slice(first))).toBe(1);
        });
      },
    );
  });
});

describe('instances that fail a part of their calls', () => {
  it.each([20, 100])(
    'a single instance that fails half of its calls serves the other half, at %d calls a second',
    async (rate) => {
      for (const seed of SEEDS) {
        await withService(
          { instances: 1 },
          async (simulated) => {
            simulated.instances[0]!.become(failing(0.5));
            const share = succeeded(await simulated.steady(rate, 60_000));
            expect(share).toBeGreaterThan(0.45);
            expect(share).toBeLessThan(0.55);
          },
          seed,
        );
      }
    },
  );

  /** Measures when the breaker of a new client opened, and how many attempts that took. */
  function opening(instances: number, seed: number): Promise<{ at: number; attempts: number }> {
    return withService(
      { instances },
      async (simulated) => {
        for (const instance of simulated.instances) instance.become(failing(0.7));
        await simulated.steady(100, Math.max(2_000, 100 * instances));
        const at = simulated.breaker.find(({ to }) => to === 'open')?.at ?? Number.POSITIVE_INFINITY;
        const attempts = simulated.instances.flatMap((instance) =>
          instance.attempts.filter(({ beganAt }) => beganAt <= at),
        );
        return { at, attempts: attempts.length };
      },
      seed,
    );
  }

  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])(
    'all %d instances fail seven in ten of their calls, and the breaker opens within half a second',
    async (instances) => {
      const times: number[] = [];
      for (const seed of [1, 2, 3, 4, 5]) times.push((await opening(instances, seed)).at);
      expect(median(times)).toBeLessThanOrEqual(500);
    },
  );

  it.each([20, 50])(
    'all %d instances fail seven in ten of their calls, and the breaker opens within three attempts for each',
    async (instances) => {
      const counts: number[] = [];
      for (const seed of SEEDS) {
        const { at, attempts } = await opening(instances, seed);
        expect(at).toBeLessThan(Number.POSITIVE_INFINITY);
        counts.push(attempts);
      }
      expect(median(counts)).toBeLessThanOrEqual(3 * instances);
    },
  );

  it('a maxEjectionRatio of a half ejects one instance at a time if two of three fail nine in ten of their calls', async () => {
    const outlierDetection = {
      consecutiveFailures: Number.POSITIVE_INFINITY,
      successRate: false,
      failurePercentage: { threshold: 0.5, minimumInstances: 3, minimumCalls: 20 },
      interval: 1_000,
      maxEjectionRatio: 0.5,
    } as const;
    const balancer = { strategy: 'round-robin', outlierDetection } as const;
    await withService({ instances: 3, balancer }, async (simulated) => {
      const ejected = new Set<string>();
      let most = 0;
      const idOf = ({ instance }: Pick<LoadBalancerEvents['eject'][0], 'instance'>) => instance.instanceId;
      simulated.balancer.on('eject', (event) => {
        ejected.add(idOf(event));
        most = Math.max(most, ejected.size);
      });
      simulated.balancer.on('return', (event) => ejected.delete(idOf(event)));
      const [first, second] = simulated.instances;
      first!.become(failing(0.9));
      second!.become(failing(0.9));
      await simulated.steady(100, 20_000, 'POST');
      expect(most).toBe(1);
    });
  });
});

describe('instances that hang for callers with little time', () => {
  it.each([
    [1, 2],
    [2, 3],
  ])(
    '%d of %d instances that hang are known after a few calls, though the deadlines of the callers cut these off',
    async (bad, of) => {
      await withService({ instances: of, balancer: { strategy: 'round-robin' } }, async (simulated) => {
        await simulated.burst(20);
        for (const instance of simulated.instances.slice(0, bad)) instance.become('hang');
        const call = () =>
          runWithRequestContext({ requestId: 'r', deadline: performance.now() + 300 }, () =>
            simulated.call(),
          );
        const calls: Promise<Call>[] = [];
        for (let count = 0; count < 2_000; count++) {
          calls.push(call());
          await simulated.world.sleep(10);
        }
        const ended = await Promise.all(calls);
        expect(succeeded(ended.slice(0, 200))).toBeGreaterThan(0.6);
        expect(succeeded(ended.slice(200))).toBeGreaterThan(0.98);
        expect(simulated.breaker).toEqual([]);
      });
    },
  );
});
