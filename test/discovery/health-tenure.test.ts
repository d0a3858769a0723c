import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { HealthTenure } from '../../src/discovery/health-tenure.ts';
import type { Leases } from '../../src/discovery/leases.ts';
import { defer, fakeTime, fling, flush, follow, pass } from '../policies/helpers.ts';
import { InMemoryLeases } from './health-helpers.ts';

beforeEach(fakeTime);

const interval = 1_000;
const down = new Error('leases are down');

/** A tenure, and what became of the work that it began. */
function tenureOf(leases: Leases) {
  const began: { holds: () => boolean; stop: ReturnType<typeof vi.fn<() => Promise<void>>> }[] = [];
  const failures: unknown[] = [];
  const tenure = new HealthTenure({
    leases,
    name: 'health-check:user-service',
    interval,
    begin: (holds) => {
      const work = { holds, stop: vi.fn(async () => {}) };
      began.push(work);
      return work;
    },
    onFailure: (error) => failures.push(error),
  });
  return {
    began,
    failures,
    get works() {
      return began.some(({ stop }) => stop.mock.calls.length === 0);
    },
    stop: () => tenure.stop(),
  };
}

/** Leases whose answers a test chooses. */
function stub() {
  return {
    acquire: vi.fn(async (_name: string, _holder: string, _duration: number) => true),
    release: vi.fn(async (_name: string, _holder: string) => {}),
  };
}

describe('of several that may do some work', () => {
  it('one does it, for as long as it lives', async () => {
    const leases = new InMemoryLeases();
    const [one, other] = [tenureOf(leases), tenureOf(leases)];
    for (let turn = 0; turn < 20; turn++) {
      await pass(interval);
      expect([one.works, other.works]).toEqual([true, false]);
    }
    expect(one.began).toHaveLength(1);
    expect(other.began).toHaveLength(0);
  });

  it('another takes over at its next try when it is stopped', async () => {
    const leases = new InMemoryLeases();
    const [one, other] = [tenureOf(leases), tenureOf(leases)];
    await pass(5 * interval);
    await one.stop();
    await pass(interval);
    expect([one.works, other.works]).toEqual([false, true]);
  });

  it('another takes over within four intervals when it dies with the lease', async () => {
    const leases = new InMemoryLeases();
    const { acquire } = leases;
    await pass(5 * interval);
    await acquire.call(leases, 'health-check:user-service', 'one that dies', 3 * interval);
    const other = tenureOf(leases);
    await pass(3 * interval - 1);
    expect(other.works).toBe(false);
    await pass(interval);
    expect(other.works).toBe(true);
  });

  it('never two do it at once, and never none for long, whoever comes and goes', async () => {
    const command = fc.record({
      do: fc.constantFrom('come', 'go', 'die'),
      at: fc.nat(3),
      wait: fc.integer({ min: 0, max: 3 * interval }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 25 }), async (commands) => {
        const leases = new InMemoryLeases();
        const there = new Map<number, { tenure: ReturnType<typeof tenureOf>; alive: boolean }>();
        const check = () =>
          expect(
            [...there.values()].filter(({ tenure, alive }) => alive && tenure.works).length,
          ).toBeLessThan(2);
        for (const next of commands) {
          const member = there.get(next.at);
          if (next.do === 'come' && member === undefined) {
            const member = { tenure: undefined as never as ReturnType<typeof tenureOf>, alive: true };
            member.tenure = tenureOf({
              acquire: (...args) => (member.alive ? leases.acquire(...args) : new Promise(() => {})),
              release: (...args) => leases.release(...args),
            });
            there.set(next.at, member);
          } else if (next.do === 'go' && member?.alive) {
            await member.tenure.stop();
            there.delete(next.at);
          } else if (next.do === 'die' && member?.alive) {
            member.alive = false;
          }
          await flush();
          check();
          await pass(next.wait);
          check();
        }
        await pass(4 * interval);
        const alive = [...there.values()].filter((member) => member.alive);
        expect(alive.filter(({ tenure }) => tenure.works)).toHaveLength(alive.length === 0 ? 0 : 1);
        vi.clearAllTimers();
      }),
      { numRuns: 50 },
    );
  });
});

