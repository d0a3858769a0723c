import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Clock } from '../../src/internal/clock.ts';
import { DueQueue, type Queued } from '../../src/internal/due-queue.ts';
import { fakeTime, fling, pass, stall } from '../policies/helpers.ts';
import { ManualClock } from '../support/manual-clock.ts';

class Item implements Queued<Item> {
  next: Item | undefined = undefined;
  previous: Item | undefined = undefined;
  queued = false;
  queuedAt = 0;
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

let delay = 100;
const due: string[] = [];

function createQueue(
  onDue: (item: Item) => void = () => {},
  stalls: number[] = [],
  clock?: Clock,
): DueQueue<Item> {
  return new DueQueue<Item>({
    delayAt: () => delay,
    onDue: (item, _now, stalled) => {
      due.push(item.name);
      stalls.push(stalled);
      onDue(item);
    },
    holdsOpen: true,
    clock,
  });
}

function add(queue: DueQueue<Item>, name: string): Item {
  const item = new Item(name);
  queue.add(item, performance.now());
  return item;
}

beforeEach(() => {
  fakeTime();
  delay = 100;
  due.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

it('items of a due queue come due in order, each after the delay, on one timer', async () => {
  const queue = createQueue();
  add(queue, 'a');
  await pass(40);
  add(queue, 'b');
  expect(vi.getTimerCount()).toBe(1);
  await pass(60);
  expect(due).toEqual(['a']);
  await pass(39);
  expect(due).toEqual(['a']);
  await pass(1);
  expect(due).toEqual(['a', 'b']);
  expect(vi.getTimerCount()).toBe(0);
});

it('an item that is removed never comes due, and can be added again', async () => {
  const queue = createQueue();
  const item = add(queue, 'a');
  queue.remove(item);
  queue.remove(item);
  await pass(200);
  expect(due).toEqual([]);
  queue.add(item, performance.now());
  await pass(100);
  expect(due).toEqual(['a']);
});

it('a due queue takes no item while its delay is Infinity, and holds the ones that it has', async () => {
  const queue = createQueue();
  add(queue, 'a');
  delay = Infinity;
  expect(add(queue, 'b').queued).toBe(false);
  await pass(1_000);
  expect(due).toEqual([]);
  delay = 100;
  add(queue, 'c');
  await pass(100);
  expect(due).toEqual(['a', 'c']);
});

it('an item that onDue adds comes due a delay later', async () => {
  const queue = createQueue((item) => {
    if (item.name === 'a') add(queue, 'b');
  });
  add(queue, 'a');
  await pass(100);
  expect(due).toEqual(['a']);
  await pass(100);
  expect(due).toEqual(['a', 'b']);
});

it.each([
  ['is set back', -3_600_000],
  ['stands still', 0],
])(
  'an item that onDue adds comes due a delay later where the clock %s, whichever is removed',
  async (_what, now) => {
    const clock = new ManualClock();
    const queue = createQueue(
      (item) => {
        if (item.name === 'a') queue.remove(b);
        if (due.length < 4) queue.add(item, clock.now());
      },
      [],
      clock,
    );
    const items = ['a', 'b'].map((name) => new Item(name));
    const b = items[1]!;
    for (const item of items) queue.add(item, clock.now());
    const dueAt: number[] = [];
    for (let passed = 10; passed <= 400; passed += 10) {
      await clock.pass(10);
      clock.set(now);
      while (dueAt.length < due.length) dueAt.push(passed);
    }
    expect(due).toEqual(['a', 'a', 'a', 'a']);
    expect(dueAt).toEqual([100, 200, 300, 400]);
  },
);

it('a due queue goes on when onDue throws', async () => {
  const queue = createQueue((item) => {
    if (item.name === 'a') fling(new Error('broken'));
  });
  add(queue, 'a');
  await pass(50);
  add(queue, 'b');
  expect(() => vi.advanceTimersByTime(50)).toThrow('broken');
  await pass(50);
  expect(due).toEqual(['a', 'b']);
});

it('a due queue tells for how long the process was blocked, and lets the event loop read first', async () => {
  const stalls: number[] = [];
  const queue = createQueue(undefined, stalls);
  add(queue, 'a');
  const read = add(queue, 'b');
  await stall(300, () => queue.remove(read));
  expect(due).toEqual(['a']);
  expect(stalls[0]).toBeGreaterThanOrEqual(200);
});
