import { expect, it, vi } from 'vitest';
import {
  constantBackoff,
  InMemoryEventBus,
  InMemoryInbox,
  type InMemoryInboxOptions,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { Recorder } from './recorder.ts';

it('an inbox runs a handler once for each event and group', async () => {
  const inbox = new InMemoryInbox();
  const handle = vi.fn();
  expect(await inbox.process('g/order.*', 'e1', handle)).toBe(true);
  expect(await inbox.process('g/order.*', 'e1', handle)).toBe(false);
  expect(await inbox.process('g/order.created', 'e1', handle)).toBe(true);
  expect(await inbox.process('g/order.*', 'e2', handle)).toBe(true);
  expect(handle).toHaveBeenCalledTimes(3);
});

it('an inbox forgets a handler that failed, and rejects with its error', async () => {
  const inbox = new InMemoryInbox();
  const error = new Error('no stock');
  const handle = vi.fn(() => {
    throw error;
  });
  await expect(inbox.process('g', 'e1', handle)).rejects.toBe(error);
  await expect(inbox.process('g', 'e1', () => Promise.reject(error))).rejects.toBe(error);
  expect(await inbox.process('g', 'e1', () => {})).toBe(true);
});

it('an inbox lets the second of two deliveries at once wait for the end of the first', async () => {
  const inbox = new InMemoryInbox();
  const gate = deferred<void>();
  const first = inbox.process('g', 'e1', () => gate.promise);
  const handle = vi.fn();
  const second = inbox.process('g', 'e1', handle);
  await expect(
    Promise.race([second, new Promise((resolve) => setImmediate(resolve, 'waits'))]),
  ).resolves.toBe('waits');
  gate.resolve();
  expect(await Promise.all([first, second])).toEqual([true, false]);
  expect(handle).not.toHaveBeenCalled();
});

it('an inbox runs one of the deliveries that waited for a handler that failed', async () => {
  const inbox = new InMemoryInbox();
  const gate = deferred<void>();
  let underWay = 0;
  const handle = vi.fn(async () => {
    expect(++underWay).toBe(1);
    await new Promise(setImmediate);
    underWay--;
  });
  const first = inbox.process('g', 'e1', () => gate.promise);
  const others = [1, 2, 3].map(() => inbox.process('g', 'e1', handle));
  gate.reject(new Error('no stock'));
  await expect(first).rejects.toThrow('no stock');
  expect(await Promise.all(others)).toEqual([true, false, false]);
  expect(handle).toHaveBeenCalledOnce();
});

it('an inbox remembers an event for its time to live', async () => {
  vi.useFakeTimers();
  const inbox = new InMemoryInbox({ ttl: 1_000 });
  await inbox.process('g', 'e1', () => {});
  await vi.advanceTimersByTimeAsync(990);
  expect(await inbox.process('g', 'e1', () => {})).toBe(false);
  await vi.advanceTimersByTimeAsync(20);
  expect(await inbox.process('g', 'e1', () => {})).toBe(true);
});

it('an inbox forgets the oldest event when it has as many as it may', async () => {
  const inbox = new InMemoryInbox({ maxSize: 2 });
  const process = (eventId: string) => inbox.process('g', eventId, () => {});
  for (const eventId of ['e1', 'e2', 'e1', 'e3']) await process(eventId);
  expect(await process('e2')).toBe(false);
  expect(await process('e1')).toBe(true);
});

it.each<[InMemoryInboxOptions, string]>([
  [{ ttl: 0 }, "InMemoryInbox option 'ttl'"],
  [{ maxSize: 1.5 }, "InMemoryInbox option 'maxSize'"],
  [{ size: 5 } as never, "InMemoryInbox has no option 'size'"],
])('an inbox rejects an option that is not allowed: %o', (options, message) => {
  expect(() => new InMemoryInbox(options)).toThrow(message);
});

it('a subscription with an inbox passes over an event that was published twice', async () => {
  const bus = new InMemoryEventBus({ source: 'shop' });
  const recorder = new Recorder((_event, { attempt }) => {
    if (attempt === 1) throw new Error('no stock');
  });
  const options = { group: 'g', inbox: new InMemoryInbox(), backoff: constantBackoff(1) };
  await bus.subscribe('order.*', recorder.handle, options);
  const order = { eventType: 'order.created', aggregateId: 'o1', eventId: 'e1', data: { n: 1 } };
  await bus.publish([order, order, { ...order, eventId: 'e2', data: { n: 2 } }]);
  await recorder.reach(4);
  expect(recorder.numbers).toEqual([1, 1, 2, 2]);
  await bus.close();
});
