import pg from 'pg';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  DatabaseError,
  InvalidEventError,
  OutboxBehindError,
  PartitionsMismatchError,
} from '../../src/errors.ts';
import type { DomainEvent } from '../../src/events/domain-event.ts';
import type { EventBus } from '../../src/events/event-bus.ts';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import { deferred } from '../../src/internal/deferred.ts';
import {
  type Database,
  type Executor,
  fromPg,
  PostgresOutbox,
  type PostgresOutboxOptions,
  readSource,
  resetSource,
} from '../../src/postgres/index.ts';
import { Sequencer } from '../../src/postgres/sequencer.ts';
import { RedisEventBus } from '../../src/redis/index.ts';
import { dieAt, faultyBus, faultyDatabase, freezer } from '../support/faults.ts';
import { emptyTables, type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;
let database: Database;
let bus: InMemoryEventBus;

beforeAll(async () => {
  test = await uniqueDatabase();
});

beforeEach(async () => {
  await emptyTables(test);
  database = fromPg(test.pool);
  bus = new InMemoryEventBus({ source: 'test', partitions: 4 });
});

/** An outbox that is closed with the test. */
function createOutbox(options: Partial<PostgresOutboxOptions> = {}): PostgresOutbox {
  const outbox = new PostgresOutbox({ database, bus, ...options });
  onTestFinished(() => outbox.close());
  return outbox;
}

const changed = (aggregateId: string, number: number) => ({
  eventType: 'order.changed',
  aggregateId,
  data: number,
});

/** Lists what a bus has, as `aggregateId:data`, the first one first. */
async function contentOf(from: EventBus): Promise<string[]> {
  const names: string[] = [];
  for await (const { aggregateId, data } of from.replay()) names.push(`${aggregateId}:${data}`);
  return names;
}

const names = (aggregates: number, count: number) =>
  Array.from({ length: count }, (_, number) => `a${number % aggregates}:${number}`);

async function publishMany(
  outbox: PostgresOutbox,
  aggregates: number,
  count: number,
  from = 0,
): Promise<void> {
  const numbers = Array.from({ length: count }, (_, index) => from + index);
  await outbox.publish(
    numbers.map((number) => changed(`a${number % aggregates}`, number)),
    database,
  );
}

/** The names of each aggregate, in their order. */
function byAggregate(list: readonly string[]): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const name of list.toSorted((one, other) => aggregateOf(one).localeCompare(aggregateOf(other)))) {
    groups.set(aggregateOf(name), [...(groups.get(aggregateOf(name)) ?? []), name]);
  }
  return groups;
}

const aggregateOf = (name: string) => name.split(':')[0]!;

/** Waits until a bus has these events and no others, those of each aggregate in this order. */
async function expectContent(from: EventBus, expected: readonly string[]): Promise<void> {
  await vi.waitFor(async () => expect(await contentOf(from)).toHaveLength(expected.length));
  const content = await contentOf(from);
  expect(byAggregate(content)).toEqual(byAggregate(expected));
}