describe('the lease', () => {
  it('is asked for at random between 85 and 100 % of the interval, and lasts three intervals', async () => {
    const random = vi.spyOn(Math, 'random');
    const leases = stub();
    random.mockReturnValueOnce(0).mockReturnValueOnce(0.999_999);
    tenureOf(leases);
    expect(leases.acquire).toHaveBeenCalledExactlyOnceWith(
      'health-check:user-service',
      expect.any(String),
      3 * interval,
    );
    await pass(interval - 1);
    expect(leases.acquire).toHaveBeenCalledTimes(1);
    await pass(1);
    expect(leases.acquire).toHaveBeenCalledTimes(2);
    await pass(0.85 * interval + 1);
    expect(leases.acquire).toHaveBeenCalledTimes(3);
    expect(new Set(leases.acquire.mock.calls.map(([, holder]) => holder)).size).toBe(1);
  });

  it('of two is asked for under two names', () => {
    const leases = stub();
    tenureOf(leases);
    tenureOf(leases);
    const [one, other] = leases.acquire.mock.calls;
    expect(one![1]).not.toBe(other![1]);
  });

  it('that was lost ends the work, and begins other work when it is there again', async () => {
    const leases = stub();
    const tenure = tenureOf(leases);
    await pass(interval);
    leases.acquire.mockResolvedValueOnce(false);
    await pass(interval);
    expect(tenure.began[0]!.stop).toHaveBeenCalledTimes(1);
    await pass(interval);
    expect(tenure.began).toHaveLength(2);
    expect(tenure.works).toBe(true);
  });

  it('holds until three intervals after it was asked for: not any more after a long suspension', async () => {
    const leases = stub();
    const slow = defer<boolean>();
    leases.acquire.mockReturnValueOnce(slow.promise);
    const tenure = tenureOf(leases);
    await pass(200);
    slow.resolve(true);
    await flush();
    const { holds } = tenure.began[0]!;
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now');
    clock.mockReturnValue(now + 3 * interval - 201);
    expect(holds()).toBe(true);
    clock.mockReturnValue(now + 3 * interval - 200);
    expect(holds()).toBe(false);
    clock.mockRestore();
    await pass(20 * interval);
    expect(holds()).toBe(true);
    expect(tenure.began).toHaveLength(1);
  });

  it.each([-600_000, 600_000])('is not affected if the clock of the host jumps by %i ms', async (jump) => {
    const tenure = tenureOf(new InMemoryLeases());
    await pass(interval / 2);
    vi.setSystemTime(Date.now() + jump);
    for (let turn = 0; turn < 10; turn++) {
      await pass(interval);
      expect(tenure.began[0]!.holds()).toBe(true);
    }
    expect(tenure.began).toHaveLength(1);
  });
});

describe('leases that fail', () => {
  it.each<[string, () => Promise<boolean>]>([
    ['reject', () => Promise.reject(down)],
    ['throw', () => fling(down)],
  ])('leave the work to everyone while they %s', async (_how, fail) => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const leases = stub();
    leases.acquire.mockResolvedValueOnce(false).mockImplementationOnce(fail).mockResolvedValueOnce(false);
    const tenure = tenureOf(leases);
    await pass(interval - 1);
    expect([tenure.works, tenure.failures]).toEqual([false, []]);
    await pass(1);
    expect([tenure.works, tenure.failures]).toEqual([true, [down]]);
    await pass(interval);
    expect([tenure.works, tenure.failures]).toEqual([false, [down]]);
  });

  it('by not answering leave it to everyone after an interval', async () => {
    const leases = stub();
    leases.acquire.mockReturnValue(new Promise(() => {}));
    const tenure = tenureOf(leases);
    await pass(interval - 1);
    expect(tenure.works).toBe(false);
    await pass(1);
    expect(tenure.works).toBe(true);
    expect(tenure.failures).toMatchObject([{ code: 'ERR_TIMEOUT', timeout: interval }]);
    await pass(20 * interval);
    expect(tenure.began).toHaveLength(1);
    expect(tenure.began[0]!.holds()).toBe(true);
  });
});

