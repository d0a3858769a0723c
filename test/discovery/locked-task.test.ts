import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { LockService } from '../../src/discovery/lock-service.ts';
import { LockedTask } from '../../src/discovery/locked-task.ts';
import { defer, fakeTime, fling, flush, follow, pass } from '../policies/helpers.ts';
import { InMemoryLockService } from './health-helpers.ts';

beforeEach(fakeTime);

const interval = 1_000;
const down = new Error('locks are down');

/** A lockedTask, and what became of the task that it began. */
function lockedTaskOf(locks: LockService) {
  const began: { holdsLock: () => boolean; stop: ReturnType<typeof vi.fn<() => Promise<void>>> }[] = [];
  const failures: unknown[] = [];
  const lockedTask = new LockedTask({
    locks,
    name: 'health-check:user-service',
    interval,
    start: (holdsLock) => {
      const task = { holdsLock, stop: vi.fn(async () => {}) };
      began.push(task);
      return task;
    },
    onFailure: (error) => failures.push(error),
  });
  return {
    began,
    failures,
    get runs() {
      return began.some(({ stop }) => stop.mock.calls.length === 0);
    },
    stop: () => lockedTask.stop(),
  };
}

/** A lock service whose results a test chooses. */
function stub() {
  return {
    acquire: vi.fn(async (_name: string, _holder: string, _duration: number) => true),
    release: vi.fn(async (_name: string, _holder: string) => {}),
  };
}

