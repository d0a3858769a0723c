import { beforeEach, expect, it, vi } from 'vitest';
import { StallAwareTimer, whenRead } from '../../src/internal/event-loop-stall.ts';
import { fakeTime, pass, stall } from '../policies/helpers.ts';

beforeEach(fakeTime);

it('a timer that fires on time calls back at once, and knows of no stall', async () => {
  const ended = vi.fn();
  const startedAt = performance.now();
  const timer = new StallAwareTimer(ended);
  timer.start(100);
  await pass(100);
  expect(ended).toHaveBeenCalledExactlyOnceWith(startedAt + 100);
  expect(timer.stalledSince(startedAt, 100)).toBe(0);
});

it.each([
  [102, false],
  [103, true],
])('a timer of 100 ms that fires after %d ms lets the event loop read first: %s', async (after, reads) => {
  const order: string[] = [];
  new StallAwareTimer(() => order.push('ended')).start(100);
  await stall(after, () => order.push('read'));
  expect(order).toEqual(reads ? ['read', 'ended'] : ['ended', 'read']);
});

it('a timer that is stopped while the event loop reads does not call back', async () => {
  const ended = vi.fn();
  const timer = new StallAwareTimer(ended);
  timer.start(100);
  await stall(300, () => timer.stop());
  expect(timer.active).toBe(false);
  await pass(1_000);
  expect(ended).not.toHaveBeenCalled();
});

it('a timer that is started anew while the event loop reads calls back at its new time alone', async () => {
  const ended = vi.fn();
  const timer = new StallAwareTimer(ended);
  timer.start(100);
  await stall(300, () => timer.start(50));
  expect(ended).not.toHaveBeenCalled();
  await pass(50);
  expect(ended).toHaveBeenCalledOnce();
});

it.each([
  ['is 15 ms', 115, 100, 0],
  ['is longer', 116, 100, 16],
  ['is a tenth of the time that was given', 200, 1_000, 0],
  ['is more than a tenth of it', 201, 1_000, 101],
])('a stall counts by its length and its share: one that %s', async (_which, blocked, given, stalled) => {
  const beganAt = performance.now();
  const timer = new StallAwareTimer(() => {});
  timer.start(100);
  await stall(blocked);
  expect(timer.stalledSince(beganAt, given)).toBe(stalled);
});

it('a stall counts for what it fell into, and from when that began', async () => {
  const timer = new StallAwareTimer(() => {});
  const origin = performance.now();
  timer.start(100);
  await stall(300);
  expect(timer.stalledSince(origin, 200)).toBe(200);
  expect(timer.stalledSince(origin + 200, 200)).toBe(100);
  expect(timer.stalledSince(origin + 290, 200)).toBe(0);
  expect(timer.stalledSince(origin + 300, 200)).toBe(0);
});

it('whenRead() waits for the event loop to read, unless it did in the last 15 ms', async () => {
  const order: string[] = [];
  await stall(1_000, () => order.push('read'));
  whenRead(() => order.push('first'));
  expect(order).toEqual(['read']);
  await pass(1);
  expect(order).toEqual(['read', 'first']);
  await pass(14);
  whenRead(() => order.push('second'));
  expect(order).toEqual(['read', 'first', 'second']);
  await pass(1);
  whenRead(() => order.push('third'));
  expect(order).toEqual(['read', 'first', 'second']);
  await pass(1);
  expect(order).toEqual(['read', 'first', 'second', 'third']);
});
