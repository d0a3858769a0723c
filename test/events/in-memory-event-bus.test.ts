import { spawnSync } from 'node:child_process';
import { expect, it, onTestFinished, vi } from 'vitest';
import { InMemoryEventBus, type NewEvent, StreamFullError, type Subscription } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { type BusStore, describeBus } from './bus-contract.ts';
import { checkDelivery } from './delivery-model.ts';
import { Recorder, toArray } from './recorder.ts';

/** A bus in memory is its own store: a second process cannot share it. */
function createStore(): BusStore {
  let bus: InMemoryEventBus | undefined;
  return {
    createBus(options) {
      bus ??= new InMemoryEventBus({ source: 'order-service', ...options });
      return bus;
    },
  };
}

describeBus('the in-memory bus', createStore);

const order = (aggregateId: string, n: number): NewEvent => ({
  eventType: 'order.created',
  aggregateId,
  data: { n },
});

it('an in-memory bus has each event handled in order, whoever joins, leaves or fails', () =>
  checkDelivery(() => new InMemoryEventBus({ source: 'shop', partitions: 2 }), 300));

it('an in-memory bus never runs a handler before publish() has returned', async () => {
  const { bus, recorder } = await subscribed();
  const publishing = bus.publish(order('o1', 1)).then(() => recorder.events.length);
  expect(recorder.events).toEqual([]);
  expect(await publishing).toBe(0);
  await recorder.reach(1);
});

it('an in-memory bus publishes all events of a list, or none if one of them finds no room', async () => {
  const bus = new InMemoryEventBus({ source: 'shop', partitions: 1, maxLength: 3 });
  await bus.publish([order('o1', 1), order('o1', 2)]);
  await expect(bus.publish([order('o1', 3), order('o1', 4)])).rejects.toThrow(StreamFullError);
  expect(await toArray(bus.replay())).toHaveLength(2);
  await bus.publish(order('o1', 3));
});

it('an in-memory bus keeps a dead letter that finds no room when it is redriven', async () => {
  const bus = new InMemoryEventBus({ source: 'shop', partitions: 1, maxLength: 1 });
  const died = new Promise((resolve) => void bus.once('die', resolve));
  await bus.subscribe('order.*', () => Promise.reject(new Error('no stock')), { group: 'g', maxAttempts: 1 });
  await bus.publish(order('o1', 1));
  await died;
  await expect(bus.redrive({ group: 'g' })).rejects.toThrow(StreamFullError);
  expect(await toArray(bus.deadLetters({ group: 'g' }))).toHaveLength(1);
  await bus.close();
});

it('an in-memory bus drops old events that all groups have handled when others are published', async () => {
  vi.useFakeTimers();
  const { bus, recorder } = await subscribed({ retention: 60_000 });
  await bus.publish([order('o1', 1), order('o1', 2)]);
  await vi.advanceTimersByTimeAsync(30_000);
  await bus.publish(order('o1', 3));
  expect(await toArray(bus.replay())).toHaveLength(3);
  await vi.advanceTimersByTimeAsync(30_001);
  await bus.publish(order('o1', 4));
  expect((await toArray(bus.replay())).map(({ data }) => data)).toEqual([{ n: 3 }, { n: 4 }]);
  await vi.advanceTimersByTimeAsync(0);
  expect(recorder.numbers).toEqual([1, 2, 3, 4]);
});

it('an in-memory bus keeps old events for a group that has no subscription now', async () => {
  vi.useFakeTimers();
  const { bus, subscription } = await subscribed({ retention: 60_000 });
  await subscription.close();
  await bus.publish([order('o1', 1), order('o1', 2)]);
  await vi.advanceTimersByTimeAsync(3_600_000);
  await bus.publish(order('o1', 3));
  const later = new Recorder();
  await bus.subscribe('order.*', later.handle, { group: 'g' });
  await vi.advanceTimersByTimeAsync(0);
  expect(later.numbers).toEqual([1, 2, 3]);
});

