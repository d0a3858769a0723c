import { once } from 'node:events';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import {
  type BusOptions,
  ClosedError,
  constantBackoff,
  currentEvent,
  currentRequestContext,
  type DomainEvent,
  type EventBus,
  type EventBusEvents,
  GroupInUseError,
  InvalidEventError,
  type NewEvent,
  runWithRequestContext,
  StreamFullError,
  type Subscription,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import type { Emitter } from '../../src/internal/emitter.ts';
import { describeDelivery } from './delivery-contract.ts';
import { Recorder, toArray } from './recorder.ts';

type AnyBus = EventBus & Emitter<EventBusEvents>;

/** The store of a bus, and the buses on it. */
export interface BusStore {
  /** Creates a bus as a process would have it; a second one on the same store where that exists. */
  createBus(options?: Partial<BusOptions>): AnyBus;
}

const quick = { group: 'g', backoff: constantBackoff(1) };
const order = (aggregateId: string, n: number, rest: Partial<NewEvent> = {}): NewEvent => ({
  eventType: 'order.created',
  aggregateId,
  data: { n },
  ...rest,
});
const orders = (aggregateId: string, count: number) =>
  Array.from({ length: count }, (_, n) => order(aggregateId, n));
const fail = (message = 'no stock') => {
  throw new Error(message);
};
const noted = <Name extends keyof EventBusEvents>(bus: AnyBus, name: Name) =>
  once(bus as never, name as string);

/** Describes how a bus behaves, whatever it stores events in. */
export function describeBus(name: string, createStore: () => BusStore): void {
  const open = (options?: Partial<BusOptions>) => {
    const bus = createStore().createBus(options);
    onTestFinished(() => bus.close());
    return bus;
  };

  describeDelivery(name, (options) => createStore().createBus(options));

  describe(`publishing to ${name}`, () => {
    it('gives the event with all that was left out', async () => {
      const event = await open().publish(order('o1', 1));
      expect(event).toMatchObject({
        eventType: 'order.created',
        aggregateId: 'o1',
        data: { n: 1 },
        version: 1,
      });
      expect(event.source).toBe('order-service');
      expect(event.eventId).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
      expect(Math.abs(event.timestamp - Date.now())).toBeLessThan(5_000);
      expect(event.metadata).toEqual({ correlationId: event.eventId });
    });

    it('needs to know which service publishes', () => {
      expect(() => createStore().createBus({ source: undefined })).toThrow(TypeError);
    });

    it('gives a list for a list, and nothing for an empty one', async () => {
      const bus = open();
      expect((await bus.publish(orders('o1', 3))).map(({ data }) => data)).toEqual([
        { n: 0 },
        { n: 1 },
        { n: 2 },
      ]);
      expect(await bus.publish([])).toEqual([]);
    });

    it('keeps what the publisher gives', async () => {
      const given = {
        eventId: 'e1',
        timestamp: 5,
        source: 'import',
        metadata: { correlationId: 'c', tenant: 7 },
      };
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      expect(await bus.publish(order('o1', 1, given))).toMatchObject(given);
      await recorder.reach(1);
      expect(recorder.events[0]).toMatchObject(given);
    });

    it.each([
      ['no event type', { eventType: '' }, 'eventType'],
      ['an event type with a space', { eventType: 'order created' }, 'eventType'],
      ['no aggregate', { aggregateId: '' }, 'aggregateId'],
      ['a Date in its data', { data: { at: new Date() } }, 'data.at is a Date'],
      ['a number that JSON does not know', { data: { price: Number.NaN } }, 'data.price is NaN'],
      ['a function in a list', { data: { list: [() => {}] } }, 'data.list[0] is a function'],
      ['no data', { data: undefined }, 'data is missing'],
      ['a version that is no number', { version: 1.5 }, 'version'],
      ['a version that is not known', { version: 2 }, 'version 2 is not known here'],
      ['an unknown field', { eventtype: 'x' }, "no field 'eventtype'"],
      ['a correlation id that is no string', { metadata: { correlationId: 7 } }, 'correlationId'],
      ['a trace that is none', { metadata: { traceparent: 'x\r\ny' } }, 'traceparent'],
    ])('rejects an event with %s, and publishes none of its list', async (_, fields, message) => {
      const bus = open();
      const bad = { ...order('o1', 1), ...fields } as NewEvent;
      const rejection = await bus.publish([order('o1', 0), bad]).catch((error: unknown) => error);
      expect(rejection).toBeInstanceOf(InvalidEventError);
      expect(rejection).toMatchObject({
        code: 'ERR_INVALID_EVENT',
        message: expect.stringContaining(message),
      });
      expect(await toArray(bus.replay())).toEqual([]);
    });

    it('rejects data within itself, and an event of more than 1 MiB', async () => {
      const bus = open();
      const loop: Record<string, unknown> = {};
      loop.self = loop;
      await expect(bus.publish({ ...order('o1', 1), data: loop })).rejects.toThrow(InvalidEventError);
      const large = { ...order('o1', 1), data: 'é'.repeat(524_288) };
      await expect(bus.publish(large)).rejects.toThrow('1048576');
      await expect(bus.publish({ ...order('o1', 1), data: 'e'.repeat(1_000_000) })).resolves.toBeDefined();
    });

    it('rejects data that the schema of the type does not allow, and says where', async () => {
      const schemas = {
        'order.created': z.object({ n: z.number().min(1), tags: z.array(z.string()).optional() }),
      };
      const bus = open({ schemas });
      const error = await bus
        .publish({ ...order('o1', 0), data: { n: 0, tags: [1] } })
        .catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'ERR_INVALID_EVENT', eventType: 'order.created' });
      expect((error as Error).message).toMatch(/data\.n: .*; data\.tags\.0: /);
      await expect(bus.publish(order('o1', 1))).resolves.toBeDefined();
    });

    it('rejects an option that it does not know', async () => {
      await expect(open().publish(order('o1', 1), { tiemout: 5 } as never)).rejects.toThrow(
        "publish() has no option 'tiemout'",
      );
    });

    it('stores events in the order of the calls, whatever their schemas wait for, also if some are rejected', async () => {
      const slow = z.object({ n: z.number() }).refine(async ({ n }) => {
        for (let turn = 0; turn < n % 4; turn++) await new Promise(setImmediate);
        return n % 7 !== 0;
      });
      const bus = open({ schemas: { 'order.created': slow } });
      const types = ['order.created', 'order.paid', 'order.created'];
      const numbers = Array.from({ length: 100 }, (_, n) => n);
      const results = await Promise.allSettled(
        numbers.map((n) => bus.publish(order('o1', n, { eventType: types[n % 3]! }))),
      );
      const stored = numbers.filter((n) => results[n]!.status === 'fulfilled');
      expect(stored.length).toBeLessThan(100);
      expect((await toArray(bus.replay())).map(({ data }) => data)).toEqual(stored.map((n) => ({ n })));
    });

    it('keeps the order of the calls if one of them is over before an earlier one', async () => {
      const gate = deferred<boolean>();
      const schema = z.object({ n: z.number() }).refine(({ n }) => (n === 1 ? gate.promise : n !== 2));
      const bus = open({ schemas: { 'order.created': schema } });
      const publishing = [1, 2, 3].map((n) => bus.publish(order('o1', n)).catch(() => 'rejected'));
      await publishing[1];
      await new Promise(setImmediate);
      gate.resolve(true);
      expect(await Promise.all(publishing)).toMatchObject([
        { data: { n: 1 } },
        'rejected',
        { data: { n: 3 } },
      ]);
      expect((await toArray(bus.replay())).map(({ data }) => data)).toEqual([{ n: 1 }, { n: 3 }]);
    });

    it('holds up only the events of the same aggregate behind a schema that never comes to an end', async () => {
      const never = z.object({ n: z.number() }).refine(() => new Promise(() => {}));
      const bus = open({ schemas: { 'order.created': never } });
      let over = false;
      const hanging = bus
        .publish(order('o1', 1), { timeout: 300 })
        .catch((error: unknown) => error)
        .finally(() => {
          over = true;
        });
      const impatient = bus
        .publish(order('o1', 2, { eventType: 'order.paid' }), { timeout: 50 })
        .catch((error: unknown) => error);
      const publishing = bus.publish(order('o1', 3, { eventType: 'order.paid' })).then(() => over);
      await bus.publish([
        order('o2', 4, { eventType: 'order.paid' }),
        order('o1', 5, { eventType: 'bill.paid' }),
      ]);
      expect(over).toBe(false);
      expect(await impatient).toMatchObject({
        code: 'ERR_TIMEOUT',
        message: 'an earlier publish() for the same aggregate took longer than 50 ms: nothing is published',
      });
      expect(await hanging).toMatchObject({
        code: 'ERR_TIMEOUT',
        message: "the schema of 'order.created' took longer than 300 ms: nothing is published",
      });
      expect(await publishing).toBe(true);
    });

    it('rejects when a partition is full, drops nothing, and tells before that it will be', async () => {
      const bus = open({ maxLength: 10, partitions: 1 });
      const nearlyFull = vi.fn();
      bus.on('nearlyFull', nearlyFull);
      for (let n = 0; n < 10; n++) await bus.publish(order('o1', n));
      expect(nearlyFull).toHaveBeenCalledExactlyOnceWith({
        topic: 'order',
        partition: 0,
        length: 8,
        maxLength: 10,
      });
      const error = await bus.publish(order('o1', 10)).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(StreamFullError);
      expect(error).toMatchObject({ code: 'ERR_STREAM_FULL', topic: 'order', partition: 0, maxLength: 10 });
      expect(await toArray(bus.replay())).toHaveLength(10);
    });

    it('says of a full partition whether a group or the retention keeps its events', async () => {
      const busy = open({ maxLength: 3, partitions: 1 });
      const recorder = new Recorder();
      await busy.subscribe('order.*', recorder.handle, quick);
      await busy.publish(orders('o1', 3));
      await recorder.reach(3);
      const kept = await busy.publish(order('o1', 3)).catch((error: unknown) => error);
      expect(kept).toMatchObject({ group: undefined, message: expect.stringContaining('shorten retention') });

      const behind = open({ maxLength: 3, partitions: 1, retention: 0 });
      const subscription = await behind.subscribe('order.*', () => {}, { ...quick, group: 'audit' });
      await subscription.close();
      const [event] = await behind.publish(orders('o1', 3));
      await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(event!.timestamp + 2));
      const held = await behind.publish(order('o1', 3)).catch((error: unknown) => error);
      expect(held).toMatchObject({
        group: 'audit',
        message: expect.stringContaining("the group 'audit' has not handled them"),
      });
    });

    it('takes correlation and trace from the request that is being handled', async () => {
      const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
      const context = { requestId: 'r1', traceparent, deadline: Infinity };
      const event = await runWithRequestContext(context, () => open().publish(order('o1', 1)));
      expect(event.metadata).toEqual({ correlationId: 'r1', traceparent });
    });
  });

  describe(`a group on ${name}`, () => {
    it('gets the events of its type, with all their fields', async () => {
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish({ ...order('o1', 0), eventType: 'order.paid' });
      const event = await bus.publish(order('o1', 1));
      await recorder.reach(1);
      expect(recorder.events).toEqual([event]);
    });

    it('gets all types of a topic in one order', async () => {
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.*', recorder.handle, quick);
      await bus.publish([
        order('o1', 0),
        { ...order('o1', 1), eventType: 'order.paid.late' },
        order('o1', 2),
      ]);
      await bus.publish({ ...order('o1', 9), eventType: 'orders.paid' });
      await bus.publish(order('o1', 3));
      await recorder.reach(4);
      expect(recorder.numbers).toEqual([0, 1, 2, 3]);
    });

    it('begins with the oldest event that is kept', async () => {
      const bus = open();
      await bus.publish(orders('o1', 3));
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await recorder.reach(3);
      expect(recorder.numbers).toEqual([0, 1, 2]);
    });

    it("begins with the events to come if it is first seen with from: 'now'", async () => {
      const bus = open();
      await bus.publish(order('o1', 0));
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, { ...quick, from: 'now' });
      await bus.publish(order('o1', 1));
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([1]);
    });

    it('goes on where it was when it subscribes again, whatever from says then', async () => {
      const bus = open();
      const first = new Recorder();
      const subscription = await bus.subscribe('order.created', first.handle, quick);
      await bus.publish(order('o1', 0));
      await first.reach(1);
      await subscription.close();
      await bus.publish(order('o1', 1));
      const second = new Recorder();
      await bus.subscribe('order.created', second.handle, { ...quick, from: 'now' });
      await second.reach(1);
      expect(second.numbers).toEqual([1]);
    });

    it('handles each event once among its members', async () => {
      const store = createStore();
      const buses = [store.createBus(), store.createBus()];
      onTestFinished(async () => void (await Promise.all(buses.map((bus) => bus.close()))));
      const all: string[] = [];
      const done = deferred<void>();
      for (const bus of buses) {
        await bus.subscribe(
          'order.created',
          ({ eventId }) => {
            if (all.push(eventId) === 40) done.resolve();
          },
          quick,
        );
      }
      for (let n = 0; n < 40; n++) await buses[n % 2]!.publish(order(`o${n}`, n));
      await done.promise;
      expect(new Set(all).size).toBe(40);
    });

    it('is apart from every other group', async () => {
      const bus = open();
      const [one, two] = [new Recorder(), new Recorder()];
      await bus.subscribe('order.created', one.handle, { ...quick, group: 'one' });
      await bus.subscribe('order.created', two.handle, { ...quick, group: 'two' });
      await bus.publish(orders('o1', 3));
      await Promise.all([one.reach(3), two.reach(3)]);
      expect([one.numbers, two.numbers]).toEqual([
        [0, 1, 2],
        [0, 1, 2],
      ]);
    });

    it('counts apart for each pattern', async () => {
      const bus = open();
      const [created, all] = [new Recorder(), new Recorder()];
      await bus.subscribe('order.created', created.handle, quick);
      await bus.subscribe('order.*', all.handle, quick);
      await bus.publish([order('o1', 0), { ...order('o1', 1), eventType: 'order.paid' }]);
      await Promise.all([created.reach(1), all.reach(2)]);
      expect([created.numbers, all.numbers]).toEqual([[0], [0, 1]]);
    });

    it('validates what it receives: what no schema allows goes to the dead letters at once', async () => {
      const store = createStore();
      const sender = store.createBus();
      onTestFinished(() => sender.close());
      await sender.publish([order('o1', -1), order('o1', 1)]);
      const receiver = store.createBus({ schemas: { 'order.created': z.object({ n: z.number().min(0) }) } });
      onTestFinished(() => receiver.close());
      if (receiver === sender) return;
      const recorder = new Recorder();
      await receiver.subscribe('order.created', recorder.handle, quick);
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([1]);
      const [letter] = await toArray(receiver.deadLetters({ group: 'g' }));
      expect(letter).toMatchObject({ event: { data: { n: -1 } }, errors: [{ code: 'ERR_INVALID_EVENT' }] });
    });

    it('gives the handler what the schema makes of the data', async () => {
      const bus = open({
        schemas: { 'order.created': z.object({ n: z.number(), currency: z.string().default('EUR') }) },
      });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1));
      await recorder.reach(1);
      expect(recorder.events[0]!.data).toEqual({ n: 1, currency: 'EUR' });
    });

    it('gives each group data of its own', async () => {
      const bus = open();
      const other = new Recorder();
      const spoil = new Recorder((event) => {
        (event.data as { n: number }).n = 99;
      });
      await bus.subscribe('order.created', spoil.handle, { ...quick, group: 'one' });
      await bus.subscribe('order.created', other.handle, { ...quick, group: 'two' });
      await bus.publish(order('o1', 1));
      await Promise.all([spoil.reach(1), other.reach(1)]);
      expect(other.numbers).toEqual([1]);
    });
  });

  describe(`order on ${name}`, () => {
    it('keeps the events of one aggregate in order over retries, while others go on', async () => {
      const bus = open();
      const recorder = new Recorder(({ aggregateId, data }, { attempt }) => {
        if (aggregateId === 'bad' && (data as { n: number }).n === 0 && attempt < 4) fail();
      });
      await bus.subscribe('order.created', recorder.handle, { ...quick, backoff: constantBackoff(20) });
      await bus.publish([...orders('bad', 3), ...orders('good', 3)]);
      await recorder.reach(9);
      expect(recorder.numbersOf('bad')).toEqual([0, 0, 0, 0, 1, 2]);
      const ids = recorder.events.map(({ aggregateId }) => aggregateId);
      expect(ids.lastIndexOf('good')).toBeLessThan(ids.lastIndexOf('bad') - 2);
    });

    it('never handles two events of an aggregate at once', async () => {
      const bus = open();
      let underWay = 0;
      let most = 0;
      const recorder = new Recorder(async () => {
        most = Math.max(most, ++underWay);
        await new Promise(setImmediate);
        underWay--;
      });
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(orders('o1', 20));
      await recorder.reach(20);
      expect(most).toBe(1);
      expect(recorder.numbers).toEqual(Array.from({ length: 20 }, (_, n) => n));
    });

    it('handles events of one aggregate at once if ordered is false', async () => {
      const bus = open();
      const gate = deferred<void>();
      const recorder = new Recorder(() => gate.promise);
      await bus.subscribe('order.created', recorder.handle, { ...quick, ordered: false });
      await bus.publish(orders('o1', 3));
      await recorder.reach(3);
      gate.resolve();
      expect(new Set(recorder.numbers)).toEqual(new Set([0, 1, 2]));
    });

    it('keeps the order of 2,000 events over 50 aggregates, some of which fail', async () => {
      const bus = open();
      let calls = 0;
      const done = new Map<string, number[]>();
      const all = deferred<void>();
      let handled = 0;
      await bus.subscribe(
        'order.created',
        ({ aggregateId, data }) => {
          if (++calls % 97 === 0) fail();
          done.set(aggregateId, [...(done.get(aggregateId) ?? []), (data as { n: number }).n]);
          if (++handled === 2_000) all.resolve();
        },
        quick,
      );
      for (let n = 0; n < 40; n++) {
        await bus.publish(Array.from({ length: 50 }, (_, index) => order(`o${index}`, n)));
      }
      await all.promise;
      const inOrder = Array.from({ length: 40 }, (_, n) => n);
      expect([...done.values()].every((numbers) => numbers.join() === inOrder.join())).toBe(true);
    });

    it('runs no more handlers at once than the concurrency says', async () => {
      const bus = open();
      let underWay = 0;
      let most = 0;
      const recorder = new Recorder(async () => {
        most = Math.max(most, ++underWay);
        await new Promise(setImmediate);
        underWay--;
      });
      await bus.subscribe('order.created', recorder.handle, { ...quick, concurrency: 3 });
      await bus.publish(Array.from({ length: 30 }, (_, n) => order(`o${n}`, n)));
      await recorder.reach(30);
      expect(most).toBeLessThanOrEqual(3);
    });

    it('reads no more events of a partition than prefetch while one of them waits', async () => {
      const bus = open({ partitions: 1 });
      const gate = deferred<void>();
      const recorder = new Recorder(({ aggregateId }) =>
        aggregateId === 'stuck' ? gate.promise : undefined,
      );
      await bus.subscribe('order.created', recorder.handle, { ...quick, prefetch: 3 });
      await bus.publish([...orders('stuck', 3), order('other', 7)]);
      await recorder.reach(1);
      await bus.publish(order('other', 8));
      expect(recorder.numbersOf('other')).toEqual([]);
      gate.resolve();
      await recorder.reach(5);
      expect(recorder.numbersOf('other')).toEqual([7, 8]);
    });

    it('lets a handler publish for the aggregate that it handles', async () => {
      const bus = open();
      const recorder = new Recorder(async ({ data }) => {
        const { n } = data as { n: number };
        if (n < 3) await bus.publish(order('o1', n + 1));
      });
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 0));
      await recorder.reach(4);
      expect(recorder.numbers).toEqual([0, 1, 2, 3]);
    });
  });

  describe(`a failing handler on ${name}`, () => {
    it.each([
      ['throws', () => fail()],
      ['rejects', () => Promise.reject(new Error('no stock'))],
    ])('that %s gets the event again, with the number of its attempt', async (_, behave) => {
      const bus = open();
      const recorder = new Recorder((_event, { attempt }) => (attempt < 3 ? behave() : undefined));
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1));
      await recorder.reach(3);
      expect(recorder.attempts).toEqual([1, 2, 3]);
    });

    it('waits as its backoff says', async () => {
      const bus = open();
      const backoff = vi.fn(() => 1);
      const recorder = new Recorder(() => fail());
      await bus.subscribe('order.created', recorder.handle, { group: 'g', maxAttempts: 3, backoff });
      const died = noted(bus, 'die');
      await bus.publish(order('o1', 1));
      await died;
      expect(backoff.mock.calls.map((call) => (call as unknown[]).slice(0, 2))).toEqual([
        [1, 0],
        [2, 1],
      ]);
    });

    it('gives up after maxAttempts: the event goes to the dead letters with its errors', async () => {
      const bus = open();
      let count = 0;
      const recorder = new Recorder(() => fail(`failure ${++count}`));
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 3 });
      const died = noted(bus, 'die');
      const event = await bus.publish(order('o1', 1));
      await died;
      const [letter, ...others] = await toArray(bus.deadLetters({ group: 'g' }));
      expect(others).toEqual([]);
      expect(letter).toMatchObject({ group: 'g', event, attempts: 3 });
      expect(letter!.errors.map(({ attempt, name, message }) => ({ attempt, name, message }))).toEqual([
        { attempt: 1, name: 'Error', message: 'failure 1' },
        { attempt: 2, name: 'Error', message: 'failure 2' },
        { attempt: 3, name: 'Error', message: 'failure 3' },
      ]);
    });

    it('lets the next event of the aggregate go on after a dead letter', async () => {
      const bus = open();
      const recorder = new Recorder(({ data }) => ((data as { n: number }).n === 0 ? fail() : undefined));
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 2 });
      await bus.publish(orders('o1', 2));
      await recorder.reach(3);
      expect(recorder.numbers).toEqual([0, 0, 1]);
    });

    it('is told by events: fail with the wait, then die', async () => {
      const bus = open();
      const told: unknown[] = [];
      bus.on('fail', ({ attempt, retryIn, group }) => void told.push({ attempt, retryIn, group }));
      await bus.subscribe('order.created', () => fail(), { ...quick, maxAttempts: 2 });
      const died = noted(bus, 'die');
      await bus.publish(order('o1', 1));
      await died;
      expect(told).toEqual([
        { attempt: 1, retryIn: 1, group: 'g' },
        { attempt: 2, retryIn: undefined, group: 'g' },
      ]);
    });

    it('counts its attempts on when the subscription is closed and opened again', async () => {
      const bus = open();
      const first = new Recorder(() => fail());
      const subscription = await bus.subscribe('order.created', first.handle, {
        ...quick,
        backoff: constantBackoff(50),
      });
      await bus.publish(order('o1', 1));
      await first.reach(2);
      await subscription.close();
      const attempts = first.attempts.length;
      const second = new Recorder();
      await bus.subscribe('order.created', second.handle, quick);
      await second.reach(1);
      expect(second.attempts).toEqual([attempts + 1]);
    });

    it('may throw what is no Error', async () => {
      const bus = open();
      await bus.subscribe('order.created', () => Promise.reject(undefined), { ...quick, maxAttempts: 1 });
      const died = noted(bus, 'die');
      await bus.publish(order('o1', 1));
      await died;
      const [letter] = await toArray(bus.deadLetters({ group: 'g' }));
      expect(letter!.errors).toMatchObject([{ name: 'Error', message: 'undefined' }]);
    });
  });

  describe(`dead letters on ${name}`, () => {
    const withDead = async (count: number) => {
      const bus = open();
      const recorder = new Recorder((_event, { attempt }) =>
        healthy ? undefined : fail(`attempt ${attempt}`),
      );
      let healthy = false;
      let dead = 0;
      const all = deferred<void>();
      bus.on('die', () => {
        if (++dead === count) all.resolve();
      });
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 1 });
      for (let n = 0; n < count; n++) await bus.publish(order(`o${n}`, n));
      await all.promise;
      return {
        bus,
        recorder,
        heal: () => {
          healthy = true;
        },
      };
    };

    it('are listed the oldest first', async () => {
      const { bus } = await withDead(5);
      const letters = await toArray(bus.deadLetters({ group: 'g' }));
      expect(new Set(letters.map(({ event }) => event.aggregateId)).size).toBe(5);
      expect(letters.map(({ diedAt }) => diedAt)).toEqual(
        letters.map(({ diedAt }) => diedAt).toSorted((a, b) => a - b),
      );
    });

    it('belong to one group', async () => {
      const { bus } = await withDead(1);
      expect(await toArray(bus.deadLetters({ group: 'other' }))).toEqual([]);
    });

    it('are delivered again one by one', async () => {
      const { bus, recorder, heal } = await withDead(3);
      heal();
      const [letter] = await toArray(bus.deadLetters({ group: 'g' }));
      expect(await bus.redrive({ group: 'g', eventId: letter!.event.eventId })).toBe(1);
      await recorder.reach(4);
      expect(recorder.events[3]).toEqual(letter!.event);
      expect(recorder.attempts[3]).toBe(1);
      expect(await toArray(bus.deadLetters({ group: 'g' }))).toHaveLength(2);
    });

    it('are delivered again all at once', async () => {
      const { bus, recorder, heal } = await withDead(3);
      heal();
      expect(await bus.redrive({ group: 'g' })).toBe(3);
      await recorder.reach(6);
      expect(await toArray(bus.deadLetters({ group: 'g' }))).toEqual([]);
      expect(await bus.redrive({ group: 'g' })).toBe(0);
    });

    it('are not delivered again to other groups, nor to a replay', async () => {
      const { bus, recorder, heal } = await withDead(1);
      const other = new Recorder();
      await bus.subscribe('order.created', other.handle, { ...quick, group: 'other' });
      await other.reach(1);
      heal();
      await bus.redrive({ group: 'g' });
      await recorder.reach(2);
      await bus.publish(order('o0', 99));
      await other.reach(2);
      expect(other.numbers).toEqual([0, 99]);
      expect(await toArray(bus.replay())).toHaveLength(2);
    });
  });

  describe(`versions on ${name}`, () => {
    const upcast = { 'order.created': { 1: (data: { n: number }) => ({ ...data, currency: 'EUR' }) } };

    it('are brought to the current one', async () => {
      const bus = open({ upcast });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1, { version: 1 }));
      await bus.publish({ ...order('o1', 2), data: { n: 2, currency: 'USD' } });
      await recorder.reach(2);
      expect(recorder.events.map(({ data, version }) => ({ data, version }))).toEqual([
        { data: { n: 1, currency: 'EUR' }, version: 2 },
        { data: { n: 2, currency: 'USD' }, version: 2 },
      ]);
    });

    it('whose upcast fails are dead at once', async () => {
      const bus = open({ upcast: { 'order.created': { 1: () => fail('no currency') } } });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      const died = noted(bus, 'die');
      await bus.publish(order('o1', 1, { version: 1 }));
      await died;
      expect(recorder.events).toEqual([]);
    });

    it('that have a gap are an error of the constructor', () => {
      const chain = { 'order.created': { 1: (data: unknown) => data, 3: (data: unknown) => data } };
      expect(() => createStore().createBus({ upcast: chain })).toThrow('version 2 is missing');
      expect(() => createStore().createBus({ upcast: { 'order.created': { 1: 'x' } } as never })).toThrow(
        TypeError,
      );
    });
  });

  describe(`replay on ${name}`, () => {
    const filled = async () => {
      const bus = open();
      await bus.publish([order('o1', 0), { ...order('u1', 1), eventType: 'user.created' }]);
      await bus.publish([order('o2', 2), { ...order('o1', 3), eventType: 'order.paid' }]);
      return bus;
    };
    const numbers = async (events: AsyncIterable<DomainEvent>) =>
      (await toArray(events)).map(({ data }) => (data as { n: number }).n).toSorted();

    it('gives all that is kept', async () => {
      expect(await numbers((await filled()).replay())).toEqual([0, 1, 2, 3]);
    });

    it('gives one type, a topic, or one aggregate', async () => {
      const bus = await filled();
      expect(await numbers(bus.replay({ type: 'order.created' }))).toEqual([0, 2]);
      expect(await numbers(bus.replay({ type: 'order.*' }))).toEqual([0, 2, 3]);
      expect(await numbers(bus.replay({ aggregateId: 'o1' }))).toEqual([0, 3]);
      expect(await numbers(bus.replay({ type: 'user.*', aggregateId: 'o1' }))).toEqual([]);
    });

    it('gives what was published between two times', async () => {
      const bus = await filled();
      const now = Date.now();
      expect(await numbers(bus.replay({ since: now - 60_000, until: now + 60_000 }))).toEqual([0, 1, 2, 3]);
      expect(await numbers(bus.replay({ since: now + 60_000 }))).toEqual([]);
      expect(await numbers(bus.replay({ until: now - 60_000 }))).toEqual([]);
    });

    it('passes over events that this process cannot read, and tells of each of them', async () => {
      const upcast = { 'order.created': { 1: (data: unknown) => data } };
      const store = createStore();
      const schema = z.object({ n: z.number().refine((n) => n !== 2 || !strict) });
      let strict = false;
      const bus = store.createBus({ schemas: { 'order.created': schema }, upcast });
      onTestFinished(() => bus.close());
      const errors: unknown[] = [];
      bus.on('error', ({ error }) => errors.push(error));
      const [, second] = await bus.publish([order('o1', 1), order('o1', 2), order('o1', 3)]);
      const newer = { ...second!, eventId: 'e4', version: 3, data: { n: 4 } };
      await bus.append([newer], { source: 'db1', partition: 5, position: 1n, after: new Map() });
      strict = true;
      expect(await numbers(bus.replay())).toEqual([1, 3]);
      expect(errors).toMatchObject([
        { code: 'ERR_INVALID_EVENT', eventId: second!.eventId },
        { code: 'ERR_EVENT_VERSION', eventId: 'e4' },
      ]);
    });

    it('keeps the order of each aggregate', async () => {
      const bus = open();
      for (let n = 0; n < 30; n++) await bus.publish([order('o1', n), order('o2', n)]);
      const events = await toArray(bus.replay());
      for (const id of ['o1', 'o2']) {
        const own = events.filter(({ aggregateId }) => aggregateId === id);
        expect(own.map(({ data }) => (data as { n: number }).n)).toEqual(
          Array.from({ length: 30 }, (_, n) => n),
        );
      }
    });
  });

  describe(`a broadcast on ${name}`, () => {
    it('reaches every subscription, from now on', async () => {
      const store = createStore();
      const buses = [store.createBus(), store.createBus()];
      onTestFinished(async () => void (await Promise.all(buses.map((bus) => bus.close()))));
      await buses[0]!.publish(order('o1', 0));
      const recorders = [new Recorder(), new Recorder()];
      for (const [index, recorder] of recorders.entries()) {
        await buses[index]!.subscribe('order.*', recorder.handle, { broadcast: true });
      }
      await buses[0]!.publish([order('o1', 1), order('o1', 2)]);
      await Promise.all(recorders.map((recorder) => recorder.reach(2)));
      expect(recorders.map((recorder) => recorder.numbers)).toEqual([
        [1, 2],
        [1, 2],
      ]);
    });

    it('that is too slow holds back no publisher, and tells once for each gap that events were dropped', async () => {
      const bus = open({ retention: 0, maxLength: 10, partitions: 1 });
      const gates = [deferred<void>(), deferred<void>()];
      const recorder = new Recorder(({ data }) => {
        const { n } = data as { n: number };
        return n === 0 ? gates[0]!.promise : n === 99 ? gates[1]!.promise : undefined;
      });
      const errors: unknown[] = [];
      bus.on('error', ({ error }) => void errors.push(error));
      await bus.subscribe('order.*', recorder.handle, { broadcast: true, prefetch: 1 });
      // An event is older than a retention of 0 from the next millisecond on.
      const publish = async (n: number) => {
        const { timestamp } = await bus.publish(order('o1', n));
        while (Date.now() <= timestamp + 1) await new Promise(setImmediate);
      };
      await publish(0);
      await recorder.reach(1);
      for (let n = 1; n < 100; n++) await publish(n);
      gates[0]!.resolve();
      await vi.waitFor(() => expect(recorder.numbers.at(-1)).toBe(99));
      expect(errors).toMatchObject([{ code: 'ERR_EVENTS_DROPPED', topic: 'order', partition: 0 }]);
      for (let n = 100; n < 200; n++) await publish(n);
      gates[1]!.resolve();
      await vi.waitFor(() => expect(recorder.numbers.at(-1)).toBe(199));
      expect(errors).toHaveLength(2);
      expect(recorder.numbers.length).toBeLessThan(30);
      expect(recorder.numbers).toEqual(recorder.numbers.toSorted((one, other) => one - other));
    });

    it('retries, and drops what it cannot handle', async () => {
      const bus = open();
      const recorder = new Recorder(({ data }) => ((data as { n: number }).n === 0 ? fail() : undefined));
      const options = { broadcast: true, maxAttempts: 2, backoff: constantBackoff(1) } as const;
      await bus.subscribe('order.created', recorder.handle, options);
      await bus.publish(orders('o1', 2));
      await recorder.reach(3);
      expect(recorder.numbers).toEqual([0, 0, 1]);
    });
  });

  describe(`the context of a handler on ${name}`, () => {
    it('is the event: what it publishes is caused by it, and its calls carry its correlation', async () => {
      const bus = open();
      const seen: unknown[] = [];
      const paid = new Recorder();
      await bus.subscribe(
        'order.created',
        async (event) => {
          seen.push(currentEvent()?.eventId, currentRequestContext()?.requestId);
          await bus.publish({ eventType: 'order.paid', aggregateId: event.aggregateId, data: { n: 2 } });
        },
        quick,
      );
      await bus.subscribe('order.paid', paid.handle, quick);
      const event = await bus.publish(order('o1', 1, { metadata: { correlationId: 'c1' } }));
      await paid.reach(1);
      expect(paid.events[0]!.metadata).toEqual({ correlationId: 'c1', causationId: event.eventId });
      expect(seen).toEqual([event.eventId, 'c1']);
    });

    it('has a signal that is not aborted while the partition is kept', async () => {
      const bus = open();
      const signals: AbortSignal[] = [];
      const recorder = new Recorder((_event, { signal }) => void signals.push(signal));
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1));
      await recorder.reach(1);
      expect(signals[0]!.aborted).toBe(false);
    });
  });

  describe(`relaying to ${name}`, () => {
    const created = async (count: number) => {
      const bus = open();
      const events: DomainEvent[] = [];
      const other = createStore().createBus();
      onTestFinished(() => other.close());
      for (let n = 0; n < count; n++) events.push(await other.publish(order('o1', n)));
      return { bus, events };
    };

    it('adds each position of a source and partition once', async () => {
      const { bus, events } = await created(4);
      const from = { source: 'db1', partition: 5, position: 10n, after: new Map() };
      expect(await bus.append(events.slice(0, 2), from)).toBe(2);
      expect(await bus.append(events.slice(0, 3), from)).toBe(1);
      expect(await bus.append(events.slice(0, 3), from)).toBe(0);
      expect(await bus.append(events.slice(3), { ...from, source: 'db2' })).toBe(1);
      expect(await bus.lastPosition('db1', 5, 'order')).toBe(12n);
      expect(await bus.lastPosition('db1', 5, 'user')).toBe(0n);
      expect(await bus.lastPosition('db1', 4, 'order')).toBe(0n);
      expect(await toArray(bus.replay())).toEqual(events);
    });

    it('tells that events are missing that were added before', async () => {
      const { bus, events } = await created(3);
      const from = { source: 'db1', partition: 5, position: 10n, after: new Map() };
      await bus.append(events.slice(0, 1), from);
      const later = { ...from, position: 12n, after: new Map([['order', 11n]]) };
      const error = await bus.append(events.slice(2), later).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'ERR_EVENTS_MISSING' });
      expect(
        await bus.append(events.slice(1), { ...from, position: 11n, after: new Map([['order', 10n]]) }),
      ).toBe(2);
      expect(await toArray(bus.replay())).toEqual(events);
    });
  });

  describe(`closing ${name}`, () => {
    it('waits for the handlers under way, and begins no other', async () => {
      const bus = open();
      const gate = deferred<void>();
      let ended = false;
      const recorder = new Recorder(async () => {
        await gate.promise;
        ended = true;
      });
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(orders('o1', 3));
      await recorder.reach(1);
      const closing = bus.close();
      gate.resolve();
      await closing;
      expect(ended).toBe(true);
      expect(recorder.numbers).toEqual([0]);
    });

    it('leaves what was not handled to the next subscription', async () => {
      const bus = open();
      const gate = deferred<void>();
      const first = new Recorder(() => gate.promise);
      const subscription = await bus.subscribe('order.created', first.handle, quick);
      await bus.publish(orders('o1', 3));
      await first.reach(1);
      const closing = subscription.close();
      gate.resolve();
      await closing;
      const second = new Recorder();
      await bus.subscribe('order.created', second.handle, quick);
      await second.reach(2);
      expect(second.numbers).toEqual([1, 2]);
    });

    it('does not wait for an event that waits for its retry', async () => {
      const bus = open();
      const recorder = new Recorder(() => fail());
      await bus.subscribe('order.created', recorder.handle, { group: 'g', backoff: constantBackoff(60_000) });
      const failed = noted(bus, 'fail');
      await bus.publish(order('o1', 1));
      await failed;
      await bus.close();
      expect(recorder.attempts).toEqual([1]);
    });

    it.each([
      ['its subscription', async (_: AnyBus, own: Subscription) => own.close()],
      ['the bus', async (bus: AnyBus) => bus.close()],
      [
        'its subscription, then the bus',
        async (bus: AnyBus, own: Subscription) => {
          await own.close();
          await bus.close();
        },
      ],
      ['the bus without waiting for it', async (bus: AnyBus) => void bus.close()],
    ])('within a handler does not wait for that handler: %s', async (_, close) => {
      const bus = open();
      const ended: number[] = [];
      const begun = deferred<void>();
      const subscription: Subscription = await bus.subscribe(
        'order.created',
        async ({ data }) => {
          begun.resolve();
          await close(bus, subscription);
          await bus.publish(order('o2', 7, { eventType: 'order.paid' }));
          ended.push((data as { n: number }).n);
        },
        quick,
      );
      await bus.publish(orders('o1', 2));
      await begun.promise;
      await Promise.all([subscription.close(), bus.close()]);
      expect(ended).toEqual([0]);
      await expect(bus.publish(order('o1', 1))).rejects.toThrow(ClosedError);
    });

    it('within a handler waits for all other handlers', async () => {
      const bus = open();
      const gate = deferred<void>();
      const steps: string[] = [];
      const [first, second] = [deferred<void>(), deferred<void>()];
      await bus.subscribe(
        'order.created',
        async ({ aggregateId }) => {
          if (aggregateId === 'o1') {
            first.resolve();
            await gate.promise;
            steps.push('the other handler is done');
          } else {
            await first.promise;
            const closing = bus.close().then(() => steps.push('close() is'));
            second.resolve();
            await closing;
          }
        },
        quick,
      );
      await bus.publish([order('o1', 1), order('o2', 2)]);
      await second.promise;
      await new Promise(setImmediate);
      gate.resolve();
      await bus.close();
      expect(steps).toEqual(['the other handler is done', 'close() is']);
    });

    it('within two handlers at once comes to an end, of one subscription or of each the other', async () => {
      const bus = open();
      const all = deferred<void>();
      let begun = 0;
      const subscriptions: Subscription[] = [];
      const closing = (n: number) => async () => {
        if (++begun === 4) all.resolve();
        await all.promise;
        await subscriptions[n]!.close();
        await bus.close();
      };
      subscriptions.push(await bus.subscribe('order.created', closing(1), { ...quick, group: 'one' }));
      subscriptions.push(await bus.subscribe('order.created', closing(0), { ...quick, group: 'two' }));
      await bus.publish([order('o1', 1), order('o2', 2)]);
      await all.promise;
      await bus.close();
      expect(begun).toBe(4);
    });

    it('within a handler does not wait for the one that has subscribed it and waits for it', async () => {
      const bus = open();
      const done = deferred<void>();
      await bus.subscribe(
        'order.created',
        async () => {
          const inner = deferred<void>();
          const close = async () => {
            await bus.close();
            inner.resolve();
          };
          await bus.subscribe('order.paid', close, { ...quick, group: 'inner' });
          await bus.publish(order('o1', 1, { eventType: 'order.paid' }));
          await inner.promise;
          done.resolve();
        },
        quick,
      );
      await bus.publish(order('o1', 0));
      await done.promise;
      await bus.close();
    });

    it('may be done twice, and rejects all that comes after', async () => {
      const bus = open();
      await Promise.all([bus.close(), bus.close()]);
      await expect(bus.publish(order('o1', 1))).rejects.toThrow(ClosedError);
      await expect(bus.subscribe('order.created', () => {}, quick)).rejects.toThrow(ClosedError);
    });
  });

  describe(`groups on ${name}`, () => {
    it('that are removed begin anew', async () => {
      const bus = open();
      const first = new Recorder();
      const subscription = await bus.subscribe('order.created', first.handle, quick);
      await bus.publish(order('o1', 1));
      await first.reach(1);
      await expect(bus.removeGroup('g')).rejects.toThrow(GroupInUseError);
      await subscription.close();
      expect(await bus.removeGroup('g')).toBe(true);
      expect(await bus.removeGroup('g')).toBe(false);
      const second = new Recorder();
      await bus.subscribe('order.created', second.handle, quick);
      await second.reach(1);
      expect(second.numbers).toEqual([1]);
    });
  });

  describe(`options of ${name}`, () => {
    it.each([
      [{ source: '' }, 'source'],
      [{ partitions: 0 }, 'partitions'],
      [{ retention: -1 }, 'retention'],
      [{ maxLength: 0 }, 'maxLength'],
      [{ newerVersion: 'drop' }, 'newerVersion'],
      [{ holdFor: '1s' }, 'holdFor'],
      [{ schemas: { 'order.created': {} } }, 'schemas'],
      [{ partition: 8 }, "no option 'partition'"],
    ])('that are not allowed are an error of the constructor: %o', (options, message) => {
      expect(() => createStore().createBus(options as never)).toThrow(message);
    });

    it.each([
      ['order..created', {}, 'pattern'],
      ['*', {}, 'pattern'],
      ['order.paid.*', {}, 'order.*'],
      ['order.created', { group: 'a b' }, 'group'],
      ['order.created', { group: undefined }, "needs the option 'group'"],
      ['order.created', { from: 'end' }, 'from'],
      ['order.created', { maxAttempts: 0 }, 'maxAttempts'],
      ['order.created', { backoff: 100 }, 'backoff'],
      ['order.created', { prefetch: 0 }, 'prefetch'],
      ['order.created', { concurrency: 0 }, 'concurrency'],
      ['order.created', { inbox: {} }, 'inbox'],
      ['order.created', { retries: 3 }, "no option 'retries'"],
      ['order.created', { broadcast: true }, "no option 'group'"],
    ])('of a subscription that are not allowed reject: %s %o', async (pattern, options, message) => {
      const subscribing = open().subscribe(pattern, () => {}, { group: 'g', ...options } as never);
      await expect(subscribing).rejects.toThrow(message);
    });
  });
}