describe('of several processes with one lock', () => {
  it('of several processes with one lock, one runs the task for as long as it lives', async () => {
    const locks = new InMemoryLockService();
    const [one, other] = [lockedTaskOf(locks), lockedTaskOf(locks)];
    for (let turn = 0; turn < 20; turn++) {
      await pass(interval);
      expect([one.runs, other.runs]).toEqual([true, false]);
    }
    expect(one.began).toHaveLength(1);
    expect(other.began).toHaveLength(0);
  });

  it('of several processes with one lock, another takes over at its next attempt when the first is stopped', async () => {
    const locks = new InMemoryLockService();
    const [one, other] = [lockedTaskOf(locks), lockedTaskOf(locks)];
    await pass(5 * interval);
    await one.stop();
    await pass(interval);
    expect([one.runs, other.runs]).toEqual([false, true]);
  });

  it('of several processes with one lock, another takes over within four intervals when the holder dies', async () => {
    const locks = new InMemoryLockService();
    const { acquire } = locks;
    await pass(5 * interval);
    await acquire.call(locks, 'health-check:user-service', 'one that dies', 3 * interval);
    const other = lockedTaskOf(locks);
    await pass(3 * interval - 1);
    expect(other.runs).toBe(false);
    await pass(interval);
    expect(other.runs).toBe(true);
  });

  it('of several processes with one lock, never two run the task at once, and never none for long, whoever comes and goes', async () => {
    const command = fc.record({
      do: fc.constantFrom('come', 'go', 'die'),
      at: fc.nat(3),
      wait: fc.integer({ min: 0, max: 3 * interval }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 25 }), async (commands) => {
        const locks = new InMemoryLockService();
        const there = new Map<number, { lockedTask: ReturnType<typeof lockedTaskOf>; alive: boolean }>();
        const check = () =>
          expect(
            [...there.values()].filter(({ lockedTask, alive }) => alive && lockedTask.runs).length,
          ).toBeLessThan(2);
        for (const next of commands) {
          const member = there.get(next.at);
          if (next.do === 'come' && member === undefined) {
            const member = { lockedTask: undefined as never as ReturnType<typeof lockedTaskOf>, alive: true };
            member.lockedTask = lockedTaskOf({
              acquire: (...args) => (member.alive ? locks.acquire(...args) : new Promise(() => {})),
              release: (...args) => locks.release(...args),
            });
            there.set(next.at, member);
          } else if (next.do === 'go' && member?.alive) {
            await member.lockedTask.stop();
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
        expect(alive.filter(({ lockedTask }) => lockedTask.runs)).toHaveLength(alive.length === 0 ? 0 : 1);
        vi.clearAllTimers();
      }),
      { numRuns: 50 },
    );
  });
});

describe('the lock of a task', () => {
  it('the lock of a task is acquired again after 85 to 100 % of the interval at random, and lasts three intervals', async () => {
    const random = vi.spyOn(Math, 'random');
    const locks = stub();
    random.mockReturnValueOnce(0).mockReturnValueOnce(0.999_999);
    lockedTaskOf(locks);
    expect(locks.acquire).toHaveBeenCalledExactlyOnceWith(
      'health-check:user-service',
      expect.any(String),
      3 * interval,
    );
    await pass(interval - 1);
    expect(locks.acquire).toHaveBeenCalledTimes(1);
    await pass(1);
    expect(locks.acquire).toHaveBeenCalledTimes(2);
    await pass(0.85 * interval + 1);
    expect(locks.acquire).toHaveBeenCalledTimes(3);
    expect(new Set(locks.acquire.mock.calls.map(([, holder]) => holder)).size).toBe(1);
  });

  it('two locked tasks acquire their locks under two holder names', () => {
    const locks = stub();
    lockedTaskOf(locks);
    lockedTaskOf(locks);
    const [one, other] = locks.acquire.mock.calls;
    expect(one![1]).not.toBe(other![1]);
  });

  it('a lock that is lost stops the task, and a new task starts when the lock is acquired again', async () => {
    const locks = stub();
    const lockedTask = lockedTaskOf(locks);
    await pass(interval);
    locks.acquire.mockResolvedValueOnce(false);
    await pass(interval);
    expect(lockedTask.began[0]!.stop).toHaveBeenCalledTimes(1);
    await pass(interval);
    expect(lockedTask.began).toHaveLength(2);
    expect(lockedTask.runs).toBe(true);
  });

  it('the lock of a task runs out three intervals after its attempt began, also during a long suspension', async () => {
    const locks = stub();
    const slow = defer<boolean>();
    locks.acquire.mockReturnValueOnce(slow.promise);
    const lockedTask = lockedTaskOf(locks);
    await pass(200);
    slow.resolve(true);
    await flush();
    const { holdsLock } = lockedTask.began[0]!;
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now');
    clock.mockReturnValue(now + 3 * interval - 201);
    expect(holdsLock()).toBe(true);
    clock.mockReturnValue(now + 3 * interval - 200);
    expect(holdsLock()).toBe(false);
    clock.mockRestore();
    await pass(20 * interval);
    expect(holdsLock()).toBe(true);
    expect(lockedTask.began).toHaveLength(1);
  });

  it.each([-600_000, 600_000])(
    'the lock of a task is not affected if the clock of the host jumps by %i ms',
    async (jump) => {
      const lockedTask = lockedTaskOf(new InMemoryLockService());
      await pass(interval / 2);
      vi.setSystemTime(Date.now() + jump);
      for (let turn = 0; turn < 10; turn++) {
        await pass(interval);
        expect(lockedTask.began[0]!.holdsLock()).toBe(true);
      }
      expect(lockedTask.began).toHaveLength(1);
    },
  );
});

describe('a lock service that fails', () => {
  it.each<[string, () => Promise<boolean>]>([
    ['reject', () => Promise.reject(down)],
    ['throw', () => fling(down)],
  ])('a lock service that fails leaves the task to every process while it %s', async (_how, fail) => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const locks = stub();
    locks.acquire.mockResolvedValueOnce(false).mockImplementationOnce(fail).mockResolvedValueOnce(false);
    const lockedTask = lockedTaskOf(locks);
    await pass(interval - 1);
    expect([lockedTask.runs, lockedTask.failures]).toEqual([false, []]);
    await pass(1);
    expect([lockedTask.runs, lockedTask.failures]).toEqual([true, [down]]);
    await pass(interval);
    expect([lockedTask.runs, lockedTask.failures]).toEqual([false, [down]]);
  });

  it('a lock service that does not respond leaves the task to every process after an interval', async () => {
    const locks = stub();
    locks.acquire.mockReturnValue(new Promise(() => {}));
    const lockedTask = lockedTaskOf(locks);
    await pass(interval - 1);
    expect(lockedTask.runs).toBe(false);
    await pass(1);
    expect(lockedTask.runs).toBe(true);
    expect(lockedTask.failures).toMatchObject([{ code: 'ERR_TIMEOUT', timeout: interval }]);
    await pass(20 * interval);
    expect(lockedTask.began).toHaveLength(1);
    expect(lockedTask.began[0]!.holdsLock()).toBe(true);
  });
});

