import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import {
  type BusOptions,
  constantBackoff,
  type DomainEvent,
  type EventBus,
  type EventBusEvents,
  InMemoryInbox,
  type NewEvent,
  StreamFullError,
  type Subscription,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import type { Emitter } from '../../src/internal/emitter.ts';
import { Recorder, toArray } from './recorder.ts';

type AnyBus = EventBus & Emitter<EventBusEvents>;

const quick = { group: 'g', backoff: constantBackoff(1) };
const order = (aggregateId: string, n: number, rest: Partial<NewEvent> = {}): NewEvent => ({
  eventType: 'order.created',
  aggregateId,
  data: { n },
  ...rest,
});
const numberOf = ({ data }: DomainEvent) => (data as { n: number }).n;
const fail = () => {
  throw new Error('no stock');
};

/** Resolves with what a bus tells by its next event of a name. */
function next<Name extends keyof EventBusEvents>(bus: AnyBus, name: Name): Promise<EventBusEvents[Name][0]> {
  return new Promise((resolve) => void bus.once(name, resolve as never));
}

/** Describes what becomes of events in hard cases, whatever a bus stores them in. */
export function describeDelivery(name: string, createBus: (options?: Partial<BusOptions>) => AnyBus): void {
  const open = (options?: Partial<BusOptions>) => {
    const bus = createBus(options);
    onTestFinished(() => bus.close());
    return bus;
  };

  /** A bus of one partition that has events as another process, or a later release, has stored them. */
  const openWith = async (events: Partial<DomainEvent>[], options: Partial<BusOptions> = {}) => {
    const bus = open({ partitions: 1, ...options });
    const stored = await Promise.all(
      events.map(async (event, n) => ({ ...(await bus.create(order('o1', n))), ...event })),
    );
    await bus.append(stored, { source: 'db1', partition: 0, position: 1n, after: new Map() });
    return bus;
  };

  const readLetters = async (bus: AnyBus, count: number, group = 'g') => {
    await vi.waitFor(async () => expect(await toArray(bus.deadLetters({ group }))).toHaveLength(count));
    return toArray(bus.deadLetters({ group }));
  };

  describe(`events in ${name}`, () => {
    it('are frozen when they are published', async () => {
      const event = await open().publish(order('o1', 1));
      expect(Object.isFrozen(event)).toBe(true);
      expect(Object.isFrozen(event.metadata)).toBe(true);
    });

    it('keep the order of publish() calls that nobody has awaited', async () => {
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await Promise.all(Array.from({ length: 50 }, (_, n) => bus.publish(order('o1', n))));
      await recorder.reach(50);
      expect(recorder.numbers).toEqual(Array.from({ length: 50 }, (_, n) => n));
    });

    it.each([
      ['a name in another script', 'Bestellung-Ä-注文-📦'],
      ['braces, slashes and quotes', '{order}:1/"\'\\2'],
      ['256 characters', 'o'.repeat(256)],
    ])('may be of an aggregate whose id is %s', async (_, aggregateId) => {
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      const event = await bus.publish(order(aggregateId, 1));
      await recorder.reach(1);
      expect(recorder.events).toEqual([event]);
      expect(await toArray(bus.replay({ aggregateId }))).toEqual([event]);
    });

    it.each([
      ['null', null],
      ['false', false],
      ['an empty text', ''],
      ['a list', [1, [2, { three: '\u2028 "quoted" 📦' }]]],
      ['an object with a field __proto__', JSON.parse('{"__proto__":{"admin":true}}')],
    ])('may have as their data %s', async (_, data) => {
      const bus = open();
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1, { data }));
      await recorder.reach(1);
      expect(JSON.stringify(recorder.events[0]!.data)).toBe(JSON.stringify(data));
    });

    it('are told when they are published and when they are handled', async () => {
      const bus = open();
      const [published, handled] = [next(bus, 'publish'), next(bus, 'handle')];
      await bus.subscribe('order.created', () => {}, quick);
      const event = await bus.publish(order('o1', 1));
      expect(await published).toEqual({ event });
      expect(await handled).toEqual({ event, group: 'g', attempt: 1 });
    });

    it('are handled although the listeners of the bus throw', async () => {
      vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
      const bus = open();
      for (const listened of ['publish', 'handle', 'fail', 'die'] as const) bus.on(listened, fail);
      const recorder = new Recorder((event) => void (numberOf(event) === 0 && fail()));
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 2 });
      await bus.publish([order('o1', 0), order('o1', 1)]);
      await recorder.reach(3);
      expect(recorder.numbers).toEqual([0, 0, 1]);
      await readLetters(bus, 1);
    });

    it('are handled in the context of their subscription, not of their publisher', async () => {
      const bus = open();
      const user = new AsyncLocalStorage<string>();
      const seen: (string | undefined)[] = [];
      const recorder = new Recorder(() => void seen.push(user.getStore()));
      await user.run('subscriber', () => bus.subscribe('order.created', recorder.handle, quick));
      await user.run('first', () => bus.publish(order('o1', 1)));
      await recorder.reach(1);
      await new Promise(setImmediate);
      await user.run('second', () => bus.publish(order('o1', 2)));
      await recorder.reach(2);
      expect(seen).toEqual(['subscriber', 'subscriber']);
    });
  });

  describe(`attempts on ${name}`, () => {
    it('each get the event as it was published, and so do the dead letters', async () => {
      const bus = open();
      const seen: number[] = [];
      const spoil = (event: DomainEvent) => {
        seen.push(numberOf(event));
        (event.data as { n: number }).n = 99;
        fail();
      };
      await bus.subscribe('order.created', spoil, { ...quick, maxAttempts: 3 });
      const event = await bus.publish(order('o1', 1));
      const [letter] = await readLetters(bus, 1);
      expect(seen).toEqual([1, 1, 1]);
      expect(letter!.event).toEqual(event);
    });

    it('have no end if maxAttempts is Infinity', async () => {
      const bus = open();
      const recorder = new Recorder((_event, { attempt }) => void (attempt < 15 && fail()));
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: Infinity });
      await bus.publish(order('o1', 1));
      await recorder.reach(15);
      expect(recorder.attempts.at(-1)).toBe(15);
    });

    it('pass over an event that the inbox has seen', async () => {
      const bus = open();
      const recorder = new Recorder();
      const inbox = new InMemoryInbox();
      await bus.subscribe('order.created', recorder.handle, { ...quick, inbox });
      await bus.publish([
        order('o1', 1, { eventId: 'e1' }),
        order('o1', 1, { eventId: 'e1' }),
        order('o1', 2),
      ]);
      await recorder.reach(2);
      expect(recorder.numbers).toEqual([1, 2]);
    });

    it('of a broadcast that fail are told, and the event leaves nothing behind', async () => {
      const bus = open();
      const died = vi.fn();
      bus.on('die', died);
      const recorder = new Recorder(() => fail());
      const told: unknown[] = [];
      const over = deferred<void>();
      bus.on('fail', ({ group, attempt, retryIn }) => {
        told.push({ group, attempt, retryIn });
        if (attempt === 2) over.resolve();
      });
      const options = { broadcast: true, maxAttempts: 2, backoff: constantBackoff(1) } as const;
      await bus.subscribe('order.created', recorder.handle, options);
      await bus.publish(order('o1', 1));
      await over.promise;
      expect(told).toEqual([
        { group: undefined, attempt: 1, retryIn: 1 },
        { group: undefined, attempt: 2, retryIn: undefined },
      ]);
      expect(died).not.toHaveBeenCalled();
    });
  });

  describe(`members of a group on ${name}`, () => {
    it('take over from one that leaves, and keep the order of each aggregate', async () => {
      const bus = open();
      const handled = new Map<string, number[]>();
      let count = 0;
      const all = deferred<void>();
      const handler = async (event: DomainEvent) => {
        await new Promise(setImmediate);
        handled.set(event.aggregateId, [...(handled.get(event.aggregateId) ?? []), numberOf(event)]);
        if (++count === 400) all.resolve();
      };
      const members: Subscription[] = [];
      const join = async () => void members.push(await bus.subscribe('order.created', handler, quick));
      await join();
      await join();
      for (let n = 0; n < 20; n++) {
        await bus.publish(Array.from({ length: 20 }, (_, index) => order(`o${index}`, n)));
        if (n % 5 === 2) await join();
        if (n % 5 === 4) await members.shift()!.close();
      }
      await all.promise;
      const inOrder = Array.from({ length: 20 }, (_, n) => n);
      expect([...handled.values()]).toEqual(Array.from({ length: 20 }, () => inOrder));
    });

    it('that leave do not wait for the handlers of the others', async () => {
      const bus = open();
      const gate = deferred<void>();
      const under = new Recorder(() => gate.promise);
      await bus.subscribe('order.created', under.handle, quick);
      await bus.publish(Array.from({ length: 8 }, (_, index) => order(`o${index}`, index)));
      await under.reach(8);
      const idle = await Promise.all([1, 2].map(() => bus.subscribe('order.created', () => {}, quick)));
      await Promise.all(idle.map((subscription) => subscription.close()));
      gate.resolve();
    });

    it('may leave twice, and from within a handler', async () => {
      const bus = open();
      const left = deferred<void>();
      const recorder = new Recorder(() => {
        Promise.all([subscription.close(), subscription.close()]).then(() => left.resolve(), left.reject);
      });
      const subscription = await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish([order('o1', 0), order('o1', 1)]);
      await left.promise;
      const second = new Recorder();
      await bus.subscribe('order.created', second.handle, quick);
      await second.reach(1);
      expect([recorder.numbers, second.numbers]).toEqual([[0], [1]]);
    });

    it('may still publish from their handlers while the bus closes', async () => {
      const bus = open();
      const gate = deferred<void>();
      const published: Promise<unknown>[] = [];
      const recorder = new Recorder(async () => {
        await gate.promise;
        published.push(bus.publish(order('o2', 2, { eventType: 'order.paid' })));
        await published[0];
      });
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(order('o1', 1));
      await recorder.reach(1);
      const closing = bus.close();
      gate.resolve();
      await closing;
      expect(await published[0]).toMatchObject({ eventType: 'order.paid' });
    });

    it('are waited for when the bus closes, and so is what is being published', async () => {
      const gate = deferred<void>();
      const schemas = {
        'order.created': z.object({ n: z.number() }).refine(() => gate.promise.then(() => true)),
      };
      const bus = open({ schemas });
      const publishing = bus.publish(order('o1', 1));
      let closed = false;
      const closing = bus.close().then(() => {
        closed = true;
      });
      await new Promise(setImmediate);
      expect(closed).toBe(false);
      gate.resolve();
      await expect(publishing).resolves.toMatchObject({ data: { n: 1 } });
      await closing;
    });
  });

  describe(`${name} that is closed`, () => {
    it.each<[string, (bus: AnyBus) => unknown]>([
      ['publish()', (bus) => bus.publish(order('o1', 1))],
      ['subscribe()', (bus) => bus.subscribe('order.*', () => {}, quick)],
      ['deadLetters()', (bus) => toArray(bus.deadLetters({ group: 'g' }))],
      ['redrive()', (bus) => bus.redrive({ group: 'g' })],
      ['replay()', (bus) => toArray(bus.replay())],
      ['removeGroup()', (bus) => bus.removeGroup('g')],
      ['append()', (bus) => bus.append([], { source: 'db1', partition: 0, position: 1n, after: new Map() })],
      ['lastPosition()', (bus) => bus.lastPosition('db1', 0, 'order')],
    ])('rejects %s', async (_, call) => {
      const bus = open();
      await bus.close();
      await expect(call(bus)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    });
  });

  describe(`stored events that ${name} cannot hand on`, () => {
    it('are dead at once if the schema of their type does not allow them', async () => {
      const schemas = { 'order.created': z.object({ n: z.number() }) };
      const bus = await openWith([{ data: { n: 'one' } }, {}], { schemas });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([1]);
      const [letter] = await readLetters(bus, 1);
      expect(letter).toMatchObject({ attempts: 1, errors: [{ attempt: 1, code: 'ERR_INVALID_EVENT' }] });
    });

    it('wait, with their aggregate, for a process that knows their version, and others go on', async () => {
      vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
      const bus = await openWith([{ version: 2 }, {}, { aggregateId: 'o2' }]);
      const held = next(bus, 'hold');
      const recorder = new Recorder();
      const subscription = await bus.subscribe('order.created', recorder.handle, quick);
      const { event, group, until } = await held;
      expect({ version: event.version, group }).toEqual({ version: 2, group: 'g' });
      expect(until - Date.now()).toBeGreaterThan(590_000);
      await recorder.reach(1);
      await subscription.close();
      expect(recorder.numbers).toEqual([2]);
    });

    it('are dead if nobody knew their version within holdFor, and their aggregate goes on', async () => {
      vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
      const bus = await openWith([{ version: 2 }, {}], { holdFor: 20 });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([1]);
      const [letter] = await readLetters(bus, 1);
      expect(letter).toMatchObject({ event: { version: 2 }, errors: [{ code: 'ERR_EVENT_VERSION' }] });
    });

    it("are dead at once if newerVersion is 'dead'", async () => {
      const bus = await openWith([{ version: 2 }, {}], { newerVersion: 'dead' });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([1]);
      await readLetters(bus, 1);
    });
  });

  describe(`the room of ${name}`, () => {
    const small = { partitions: 1, maxLength: 5, retention: 0 };
    const publishAll = async (bus: AnyBus, count: number) => {
      for (let n = 0; n < count; n++) await vi.waitFor(() => bus.publish(order('o1', n)));
    };

    it('is made by dropping what every group has handled and is older than the retention', async () => {
      const bus = open(small);
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await publishAll(bus, 12);
      await recorder.reach(12);
      expect(recorder.numbers).toEqual(Array.from({ length: 12 }, (_, n) => n));
    });

    it('is not made by dropping what a group has not handled, however old it is', async () => {
      const bus = open(small);
      const gate = deferred<void>();
      const recorder = new Recorder(() => gate.promise);
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(Array.from({ length: 5 }, (_, n) => order('o1', n)));
      await recorder.reach(1);
      await expect(bus.publish(order('o1', 5))).rejects.toThrow(StreamFullError);
      gate.resolve();
      await vi.waitFor(() => bus.publish(order('o1', 5)));
      await recorder.reach(6);
      expect(recorder.numbers).toEqual([0, 1, 2, 3, 4, 5]);
    });

    it('is not made by dropping what no group has handled and is within the retention', async () => {
      const bus = open({ ...small, retention: 3_600_000 });
      const recorder = new Recorder();
      await bus.subscribe('order.created', recorder.handle, quick);
      await bus.publish(Array.from({ length: 5 }, (_, n) => order('o1', n)));
      await recorder.reach(5);
      await expect(bus.publish(order('o1', 5))).rejects.toThrow(StreamFullError);
      expect(await toArray(bus.replay())).toHaveLength(5);
    });

    it('depends on age alone if there is no group', async () => {
      const bus = open(small);
      await publishAll(bus, 12);
      expect((await toArray(bus.replay())).length).toBeLessThanOrEqual(5);
    });

    it('does not depend on a broadcast', async () => {
      const bus = open(small);
      const gate = deferred<void>();
      const recorder = new Recorder(() => gate.promise);
      await bus.subscribe('order.created', recorder.handle, { broadcast: true });
      await publishAll(bus, 12);
      gate.resolve();
    });

    it('does not depend on a group for other types of the topic', async () => {
      const bus = open(small);
      const recorder = new Recorder();
      await bus.subscribe('order.paid', recorder.handle, quick);
      await publishAll(bus, 12);
      await vi.waitFor(() => bus.publish(order('o1', 12, { eventType: 'order.paid' })));
      await recorder.reach(1);
      expect(recorder.numbers).toEqual([12]);
    });
  });

  describe(`the groups of ${name}`, () => {
    it('get a dead letter again in the pattern in which it died alone', async () => {
      const bus = open();
      let healthy = false;
      const created = new Recorder(() => void (healthy || fail()));
      const all = new Recorder();
      await bus.subscribe('order.created', created.handle, { ...quick, maxAttempts: 1 });
      await bus.subscribe('order.*', all.handle, quick);
      await bus.publish(order('o1', 1));
      await readLetters(bus, 1);
      healthy = true;
      expect(await bus.redrive({ group: 'g' })).toBe(1);
      await created.reach(2);
      await bus.publish(order('o1', 2));
      await Promise.all([created.reach(3), all.reach(2)]);
      expect([created.numbers, all.numbers]).toEqual([
        [1, 1, 2],
        [1, 2],
      ]);
    });

    it('count the attempts of a dead letter that is delivered again from one', async () => {
      const bus = open();
      const recorder = new Recorder(() => fail());
      await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 2 });
      const { eventId } = await bus.publish(order('o1', 1));
      await readLetters(bus, 1);
      expect(await bus.redrive({ group: 'g', eventId: 'other' })).toBe(0);
      expect(await bus.redrive({ group: 'g', eventId })).toBe(1);
      await recorder.reach(4);
      expect(recorder.attempts).toEqual([1, 2, 1, 2]);
      const [letter] = await readLetters(bus, 1);
      expect(letter).toMatchObject({ attempts: 2, event: { eventId } });
    });

    it('that are removed take their dead letters with them', async () => {
      const bus = open();
      const subscription = await bus.subscribe('order.created', fail, { ...quick, maxAttempts: 1 });
      await bus.publish(order('o1', 1));
      await readLetters(bus, 1);
      await subscription.close();
      expect(await bus.removeGroup('g')).toBe(true);
      expect(await toArray(bus.deadLetters({ group: 'g' }))).toEqual([]);
      expect(await bus.redrive({ group: 'g' })).toBe(0);
    });

    it.each([
      ['deadLetters()', (bus: AnyBus) => toArray(bus.deadLetters({} as never)), "needs the option 'group'"],
      ['deadLetters()', (bus: AnyBus) => toArray(bus.deadLetters({ group: 'a b' })), 'group'],
      ['redrive()', (bus: AnyBus) => bus.redrive({} as never), "needs the option 'group'"],
      ['redrive()', (bus: AnyBus) => bus.redrive({ group: 'g', eventId: 5 as never }), 'eventId'],
      ['removeGroup()', (bus: AnyBus) => bus.removeGroup(undefined as never), 'group'],
      ['replay()', (bus: AnyBus) => toArray(bus.replay({ since: '1h' as never })), 'since'],
      ['replay()', (bus: AnyBus) => toArray(bus.replay({ type: '*' as never })), 'type'],
      ['replay()', (bus: AnyBus) => toArray(bus.replay({ topic: 'order' } as never)), "no option 'topic'"],
    ])('reject what %s does not take', async (_, call, message) => {
      await expect(call(open())).rejects.toThrow(TypeError);
      await expect(call(open())).rejects.toThrow(message);
    });
  });
}
