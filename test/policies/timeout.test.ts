import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { DeadlineExceededError, TimeoutError } from '../../src/errors.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  countTimers,
  type Deferred,
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

const never = () => new Promise<never>(() => {});

beforeEach(fakeTime);

describe('a call within its time', () => {
  it('a call within the time of a Timeout ends as its operation does', async () => {
    const timeout = new Timeout(100);
    const value = {};
    const error = new TypeError('broken');
    expect(await timeout.execute(() => value)).toBe(value);
    expect(await timeout.execute(async () => value)).toBe(value);
    expect(await rejectionOf(timeout.execute(() => Promise.reject(error)))).toBe(error);
    expect(await rejectionOf(timeout.execute(() => fling(error)))).toBe(error);
  });

  it('a call within the time of a Timeout may take until just before its time is over', async () => {
    const operation = defer();
    const call = follow(new Timeout(100).execute(() => operation.promise));
    await pass(99);
    operation.resolve('in time');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'in time' });
    await pass(1_000);
  });

  it('a call within the time of a Timeout is told its deadline', async () => {
    const now = performance.now();
    expect(await new Timeout(100).execute(({ deadline }) => deadline - now)).toBe(100);
  });

  it('a call within the time of a Timeout has a signal that is never aborted afterwards', async () => {
    const { signal } = await new Timeout(100).execute((context) => ({ signal: context.signal }));
    await pass(1_000);
    expect(signal.aborted).toBe(false);
  });

  it('a call within the time of a Timeout makes no AbortSignal unless the operation asks for it', async () => {
    const made = vi.spyOn(globalThis, 'AbortController');
    const timeout = compose(new Timeout(100), new Timeout(50));
    const call = follow(timeout.execute(never));
    await timeout.execute(() => 'fine');
    await pass(100);
    expect(call.outcome?.ok).toBe(false);
    expect(made).not.toHaveBeenCalled();
    await timeout.execute(({ signal }) => signal);
    expect(made).toHaveBeenCalledTimes(1);
  });

  it('a call within the time of a Timeout gives the same signal each time it is asked', async () => {
    await new Timeout(100).execute((context) => {
      expect(context.signal).toBe(context.signal);
    });
  });
});