describe('stopping a locked task', () => {
  it('stopping a locked task stops the task, then frees the lock, and does not acquire it again', async () => {
    const locks = stub();
    const lockedTask = lockedTaskOf(locks);
    await flush();
    const ending = defer<void>();
    lockedTask.began[0]!.stop.mockReturnValueOnce(ending.promise);
    const stopped = follow(lockedTask.stop());
    await flush();
    expect([stopped.outcome, locks.release.mock.calls]).toEqual([undefined, []]);
    ending.resolve();
    await flush();
    expect(stopped.outcome).toEqual({ ok: true, value: undefined });
    const [name, holder] = locks.acquire.mock.calls[0]!;
    expect(locks.release).toHaveBeenCalledExactlyOnceWith(name, holder);
    expect(vi.getTimerCount()).toBe(0);
    expect(locks.acquire).toHaveBeenCalledTimes(1);
  });

  it('stopping a locked task frees no lock of another holder', async () => {
    const locks = stub();
    locks.acquire.mockResolvedValue(false);
    const lockedTask = lockedTaskOf(locks);
    await pass(5 * interval);
    await lockedTask.stop();
    expect(locks.release).not.toHaveBeenCalled();
  });

  it.each([true, false])(
    'stopping a locked task waits for the attempt to acquire the lock, and frees the lock if it succeeds: %s',
    async (granted) => {
      const locks = stub();
      const slow = defer<boolean>();
      locks.acquire.mockReturnValueOnce(slow.promise);
      const lockedTask = lockedTaskOf(locks);
      const stopped = follow(lockedTask.stop());
      await flush();
      expect(stopped.outcome).toBeUndefined();
      slow.resolve(granted);
      await flush();
      expect(stopped.outcome?.ok).toBe(true);
      expect(lockedTask.began).toEqual([]);
      expect(locks.release).toHaveBeenCalledTimes(granted ? 1 : 0);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('stopping a locked task waits for every task that was stopped when its lock was lost', async () => {
    const locks = stub();
    locks.acquire.mockResolvedValueOnce(true).mockResolvedValueOnce(false);
    locks.acquire.mockResolvedValueOnce(true).mockResolvedValueOnce(false);
    const lockedTask = lockedTaskOf(locks);
    await flush();
    const ending = defer<void>();
    lockedTask.began[0]!.stop.mockReturnValueOnce(ending.promise);
    await pass(3 * interval);
    expect(lockedTask.began.map(({ stop }) => stop.mock.calls.length)).toEqual([1, 1]);
    const stopped = follow(lockedTask.stop());
    await flush();
    expect(stopped.outcome).toBeUndefined();
    ending.resolve();
    await flush();
    expect(stopped.outcome?.ok).toBe(true);
  });

  it('stopping a locked task succeeds though the lock cannot be freed, and reports the failure', async () => {
    const locks = stub();
    locks.release.mockRejectedValueOnce(down);
    const lockedTask = lockedTaskOf(locks);
    await lockedTask.stop();
    expect(lockedTask.failures).toEqual([down]);
    locks.release.mockReturnValueOnce(new Promise(() => {}));
    const other = lockedTaskOf(locks);
    const stopped = follow(other.stop());
    await pass(4_999);
    expect(stopped.outcome).toBeUndefined();
    await pass(1);
    expect(stopped.outcome?.ok).toBe(true);
    expect(other.failures).toMatchObject([{ code: 'ERR_TIMEOUT' }]);
  });
});

it('a locked task does not hold the process open', async () => {
  const setTimeout = vi.spyOn(globalThis, 'setTimeout');
  lockedTaskOf(new InMemoryLockService());
  await pass(3 * interval);
  expect(setTimeout.mock.results.length).toBeGreaterThan(5);
  for (const { value } of setTimeout.mock.results) expect(value.hasRef()).toBe(false);
});