describe('stopping', () => {
  it('ends the work, then frees the lease, and asks for it no more', async () => {
    const leases = stub();
    const tenure = tenureOf(leases);
    await flush();
    const ending = defer<void>();
    tenure.began[0]!.stop.mockReturnValueOnce(ending.promise);
    const stopped = follow(tenure.stop());
    await flush();
    expect([stopped.outcome, leases.release.mock.calls]).toEqual([undefined, []]);
    ending.resolve();
    await flush();
    expect(stopped.outcome).toEqual({ ok: true, value: undefined });
    const [name, holder] = leases.acquire.mock.calls[0]!;
    expect(leases.release).toHaveBeenCalledExactlyOnceWith(name, holder);
    expect(vi.getTimerCount()).toBe(0);
    expect(leases.acquire).toHaveBeenCalledTimes(1);
  });

  it('frees no lease of another', async () => {
    const leases = stub();
    leases.acquire.mockResolvedValue(false);
    const tenure = tenureOf(leases);
    await pass(5 * interval);
    await tenure.stop();
    expect(leases.release).not.toHaveBeenCalled();
  });

  it.each([true, false])(
    'waits for the lease that is being asked for, and frees it if it gets it: %s',
    async (granted) => {
      const leases = stub();
      const slow = defer<boolean>();
      leases.acquire.mockReturnValueOnce(slow.promise);
      const tenure = tenureOf(leases);
      const stopped = follow(tenure.stop());
      await flush();
      expect(stopped.outcome).toBeUndefined();
      slow.resolve(granted);
      await flush();
      expect(stopped.outcome?.ok).toBe(true);
      expect(tenure.began).toEqual([]);
      expect(leases.release).toHaveBeenCalledTimes(granted ? 1 : 0);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('waits for all the work that ended with a lost lease', async () => {
    const leases = stub();
    leases.acquire.mockResolvedValueOnce(true).mockResolvedValueOnce(false);
    leases.acquire.mockResolvedValueOnce(true).mockResolvedValueOnce(false);
    const tenure = tenureOf(leases);
    await flush();
    const ending = defer<void>();
    tenure.began[0]!.stop.mockReturnValueOnce(ending.promise);
    await pass(3 * interval);
    expect(tenure.began.map(({ stop }) => stop.mock.calls.length)).toEqual([1, 1]);
    const stopped = follow(tenure.stop());
    await flush();
    expect(stopped.outcome).toBeUndefined();
    ending.resolve();
    await flush();
    expect(stopped.outcome?.ok).toBe(true);
  });

  it('succeeds though the lease cannot be freed, and tells of it', async () => {
    const leases = stub();
    leases.release.mockRejectedValueOnce(down);
    const tenure = tenureOf(leases);
    await tenure.stop();
    expect(tenure.failures).toEqual([down]);
    leases.release.mockReturnValueOnce(new Promise(() => {}));
    const other = tenureOf(leases);
    const stopped = follow(other.stop());
    await pass(4_999);
    expect(stopped.outcome).toBeUndefined();
    await pass(1);
    expect(stopped.outcome?.ok).toBe(true);
    expect(other.failures).toMatchObject([{ code: 'ERR_TIMEOUT' }]);
  });
});

it('no timer holds the process', async () => {
  const setTimeout = vi.spyOn(globalThis, 'setTimeout');
  tenureOf(new InMemoryLeases());
  await pass(3 * interval);
  expect(setTimeout.mock.results.length).toBeGreaterThan(5);
  for (const { value } of setTimeout.mock.results) expect(value.hasRef()).toBe(false);
});