describe('publishing in a transaction', () => {
  it('events of a transaction that commits are published, and those of one that is rolled back are not', async () => {
    const outbox = createOutbox();
    outbox.start();
    await database.transaction((tx) => outbox.publish(changed('a', 1), tx));
    const failing = database.transaction(async (tx) => {
      await outbox.publish(changed('a', 2), tx);
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    await database.transaction((tx) => outbox.publish([changed('b', 3), changed('a', 4)], tx));
    await expectContent(bus, ['a:1', 'b:3', 'a:4']);
  });

  it('publish gives the events with all that was filled in, and the bus gets the same', async () => {
    const outbox = createOutbox();
    outbox.start();
    const event = await outbox.publish(changed('a', 1), database);
    expect(event).toMatchObject({ eventType: 'order.changed', data: 1, version: 1, source: 'test' });
    const [list] = await outbox.publish([changed('a', 2)], database);
    await expectContent(bus, ['a:1', 'a:2']);
    const relayed: DomainEvent[] = [];
    for await (const each of bus.replay()) relayed.push(each);
    expect(relayed).toEqual([event, list]);
  });

  it.each(['before', 'after'] as const)(
    'an event whose transaction of the caller was rolled back %s its statement is not published',
    async (when) => {
      const client = await test.pool.connect();
      onTestFinished(() => client.release());
      const outbox = createOutbox();
      await client.query('begin');
      const publishing = outbox.publish(changed('a', 1), fromPg(client));
      if (when === 'after') await publishing;
      await client.query('rollback');
      if (when === 'before') await expect(publishing).rejects.toThrow('without an open transaction');
      expect((await database.query('select from holdfast.outbox')).rowCount).toBe(0);
    },
  );

  it('an event that is given to a pool, by which it would be published whatever happens, is not', async () => {
    const outbox = createOutbox();
    const pool = test.pool as unknown as Executor;
    await expect(outbox.publish(changed('a', 1), pool)).rejects.toThrow('without an open transaction');
    expect((await database.query('select from holdfast.outbox')).rowCount).toBe(0);
  });

  it('an event that is not what it must be is not stored, nor is any other of its list', async () => {
    const outbox = createOutbox();
    const list = [changed('a', 1), { ...changed('a', 2), data: Number.NaN }];
    await expect(outbox.publish(list, database)).rejects.toBeInstanceOf(InvalidEventError);
    expect((await database.query('select from holdfast.outbox')).rowCount).toBe(0);
  });

  it('an empty list publishes nothing', async () => {
    expect(await createOutbox().publish([], database)).toEqual([]);
  });

  it('ten concurrent publishers keep the order of each aggregate', async () => {
    const outbox = createOutbox();
    outbox.start();
    await database.query('create sequence numbers');
    await Promise.all(
      Array.from({ length: 10 }, async (_, publisher) => {
        for (let round = 0; round < 20; round++) {
          const aggregateId = `a${(publisher + round) % 3}`;
          await database.transaction(async (tx) => {
            const { eventId } = await outbox.publish(changed(aggregateId, 0), tx);
            // It holds the lock of the aggregate until the commit: so this is the order of the commits.
            await tx.query(
              `update holdfast.outbox set event = jsonb_set(event::jsonb, '{data}', to_jsonb(nextval('numbers')))::text
               where event like '%' || $1 || '%'`,
              [eventId],
            );
          });
        }
      }),
    );
    await vi.waitFor(async () => expect(await contentOf(bus)).toHaveLength(200));
    for (const content of byAggregate(await contentOf(bus)).values()) {
      const numbers = content.map((name) => Number(name.split(':')[1]));
      expect(numbers).toEqual(numbers.toSorted((one, other) => one - other));
    }
  });

  it('two lists of the same aggregates in another order do not block each other', async () => {
    const outbox = createOutbox();
    const rounds = Array.from({ length: 20 }, (_, number) => [
      outbox.publish([changed('a', number), changed('b', number), changed('c', number)], database),
      outbox.publish([changed('c', number), changed('b', number), changed('a', number)], database),
    ]);
    await expect(Promise.all(rounds.flat())).resolves.toHaveLength(40);
  });

  it('two transactions that block each other: one gets a DatabaseError that is retryable', async () => {
    const outbox = createOutbox();
    const both = [deferred<void>(), deferred<void>()];
    const run = (first: string, second: string, index: number) =>
      database.transaction(async (tx) => {
        await tx.query(`set local deadlock_timeout = '20ms'`);
        await outbox.publish(changed(first, 1), tx);
        both[index]!.resolve();
        await both[1 - index]!.promise;
        await outbox.publish(changed(second, 2), tx);
      });
    const results = await Promise.allSettled([run('a', 'b', 0), run('b', 'a', 1)]);
    const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    expect(errors).toEqual([expect.any(DatabaseError)]);
    expect(errors[0]).toMatchObject({ retryable: true, sqlState: '40P01' });
  });
});

describe('several relays', () => {
  it('two relays share the partitions, and one that closes leaves them to the other', async () => {
    const [first, second] = [createOutbox({ lease: 300 }), createOutbox({ lease: 300 })];
    const owned = [new Set<number>(), new Set<number>()];
    for (const [index, outbox] of [first, second].entries()) {
      outbox.on('acquire', ({ partition }) => owned[index]!.add(partition));
      outbox.on('lose', ({ partition }) => owned[index]!.delete(partition));
    }
    first.start();
    await vi.waitFor(() => expect(owned[0]!.size).toBe(4));
    second.start();
    await vi.waitFor(() => expect(owned.map(({ size }) => size)).toEqual([2, 2]));
    await publishMany(first, 20, 400);
    await expectContent(bus, names(20, 400));
    await first.close();
    await vi.waitFor(() => expect(owned[1]!.size).toBe(4));
    await publishMany(second, 20, 100, 400);
    await expectContent(bus, names(20, 500));
  });

  it('a relay that is frozen while another takes over publishes nothing twice when it wakes', async () => {
    const ice = freezer();
    const frozen = createOutbox({
      database: faultyDatabase(database, ice.fault),
      bus: faultyBus(bus, ice.fault),
      lease: 150,
    });
    const lost = vi.fn();
    frozen.on('lose', lost);
    const other = createOutbox({ lease: 150 });
    frozen.start();
    await publishMany(other, 10, 200);
    await expectContent(bus, names(10, 200));
    // It has read these, and is about to send them.
    const appending = vi.fn();
    frozen.on('relay', appending);
    ice.freeze();
    await publishMany(other, 10, 200, 200);
    other.start();
    await expectContent(bus, names(10, 400));
    await publishMany(other, 10, 200, 400);
    await expectContent(bus, names(10, 600));
    ice.thaw();
    await vi.waitFor(() => expect(lost.mock.calls.length).toBeGreaterThan(0));
    await publishMany(other, 10, 100, 600);
    await expectContent(bus, names(10, 700));
  });

  it.each(['before', 'after'] as const)(
    'a relay that dies %s any of its statements loses nothing and publishes nothing twice',
    async (side) => {
      let expected = 0;
      for (let at = 1; at <= 24; at++) {
        const death = dieAt(at, side);
        const dying = createOutbox({
          database: faultyDatabase(database, death.fault),
          bus: faultyBus(bus, death.fault),
          lease: 100,
          keepPublished: 0,
        });
        await publishMany(createOutbox(), 5, 20, expected);
        expected += 20;
        dying.start();
        await death.died;
        await dying.close();
        // What the dead process held is free at once, as if its time had run out.
        await database.query(`update holdfast.leases set until = '-infinity'`);
      }
      createOutbox({ lease: 100 }).start();
      await expectContent(bus, names(5, expected));
    },
    60_000,
  );

  it('a relay whose connections all break goes on over new ones', async () => {
    const pool = new pg.Pool({ connectionString: test.url, application_name: 'broken' });
    onTestFinished(() => pool.end());
    const broken = createOutbox({ database: fromPg(pool), lease: 300 });
    broken.start();
    for (let round = 0; round < 10; round++) {
      await publishMany(broken, 5, 20, round * 20);
      await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'broken'`,
      );
    }
    await expectContent(bus, names(5, 200));
    await broken.close();
  });
});

it('a topic whose first events get positions while the bus is asked how far it is loses none of them', async () => {
  const [asking, asked] = [deferred<void>(), deferred<void>()];
  const outbox = createOutbox({
    database: faultyDatabase(database, async (step, when) => {
      if (!step.includes('select distinct o.topic') || when === 'before') return;
      asking.resolve();
      await asked.promise;
    }),
  });
  outbox.start();
  await asking.promise;
  await publishMany(outbox, 5, 50);
  await new Sequencer(database, 'outbox').settle();
  asked.resolve();
  await expectContent(bus, names(5, 50));
});

describe('a bus that loses events', () => {
  /** A bus that can be exchanged for another one, as a Redis that restarts with older data. */
  function replaceable() {
    let current: InMemoryEventBus = bus;
    const shown = new Proxy(bus, {
      get: (_, name) => {
        const value = Reflect.get(current, name, current);
        return typeof value === 'function' ? value.bind(current) : value;
      },
    });
    return {
      bus: shown,
      replace: (next: InMemoryEventBus) => {
        current = next;
      },
    };
  }

  /** A bus with what `bus` had when it had `count` events of each partition. */
  async function olderBus(count: number): Promise<InMemoryEventBus> {
    const older = new InMemoryEventBus({ source: 'test', partitions: 4 });
    const { rows } = await database.query(
      'select partition, event from holdfast.outbox where position <= $1 order by partition, position',
      [count],
    );
    const source = await readSource(database);
    for (const partition of [0, 1, 2, 3]) {
      const events = rows.filter((row) => row.partition === partition).map(({ event }) => JSON.parse(event));
      await older.append(events, { source, partition, position: 1n, after: new Map() });
    }
    return older;
  }

  it.each([0, 7])(
    'a bus that has only the first %i events of each partition gets the others again, without traffic',
    async (count) => {
      const { bus: shown, replace } = replaceable();
      const outbox = createOutbox({ bus: shown, lease: 150 });
      outbox.start();
      await publishMany(outbox, 20, 200);
      await expectContent(bus, names(20, 200));
      const older = await olderBus(count);
      replace(older);
      await expectContent(older, names(20, 200));
      await publishMany(outbox, 20, 100, 200);
      await expectContent(older, names(20, 300));
    },
  );

  it('a bus that loses events gets nothing new before those, where it lost them between two batches', async () => {
    const { bus: shown, replace } = replaceable();
    // With a long lease only the next batch can tell.
    const outbox = createOutbox({ bus: shown, lease: 600_000 });
    const failed = vi.fn();
    outbox.on('error', ({ error }) => failed((error as { code?: string }).code));
    outbox.start();
    await publishMany(outbox, 20, 200);
    await expectContent(bus, names(20, 200));
    const older = await olderBus(5);
    replace(older);
    await publishMany(outbox, 20, 100, 200);
    await expectContent(older, names(20, 300));
    expect(failed).toHaveBeenCalledWith('ERR_EVENTS_MISSING');
  });

  it('a bus that lost events of several topics gets those again that each topic lacks', async () => {
    const { bus: shown, replace } = replaceable();
    const outbox = createOutbox({ bus: shown, lease: 150 });
    outbox.start();
    const list = Array.from({ length: 60 }, (_, number) => ({
      ...changed(`a${number % 3}`, number),
      eventType: number % 2 === 0 ? 'order.changed' : 'user.changed',
    }));
    await outbox.publish(list, database);
    await expectContent(bus, names(3, 60));
    const older = await olderBus(9);
    replace(older);
    await expectContent(older, names(3, 60));
  });

  it('events that the bus rejects wait, and none is lost', async () => {
    let away = true;
    const outbox = createOutbox({
      bus: faultyBus(bus, () => {
        if (away) throw new Error('away');
      }),
      lease: 300,
    });
    const failed = vi.fn();
    outbox.on('error', ({ error, partition }) => failed((error as Error).message, partition));
    outbox.start();
    await publishMany(outbox, 5, 50);
    await vi.waitFor(() => expect(failed).toHaveBeenCalledWith('away', expect.any(Number)));
    away = false;
    await expectContent(bus, names(5, 50));
  });

  it('a database that was restored from a backup relays nothing until it has a new id', async () => {
    const outbox = createOutbox({ lease: 150 });
    outbox.start();
    await publishMany(outbox, 5, 50);
    await expectContent(bus, names(5, 50));
    await outbox.close();
    await test.pool.query('truncate holdfast.outbox');
    const restored = createOutbox({ lease: 150 });
    const failed = vi.fn();
    restored.on('error', ({ error }) => failed(error));
    await restored.publish(changed('a0', 50), database);
    restored.start();
    await vi.waitFor(() => expect(failed).toHaveBeenCalledWith(expect.any(OutboxBehindError)));
    await restored.close();
    await resetSource(database);
    createOutbox({ lease: 150 }).start();
    await expectContent(bus, names(5, 50).concat('a0:50'));
  });
});

describe('published events', () => {
  const count = async () => (await database.query('select from holdfast.outbox')).rowCount;

  it('published events are deleted after keepPublished, but for the last one of each partition, by which it counts', async () => {
    const outbox = createOutbox({ keepPublished: 100, lease: 150 });
    outbox.start();
    await publishMany(outbox, 20, 400);
    await expectContent(bus, names(20, 400));
    await vi.waitFor(async () => expect(await count()).toBe(4));
    await publishMany(outbox, 20, 100, 400);
    await expectContent(bus, names(20, 500));
  });

  it('published events stay as long as keepPublished says, by the clock of the database', async () => {
    let looks = 0;
    const counting = faultyDatabase(database, (step, when) => {
      if (when === 'after' && step.includes('delete from holdfast.outbox ')) looks++;
    });
    const outbox = createOutbox({ database: counting, keepPublished: 60_000, lease: 150 });
    outbox.start();
    await publishMany(outbox, 20, 400);
    await expectContent(bus, names(20, 400));
    const seen = looks;
    await vi.waitFor(() => expect(looks).toBeGreaterThan(seen + 16));
    expect(await count()).toBe(400);
    await database.query(`update holdfast.outbox_partitions set marked_at = marked_at - interval '1 minute'`);
    await vi.waitFor(async () => expect(await count()).toBe(4));
  });

  it('no events are deleted while the bus is away, nor those that it has not got', async () => {
    let away = false;
    const outbox = createOutbox({
      keepPublished: 0,
      lease: 150,
      bus: faultyBus(bus, () => {
        if (away) throw new Error('away');
      }),
    });
    outbox.start();
    await publishMany(outbox, 20, 40);
    await expectContent(bus, names(20, 40));
    away = true;
    await publishMany(outbox, 20, 40, 40);
    const failed = deferred<void>();
    outbox.on('error', () => failed.resolve());
    await failed.promise;
    expect(await count()).toBeGreaterThanOrEqual(40);
    away = false;
    await expectContent(bus, names(20, 80));
  });
});

describe('an outbox', () => {
  it('an outbox needs no session: each statement may use another connection', async () => {
    const outbox = createOutbox({ lease: 150 });
    const pool = new pg.Pool({ connectionString: test.url, maxUses: 1 });
    onTestFinished(() => pool.end());
    const other = createOutbox({ database: fromPg(pool), lease: 150 });
    other.start();
    await other.publish([changed('a', 1), changed('a', 2)], fromPg(pool));
    await expectContent(bus, ['a:1', 'a:2']);
    await other.close();
    await outbox.close();
  });

  it('an outbox relays nothing to a bus with another number of partitions, where order would be lost', async () => {
    const outbox = createOutbox();
    const acquired = new Promise((resolve) => outbox.once('acquire', resolve));
    outbox.start();
    await acquired;
    await outbox.close();
    const other = createOutbox({ bus: new InMemoryEventBus({ source: 'test', partitions: 8 }) });
    const failed = new Promise((resolve) => other.once('error', resolve));
    other.start();
    expect(await failed).toEqual({ error: expect.any(PartitionsMismatchError) });
  });

  it('an outbox stores nothing for another number of partitions than it is relayed with', async () => {
    const outbox = createOutbox();
    const other = createOutbox({ bus: new InMemoryEventBus({ source: 'test', partitions: 16 }) });
    await outbox.publish(changed('a', 1), database);
    outbox.start();
    await expectContent(bus, ['a:1']);
    await expect(other.publish([changed('b', 1), changed('c', 1)], database)).rejects.toBeInstanceOf(
      PartitionsMismatchError,
    );
    expect((await database.query('select from holdfast.outbox')).rowCount).toBe(1);
  });

  it('a process that only publishes needs no connection to the bus', async () => {
    const away = new RedisEventBus({ redis: 'redis://127.0.0.1:1', source: 'test', partitions: 4 });
    onTestFinished(() => away.close());
    const failed = vi.fn();
    away.on('error', failed);
    await createOutbox({ bus: away }).publish(changed('a', 1), database);
    createOutbox().start();
    await expectContent(bus, ['a:1']);
    expect(failed).not.toHaveBeenCalled();
  });

  it('services that share a bus have each a source of its own', async () => {
    const [orders, users] = [createOutbox({ source: 'orders' }), createOutbox()];
    const [one, two, own] = [
      await orders.publish(changed('a', 1), database),
      await users.publish(changed('a', 2), database),
      await orders.publish({ ...changed('a', 3), source: 'import' }, database),
    ];
    expect([one, two, own].map(({ source }) => source)).toEqual(['orders', 'test', 'import']);
  });

  it.each(['database', 'bus'] as const)(
    'an outbox closes within its lease though the %s hangs, and tells why',
    async (what) => {
      const [ice, hung] = [freezer(), deferred<void>()];
      const fault = () => {
        const frozen = ice.fault();
        if (frozen !== undefined) hung.resolve();
        return frozen;
      };
      const faulty =
        what === 'database' ? { database: faultyDatabase(database, fault) } : { bus: faultyBus(bus, fault) };
      const outbox = createOutbox({ ...faulty, lease: 150 });
      const failed = vi.fn();
      outbox.on('error', ({ error }) => failed((error as { code?: string }).code));
      outbox.start();
      await outbox.publish(changed('a', 1), database);
      await expectContent(bus, ['a:1']);
      ice.freeze();
      await outbox.publish(changed('a', 2), database);
      await hung.promise;
      await outbox.close();
      expect(failed.mock.calls).toEqual([['ERR_TIMEOUT']]);
      ice.thaw();
      createOutbox({ lease: 150 }).start();
      await expectContent(bus, ['a:1', 'a:2']);
    },
  );

  it('an outbox tells what it relays, and closes twice', async () => {
    const outbox = createOutbox();
    const relayed = vi.fn();
    outbox.on('relay', relayed);
    outbox.start();
    outbox.start();
    await outbox.publish([changed('a', 1), changed('a', 2)], database);
    await expectContent(bus, ['a:1', 'a:2']);
    expect(relayed).toHaveBeenCalledWith({ partition: expect.any(Number), count: 2, position: 1n });
    await Promise.all([outbox.close(), outbox.close()]);
    expect(() => outbox.start()).toThrow('the outbox is closed');
    await outbox.publish(changed('a', 3), database);
  });

  it.each([
    [{}, "PostgresOutbox needs the option 'database'"],
    [{ database: {} }, "PostgresOutbox option 'database' must be an object with query(), transaction()"],
    [{ lease: 1 }, "PostgresOutbox option 'lease' must be a number from 100 to 3600000"],
    [{ keepPublished: -1 }, "PostgresOutbox option 'keepPublished' must be a number from 0"],
    [{ kept: 1 }, "PostgresOutbox has no option 'kept'"],
  ])('an outbox rejects the options %o', (options, message) => {
    expect(() => new PostgresOutbox(options as never)).toThrow(message);
  });

  it('publish rejects what is no transaction', async () => {
    await expect(createOutbox().publish(changed('a', 1), undefined as never)).rejects.toThrow(
      "the parameter 'tx' of publish() must be an object with query()",
    );
  });
});
