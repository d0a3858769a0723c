import { beforeEach, expect, it, vi } from 'vitest';
import { toContext } from '../../src/policies/context.ts';
import { WaitQueue } from '../../src/policies/wait-queue.ts';
import { fakeTime, flush, follow, listenersOn, pass, stall } from './helpers.ts';

beforeEach(fakeTime);

function wait(
  queue: WaitQueue,
  { maxWait = Infinity, signal }: { maxWait?: number; signal?: AbortSignal } = {},
) {
  return follow(queue.wait(toContext({ signal }), maxWait));
}

const admitted = { ok: true, value: true };
const timedOut = { ok: true, value: false };

it('calls in a wait queue get their turns first come first served, one at a time', async () => {
  const queue = new WaitQueue();
  const calls = Array.from({ length: 3 }, () => wait(queue));
  for (let turn = 1; turn <= 3; turn++) {
    expect(queue.length).toBe(4 - turn);
    expect(queue.admit()).toBe(true);
    await flush();
    expect(calls.filter(({ outcome }) => outcome !== undefined)).toEqual(calls.slice(0, turn));
    expect(calls[turn - 1]!.outcome).toEqual(admitted);
  }
  expect(queue.length).toBe(0);
});

it('a wait queue keeps no turn for a call that comes later', async () => {
  const queue = new WaitQueue();
  expect(queue.admit()).toBe(false);
  const call = wait(queue);
  await flush();
  expect(call.outcome).toBeUndefined();
  expect(queue.length).toBe(1);
});

it('a call that waits too long leaves its wait queue alone, and holds no place', async () => {
  const queue = new WaitQueue();
  const [first, second, third] = [wait(queue), wait(queue, { maxWait: 100 }), wait(queue)];
  await pass(99);
  expect(queue.length).toBe(3);
  await pass(1);
  expect(second.outcome).toEqual(timedOut);
  expect(queue.length).toBe(2);
  queue.admit();
  queue.admit();
  await flush();
  expect([first.outcome, third.outcome]).toEqual([admitted, admitted]);
  expect(queue.admit()).toBe(false);
});

it('a call that is aborted leaves its wait queue with the reason, alone, and holds no place', async () => {
  const queue = new WaitQueue();
  const controller = new AbortController();
  const calls = [wait(queue), wait(queue, { maxWait: 100, signal: controller.signal }), wait(queue)];
  controller.abort('not needed');
  await flush();
  expect(calls.map(({ outcome }) => outcome)).toEqual([
    undefined,
    { ok: false, error: 'not needed' },
    undefined,
  ]);
  expect(queue.length).toBe(2);
  expect(vi.getTimerCount()).toBe(0);
});

it('all calls of a wait queue that share a signal are aborted with it', async () => {
  const queue = new WaitQueue();
  const controller = new AbortController();
  const calls = Array.from({ length: 3 }, () => wait(queue, controller));
  const other = wait(queue);
  controller.abort('gone');
  await flush();
  for (const { outcome } of calls) expect(outcome).toEqual({ ok: false, error: 'gone' });
  expect(queue.length).toBe(1);
  queue.admit();
  await flush();
  expect(other.outcome).toEqual(admitted);
});

it.each(['a turn', 'the end of its maxWait'])(
  'a wait queue leaves neither timer nor listener after %s, and an abort changes nothing',
  async (end) => {
    const queue = new WaitQueue();
    const controller = new AbortController();
    const call = wait(queue, { maxWait: 100, signal: controller.signal });
    expect([vi.getTimerCount(), listenersOn(controller.signal)]).toEqual([1, 1]);
    if (end === 'a turn') queue.admit();
    else await pass(100);
    expect([vi.getTimerCount(), listenersOn(controller.signal)]).toEqual([0, 0]);
    controller.abort(new Error('too late'));
    await flush();
    expect(call.outcome).toEqual(end === 'a turn' ? admitted : timedOut);
    expect(queue.length).toBe(0);
  },
);

it.each([Infinity, 2 ** 31])(
  'a longest wait of %d ms is longer than any timer, and has none',
  async (maxWait) => {
    const queue = new WaitQueue();
    const call = wait(queue, { maxWait });
    await pass(60_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(call.outcome).toBeUndefined();
    queue.admit();
    await flush();
    expect(call.outcome).toEqual(admitted);
  },
);

it('the last call of a wait queue can be turned away with a reason, alone, and holds no place', async () => {
  const queue = new WaitQueue();
  const { signal } = new AbortController();
  const [first, second, last] = [wait(queue), wait(queue), wait(queue, { maxWait: 100, signal })];
  queue.dismissLast('no room');
  await flush();
  expect([first.outcome, second.outcome, last.outcome]).toEqual([
    undefined,
    undefined,
    { ok: false, error: 'no room' },
  ]);
  expect([queue.length, vi.getTimerCount(), listenersOn(signal)]).toEqual([2, 0, 0]);
  queue.dismissLast('no room');
  queue.admit();
  await flush();
  expect([first.outcome, second.outcome]).toEqual([admitted, { ok: false, error: 'no room' }]);
  queue.dismissLast('nobody is there');
  expect(queue.length).toBe(0);
});

it('a call does not leave a wait queue while the end of another that makes room lies unread', async () => {
  const queue = new WaitQueue();
  const [first, second] = [wait(queue, { maxWait: 100 }), wait(queue, { maxWait: 100 })];
  await stall(300, () => queue.admit());
  expect([first.outcome, second.outcome]).toEqual([admitted, timedOut]);
  expect([queue.length, vi.getTimerCount()]).toEqual([0, 0]);
});