describe('a call that takes too long', () => {
  it('a call that takes too long for a Timeout is given up on time, though its operation ignores the signal', async () => {
    const call = follow(new Timeout(100).execute(never));
    await pass(99);
    expect(call.outcome).toBeUndefined();
    await pass(1);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT', timeout: 100 } });
    expect((call.outcome as { error: unknown }).error).toBeInstanceOf(TimeoutError);
    expect((call.outcome as { error: unknown }).error).not.toBeInstanceOf(DeadlineExceededError);
  });

  it('a call that takes too long for a Timeout aborts the signal of its operation with the very error that the caller gets', async () => {
    let context!: CallContext;
    const call = follow(
      new Timeout(100).execute((given) => {
        context = given;
        expect(given.signal.aborted).toBe(false);
        return never();
      }),
    );
    await pass(100);
    expect(context.signal.aborted).toBe(true);
    expect(context.signal.reason).toBe((call.outcome as { error: unknown }).error);
  });

  it('a call that takes too long for a Timeout has an aborted signal too if the operation asks for it only afterwards', async () => {
    let context!: CallContext;
    const call = follow(
      new Timeout(100).execute((given) => {
        context = given;
        return never();
      }),
    );
    await pass(100);
    expect(context.signal.reason).toBe((call.outcome as { error: unknown }).error);
  });

  it.each(['resolve', 'reject'] as const)(
    'a call that takes too long for a Timeout does not care when its operation %ss late',
    async (end) => {
      const operation = defer();
      const call = follow(new Timeout(100).execute(() => operation.promise));
      await pass(100);
      operation[end](new Error('late'));
      await flush();
      expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    },
  );

  it('a call that takes too long for a Timeout is given up by the tighter of nested timeouts, whichever is outside', async () => {
    for (const service of [
      compose(new Timeout(50), new Timeout(100)),
      compose(new Timeout(100), new Timeout(50)),
    ]) {
      const startedAt = performance.now();
      let deadline = 0;
      const call = follow(
        service.execute((context) => {
          deadline = context.deadline;
          return never();
        }),
      );
      await pass(50);
      expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT', timeout: 50 } });
      expect(deadline).toBe(startedAt + 50);
      await pass(100);
    }
  });

  it('a call that takes too long for a Timeout may start another call of the same Timeout from its abort listener', async () => {
    const timeout = new Timeout(100);
    let second: ReturnType<typeof follow> | undefined;
    follow(
      timeout.execute(({ signal }) => {
        signal.addEventListener('abort', () => {
          second = follow(timeout.execute(never));
        });
        return never();
      }),
    );
    await pass(30);
    follow(timeout.execute(never));
    await pass(70);
    expect(vi.getTimerCount()).toBe(1);
    await pass(99);
    expect(second!.outcome).toBeUndefined();
    await pass(1);
    expect(second!.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a deadline that the caller gives', () => {
  it('a deadline that the caller gives ends the call with a DeadlineExceededError if it is tighter', async () => {
    let context!: CallContext;
    const deadline = performance.now() + 40;
    const call = follow(
      new Timeout(100).execute(
        (given) => {
          context = given;
          return never();
        },
        { deadline },
      ),
    );
    expect(context.deadline).toBe(deadline);
    await pass(39);
    expect(call.outcome).toBeUndefined();
    await pass(1);
    const { error } = call.outcome as { error: unknown };
    expect(error).toBeInstanceOf(DeadlineExceededError);
    expect(error).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', timeout: 40 });
    expect(context.signal.reason).toBe(error);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a deadline that the caller gives changes nothing if it is looser', async () => {
    const call = follow(new Timeout(100).execute(never, { deadline: performance.now() + 500 }));
    await pass(100);
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
  });

  it.each([0, -1, -1_000])(
    'a call whose deadline passed %i ms from now never runs the operation',
    async (left) => {
      const operation = vi.fn();
      const call = new Timeout(100).execute(operation, { deadline: performance.now() + left });
      expect(await rejectionOf(call)).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', timeout: 0 });
      expect(operation).not.toHaveBeenCalled();
    },
  );

  it('a deadline that the caller gives leaves no timer when the call ends before, however it ends', async () => {
    const timeout = new Timeout(100);
    const deadline = performance.now() + 50;
    await timeout.execute(() => 'fine', { deadline });
    await rejectionOf(timeout.execute(() => fling(new Error('down')), { deadline }));
    const controller = new AbortController();
    const cancelled = follow(timeout.execute(never, { deadline, signal: controller.signal }));
    controller.abort();
    await flush();
    expect(cancelled.outcome?.ok).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a deadline that the caller gives does not care when the operation rejects after it', async () => {
    const operation = defer();
    const call = follow(
      new Timeout(100).execute(() => operation.promise, { deadline: performance.now() + 50 }),
    );
    await pass(50);
    operation.reject(new Error('late'));
    await flush();
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_DEADLINE_EXCEEDED' } });
  });
});

describe('a caller that cancels', () => {
  it('a caller that cancels a call through a Timeout is released at once with its reason, and the operation is told', async () => {
    const controller = new AbortController();
    const reason = new Error('user left');
    let context!: CallContext;
    const call = follow(
      compose(new Timeout(100), new Timeout(50)).execute(
        (given) => {
          context = given;
          return never();
        },
        { signal: controller.signal },
      ),
    );
    controller.abort(reason);
    await flush();
    expect((call.outcome as { error: unknown }).error).toBe(reason);
    expect(context.signal.reason).toBe(reason);
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a caller that cancels a call through a Timeout before the call never runs the operation', async () => {
    const operation = vi.fn();
    const reason = new Error('user left');
    expect(
      await rejectionOf(new Timeout(100).execute(operation, { signal: AbortSignal.abort(reason) })),
    ).toBe(reason);
    expect(operation).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a caller that cancels a call through a Timeout after the call has ended changes nothing', async () => {
    const controller = new AbortController();
    let context!: CallContext;
    await new Timeout(100).execute(
      (given) => {
        context = given;
      },
      { signal: controller.signal },
    );
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort();
    expect(context.signal.aborted).toBe(false);
  });
});

describe('a timeout that is not strict', () => {
  const timeout = () => new Timeout(1_000, { strict: false });

  it('a timeout that is not strict tells the operation and waits for it, so that its clean-up is done when the call is over', async () => {
    const cleanUp = defer();
    const operation = ({ signal }: CallContext) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => cleanUp.promise.then(() => reject(signal.reason)));
      });
    const call = follow(timeout().execute(operation));
    await pass(1_000);
    expect(call.outcome).toBeUndefined();
    cleanUp.resolve(undefined);
    await flush();
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
  });

  it('a timeout that is not strict gives what the operation ends with in time, as ever', async () => {
    await expect(timeout().execute(() => 'fine')).resolves.toBe('fine');
    const error = new Error('its own');
    await expect(timeout().execute(() => Promise.reject(error))).rejects.toBe(error);
  });

  it('a timeout that is not strict tells the operation of a caller that cancels', async () => {
    const controller = new AbortController();
    const operation = ({ signal }: CallContext) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    const call = follow(timeout().execute(operation, { signal: controller.signal }));
    controller.abort('enough');
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: 'enough' });
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a timeout that is not strict is told by a boolean', () => {
    expect(() => new Timeout(5, { strict: 'no' as never })).toThrow(/'strict' must be true or false/);
  });
});

