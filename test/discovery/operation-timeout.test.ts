import { beforeEach, describe, expect, it, vi } from 'vitest';
import { withTimeout } from '../../src/discovery/operation-timeout.ts';
import { TimeoutError } from '../../src/errors.ts';
import {
  defer,
  fakeTime,
  fling,
  follow,
  listenersOn,
  pass,
  rejectionOf,
  stall,
} from '../policies/helpers.ts';

beforeEach(fakeTime);

const broken = new Error('broken');

describe('an operation with a timeout', () => {
  it('an operation with a timeout gives its result, or its error, and leaves nothing behind', async () => {
    const outer = new AbortController().signal;
    expect(await withTimeout(100, async () => 'done', outer)).toBe('done');
    expect(await rejectionOf(withTimeout(100, () => Promise.reject(broken), outer))).toBe(broken);
    expect(await rejectionOf(withTimeout(100, () => fling(broken), outer))).toBe(broken);
    expect([vi.getTimerCount(), listenersOn(outer)]).toEqual([0, 0]);
  });

  it('an operation with a timeout is aborted when the time is over', async () => {
    const operation = defer();
    let told: AbortSignal | undefined;
    const call = follow(
      withTimeout(100, (signal) => {
        told = signal;
        return operation.promise;
      }),
    );
    await pass(99);
    expect([call.outcome, told!.aborted]).toEqual([undefined, false]);
    await pass(1);
    const error = (call.outcome as { error: unknown }).error;
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({ timeout: 100 });
    expect(told!.reason).toBe(error);
    operation.reject(broken);
  });

  it('an operation with a timeout is aborted when its caller aborts', async () => {
    const outer = new AbortController();
    let told: AbortSignal | undefined;
    const call = follow(
      withTimeout(
        100,
        (signal) => {
          told = signal;
          return new Promise(() => {});
        },
        outer.signal,
      ),
    );
    outer.abort(broken);
    await pass(0);
    expect(call.outcome).toEqual({ ok: false, error: broken });
    expect(told!.reason).toBe(broken);
  });

  it('an operation with a timeout gives the result that lay unread while this process was blocked', async () => {
    const operation = defer();
    const call = follow(withTimeout(100, () => operation.promise));
    await stall(300, () => operation.resolve('read'));
    expect(call.outcome).toEqual({ ok: true, value: 'read' });
    await pass(1_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('an operation with a timeout says for how long this process was blocked, where there was nothing to read', async () => {
    const call = follow(withTimeout(100, () => new Promise(() => {})));
    await stall(300);
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT', timeout: 100, stalled: 200 } });
  });

  it('an operation with a timeout does not hold the process open', () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    void follow(withTimeout(100, () => new Promise(() => {})));
    expect(setTimeout.mock.results[0]!.value.hasRef()).toBe(false);
  });
});