it('a handler that publishes to itself without end lets the event loop go on', async () => {
  const bus = new InMemoryEventBus({ source: 'shop', partitions: 1, maxLength: 1_000_000 });
  let n = 0;
  const subscription = await bus.subscribe('order.*', () => bus.publish(order('o1', ++n)), { group: 'g' });
  await bus.publish(order('o1', 0));
  await vi.waitFor(() => expect(n).toBeGreaterThan(1));
  await subscription.close();
  await bus.close();
});

it('a subscription that closes reads no more, and the next one reads what it may prefetch', async () => {
  const gates = [deferred<void>(), deferred<void>()];
  const { bus, recorder, subscription } = await subscribed(
    { partitions: 1 },
    () => gates[recorder.events.length - 1]!.promise,
  );
  await bus.publish([order('o0', 0), ...Array.from({ length: 200 }, (_, n) => order('o1', n))]);
  await recorder.reach(2);
  const parse = vi.spyOn(JSON, 'parse');
  const closing = subscription.close();
  gates[0]!.resolve();
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  expect(parse).not.toHaveBeenCalled();
  gates[1]!.resolve();
  await closing;
  const release = deferred<void>();
  const next = new Recorder(() => release.promise);
  const options = { group: 'g', prefetch: 2, ordered: false };
  const second = await bus.subscribe('order.*', next.handle, options);
  await next.reach(2);
  await new Promise(setImmediate);
  expect(next.numbers).toEqual([1, 2]);
  release.resolve();
  await next.reach(199);
  await second.close();
  expect(next.numbers).toEqual(Array.from({ length: 199 }, (_, n) => n + 1));
});

it('a group is in use until the handlers of its last subscription are done', async () => {
  const gate = deferred<void>();
  const { bus, recorder, subscription } = await subscribed({}, () => gate.promise);
  await bus.publish(order('o1', 1));
  await recorder.reach(1);
  const closing = subscription.close();
  await expect(bus.removeGroup('g')).rejects.toThrow('has subscriptions');
  gate.resolve();
  await closing;
  expect(await bus.removeGroup('g')).toBe(true);
});

it('an open subscription holds the process open, and a bus that only publishes does not', () => {
  const publish = `await bus.publish({ eventType: 'order.created', aggregateId: 'o1', data: {} });`;
  const subscribe = `const subscription = await bus.subscribe('order.*', () => {}, { group: 'g' });`;
  expect(run(`${publish} console.log('published')`)).toMatchObject({ status: 0, stdout: 'published\n' });
  const closed = `${subscribe} ${publish} await subscription.close(); console.log('closed');`;
  expect(run(closed)).toMatchObject({ status: 0, stdout: 'closed\n' });
  // Timers that do not hold the process open fire only if something else does.
  const held = `${subscribe} setTimeout(() => { console.log('held'); bus.close(); }, 50).unref();`;
  expect(run(held)).toMatchObject({ status: 0, stdout: 'held\n' });
});

/** A bus with one subscription of the group `g`. */
async function subscribed(
  options: { retention?: number; partitions?: number } = {},
  behave: () => unknown = () => {},
): Promise<{ bus: InMemoryEventBus; recorder: Recorder; subscription: Subscription }> {
  const bus = new InMemoryEventBus({ source: 'shop', ...options });
  onTestFinished(() => bus.close());
  const recorder = new Recorder(behave);
  const subscription = await bus.subscribe('order.*', recorder.handle, { group: 'g' });
  return { bus, recorder, subscription };
}

/** Runs a script with a bus in a process of its own, and ends that process if it is held open. */
function run(script: string) {
  const url = JSON.stringify(new URL('../../src/events/in-memory-event-bus.ts', import.meta.url).href);
  const create = `const { InMemoryEventBus } = await import(${url}); const bus = new InMemoryEventBus({ source: 'shop' });`;
  return spawnSync(process.execPath, ['--input-type=module', '--eval', `${create} ${script}`], {
    encoding: 'utf8',
    timeout: 4_000,
  });
}