describe('the events of a timeout', () => {
  it('a timeout emits each call that ran out of time, after its caller was released, and no other', async () => {
    const timeout = new Timeout(1_000);
    const told: unknown[] = [];
    timeout.on('timeout', (event) => told.push(event));
    await timeout.execute(() => 'in time');
    const attributes = { service: 'users' };
    const call = follow(timeout.execute(() => new Promise(() => {}), { attributes }));
    await pass(1_000);
    expect(call.outcome).toMatchObject({ ok: false });
    expect(told).toEqual([{ error: new TimeoutError('timed out after 1000 ms', 1_000), attributes }]);
  });

  it.each([500, 0])('a timeout emits a deadline that came with the call, %i ms away', async (left) => {
    const timeout = new Timeout(1_000);
    const told = vi.fn();
    timeout.on('timeout', told);
    const deadline = performance.now() + left;
    const call = follow(timeout.execute(() => new Promise(() => {}), { deadline }));
    await pass(left);
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_DEADLINE_EXCEEDED' } });
    expect(told).toHaveBeenCalledExactlyOnceWith({
      error: expect.any(DeadlineExceededError),
      attributes: {},
    });
  });
});

describe('a timeout, while this process is blocked for longer than a call is given,', () => {
  const deadlineIn = (milliseconds: number) => ({ deadline: performance.now() + milliseconds });

  it.each(['of its own', 'that came with the call'])(
    'a timeout in a process that is blocked lets a call end with a response that lay unread, under a time %s',
    async (whose) => {
      const operation = defer();
      let context!: CallContext;
      const timeout = new Timeout(whose === 'of its own' ? 100 : 1_000);
      const told = vi.fn();
      timeout.on('timeout', told);
      const call = follow(
        timeout.execute(
          (given) => {
            context = given;
            return operation.promise;
          },
          whose === 'of its own' ? {} : deadlineIn(100),
        ),
      );
      await stall(300, () => operation.resolve('read'));
      expect(call.outcome).toEqual({ ok: true, value: 'read' });
      expect(context.signal.aborted).toBe(false);
      await pass(1_000);
      expect(told).not.toHaveBeenCalled();
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('a timeout in a process that is blocked ends a call without a response, and its error says for how long it was blocked', async () => {
    const call = follow(new Timeout(100).execute(never));
    await stall(300);
    expect(call.outcome).toMatchObject({
      error: {
        code: 'ERR_TIMEOUT',
        timeout: 100,
        stalled: 200,
        message: 'timed out after 100 ms; the event loop of this process was blocked for at least 200 ms',
      },
    });
  });

  it('a timeout in a process that is blocked tells of the stall in the error of a deadline that came with the call, too', async () => {
    const call = follow(new Timeout(1_000).execute(never, deadlineIn(100)));
    await stall(300);
    expect(call.outcome).toMatchObject({
      error: { code: 'ERR_DEADLINE_EXCEEDED', timeout: 100, stalled: 200 },
    });
  });

  it('a timeout in a process that is blocked says nothing of the stall in the error of a call that began later', async () => {
    const timeout = new Timeout(100);
    follow(timeout.execute(never));
    let later: ReturnType<typeof follow> | undefined;
    await stall(300, () => {
      later = follow(timeout.execute(never));
    });
    await pass(99);
    expect(later!.outcome).toBeUndefined();
    await pass(1);
    expect(later!.outcome).toMatchObject({ error: { stalled: 0, message: 'timed out after 100 ms' } });
  });

  it('a timeout in a process that is blocked tells of the stall in the error of a call that it fell into, though its time was over only afterwards', async () => {
    const timeout = new Timeout(100);
    follow(timeout.execute(never));
    await pass(60);
    const call = follow(timeout.execute(never));
    await stall(80);
    expect(call.outcome).toBeUndefined();
    await pass(20);
    expect(call.outcome).toMatchObject({ error: { stalled: 40 } });
  });

  it('a timeout in a process that is blocked cancels a call while what has come is read, if its caller says so', async () => {
    const controller = new AbortController();
    const timeout = new Timeout(100);
    const told = vi.fn();
    timeout.on('timeout', told);
    const call = follow(timeout.execute(never, controller));
    await stall(300, () => controller.abort('enough'));
    expect(call.outcome).toEqual({ ok: false, error: 'enough' });
    expect(told).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('many calls at once', () => {
  it('ten thousand calls through a Timeout share one timer', async () => {
    const timeout = new Timeout(100);
    const calls = Array.from({ length: 10_000 }, () => follow(timeout.execute(never)));
    expect(vi.getTimerCount()).toBe(1);
    await pass(100);
    expect(calls.every((call) => call.outcome?.ok === false)).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('ten thousand calls one after another through a Timeout make one timer', async () => {
    vi.useRealTimers();
    const timers = countTimers();
    const timeout = new Timeout(60_000);
    for (let i = 0; i < 10_000; i++) await timeout.execute(() => i);
    expect(timers.stop()).toBe(1);
  });

  it('each of many calls through a Timeout ends exactly at its own end or its own time', async () => {
    const call = fc.record({
      start: fc.integer({ min: 0, max: 300 }),
      takes: fc.integer({ min: 1, max: 200 }),
      fails: fc.boolean(),
      deadline: fc.option(fc.integer({ min: 1, max: 150 })),
      cancelled: fc.option(fc.integer({ min: 1, max: 150 })),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 120 }),
        fc.array(call, { minLength: 1, maxLength: 15 }),
        async (duration, calls) => {
          const timeout = new Timeout(duration);
          const origin = performance.now();
          const ended: { at: number; how: string }[] = [];
          const operations: Deferred<unknown>[] = [];
          const note = (index: number, how: string) => {
            ended[index] = { at: performance.now() - origin, how };
          };
          calls.forEach(({ start, takes, fails, deadline, cancelled }, index) => {
            const operation = defer();
            operations.push(operation);
            const controller = new AbortController();
            setTimeout(() => {
              timeout
                .execute(
                  () => {
                    setTimeout(
                      () => (fails ? operation.reject(new Error('failed')) : operation.resolve(0)),
                      takes,
                    );
                    return operation.promise;
                  },
                  {
                    signal: controller.signal,
                    deadline: deadline === null ? undefined : performance.now() + deadline,
                  },
                )
                .then(
                  () => note(index, 'value'),
                  (error: Error) => note(index, error.name),
                );
              if (cancelled !== null) setTimeout(() => controller.abort(), cancelled);
            }, start);
          });
          await vi.runAllTimersAsync();
          calls.forEach(({ start, takes, deadline, cancelled }, index) => {
            const until = Math.min(takes, duration, deadline ?? Infinity, cancelled ?? Infinity);
            expect(ended[index]!.at).toBe(start + until);
            // At a tie either is right.
            const { how } = ended[index]!;
            if (how === 'TimeoutError') expect(until).toBe(duration);
            else if (how === 'DeadlineExceededError') expect(until).toBe(deadline);
            else if (how === 'AbortError') expect(until).toBe(cancelled);
            else expect(until).toBe(takes);
          });
          expect(vi.getTimerCount()).toBe(0);
        },
      ),
      { numRuns: 150 },
    );
  });
});

it.each([0, -1, Number.NaN, Infinity, 2 ** 31, '1s', undefined, null])(
  'a Timeout rejects a duration of %s',
  (duration) => {
    expect(() => new Timeout(duration as number)).toThrow(/duration/);
  },
);
