import { once } from 'node:events';
import { Cluster } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type DomainEvent, PartitionsMismatchError, RedisError, StreamFullError } from '../../src/index.ts';
import { EventKeys } from '../../src/redis/event-keys.ts';
import { Recorder, toArray } from '../events/recorder.ts';
import { sharedCluster, startRedis, uniquePrefix } from '../support/redis.ts';
import { connect, lengthOf, open, order, orders, quick, range, sorted, streamOf } from './event-buses.ts';

const numbersOf = (events: readonly DomainEvent[]) => events.map(({ data }) => (data as { n: number }).n);

describe('events in Redis', () => {
  it('may have 1 MiB each: 40 of them are handled and replayed', async () => {
    const bus = open();
    const text = 'x'.repeat(1_000_000);
    await bus.publish(range(40).map((n) => order('o1', n, { data: { n, text } })));
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await recorder.reach(40);
    expect(recorder.numbers).toEqual(range(40));
    expect(numbersOf(await toArray(bus.replay()))).toEqual(range(40));
  });

  it('of two key prefixes do not meet', async () => {
    const [one, other] = [open(), open()];
    const [first, second] = [new Recorder(), new Recorder()];
    await one.subscribe('order.*', first.handle, quick);
    await other.subscribe('order.*', second.handle, quick);
    await one.publish(order('o1', 1));
    await other.publish(order('o1', 2));
    await Promise.all([first.reach(1), second.reach(1)]);
    expect([first.numbers, second.numbers]).toEqual([[1], [2]]);
  });

  it('are rejected by a bus with another number of partitions', async () => {
    const keyPrefix = uniquePrefix();
    await open({ keyPrefix }).publish(order('o1', 1));
    const other = open({ keyPrefix, partitions: 4 });
    await expect(other.publish(order('o1', 2))).rejects.toThrow(PartitionsMismatchError);
    await expect(other.subscribe('order.created', () => {}, quick)).rejects.toThrow('8 partitions');
    await expect(toArray(other.replay())).rejects.toThrow(PartitionsMismatchError);
    expect(await lengthOf(keyPrefix)).toBe(1);
  });

  it('from an outbox have positions that no number of Lua holds', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    const events = await Promise.all(range(3).map((n) => bus.create(order('o1', n) as never)));
    const position = 2n ** 53n;
    const from = { source: 'db1', partition: 5, position, after: new Map<string, bigint>() };
    expect(await bus.append(events.slice(0, 2), from)).toBe(2);
    expect(await bus.append(events, from)).toBe(1);
    expect(await bus.lastPosition('db1', 5, 'order')).toBe(position + 2n);
    await expect(bus.append(events, { ...from, partition: 8 })).rejects.toThrow(RangeError);
  });
});

describe('what is kept in Redis', () => {
  it('is what a group has not handled, however old', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, retention: 0, lease: 300 });
    const gates = new Map<number, () => void>();
    await bus.subscribe(
      'order.created',
      ({ data }) => {
        const { n } = data as { n: number };
        return n % 2 === 0 ? undefined : new Promise<void>((resolve) => gates.set(n, resolve));
      },
      quick,
    );
    await bus.publish(range(10).map((n) => order(n < 5 ? 'o1' : `o${n}`, n)));
    await vi.waitUntil(() => gates.size === 4);
    // What is after the first event under way in its partition is kept, and that event itself.
    await vi.waitUntil(async () => (await lengthOf(keyPrefix)) < 10);
    const kept = numbersOf(await toArray(bus.replay()));
    expect(kept).toEqual(expect.arrayContaining([1, 2, 3, 4, 5, 7, 9]));
    expect(kept).not.toContain(0);
    await vi.waitUntil(() => {
      for (const open of gates.values()) open();
      return gates.has(3);
    });
    await vi.waitUntil(async () => (await lengthOf(keyPrefix)) <= 8);
  });

  it('is everything within the retention, handled or not', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, lease: 100 });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(orders('o1', 20));
    await recorder.reach(20);
    await bus.publish(order('o1', 20));
    await recorder.reach(21);
    expect(await lengthOf(keyPrefix)).toBe(21);
  });

  it('is bounded: what there is room for is stored, the rest is rejected, and nothing is dropped', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, maxLength: 10, retention: 0, lease: 100 });
    const subscription = await bus.subscribe('order.created', () => {}, { ...quick, from: 'start' });
    await subscription.close();
    const results = await Promise.allSettled(range(15).map((n) => bus.publish(order('o1', n))));
    expect(results.map(({ status }) => status === 'fulfilled')).toEqual(range(15).map((n) => n < 10));
    expect(results[12]).toMatchObject({ reason: expect.any(StreamFullError) });
    expect(await lengthOf(keyPrefix)).toBe(10);
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await recorder.reach(10);
    await vi.waitUntil(() =>
      bus.publish(order('o1', 15)).then(
        () => true,
        () => false,
      ),
    );
    await recorder.reach(11);
    expect(recorder.numbers).toEqual([...range(10), 15]);
  });
});

describe('a list that finds no room in one of its partitions', () => {
  it('has its first events stored there, all in the other ones, and is rejected', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, maxLength: 1_500, lease: 100 });
    // More than one batch, so that what comes after the first event without room is stored no more.
    const list = range(2_500).flatMap((n) => (n < 10 ? [order('o2', n), order('o1', n)] : [order('o1', n)]));
    await expect(bus.publish(list)).rejects.toThrow(StreamFullError);
    const events = await toArray(bus.replay());
    const storedOf = (id: string) => numbersOf(events.filter(({ aggregateId }) => aggregateId === id));
    expect(storedOf('o1')).toEqual(range(1_500));
    expect(storedOf('o2')).toEqual(range(10));
  });
});

describe('content that no bus has written', () => {
  it('is passed over and told where it is an entry, and a clear error where it is a key', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    const redis = connect();
    const recorder = new Recorder();
    const errors: unknown[] = [];
    bus.on('error', ({ error }) => errors.push(error));
    const stream = streamOf(keyPrefix, 5);
    await redis.xadd(stream, '*', 'event', '{"eventType":\n"order.created"}');
    await redis.xadd(stream, '*', 'event', 'no JSON');
    await redis.xadd(stream, '*', 'name', 'value');
    await bus.subscribe('order.*', recorder.handle, quick);
    await bus.publish(order('o1', 1));
    await recorder.reach(1);
    expect(recorder.numbers).toEqual([1]);
    expect(errors).toMatchObject(range(3).map(() => ({ code: 'ERR_INVALID_EVENT' })));
    expect(numbersOf(await toArray(bus.replay()))).toEqual([1]);
    expect(errors).toHaveLength(6);
    await redis.set(streamOf(keyPrefix, 5, 'user'), 'text');
    const rejection = bus.publish(order('o1', 1, { eventType: 'user.created' }));
    await expect(rejection).rejects.toThrow(/WRONGTYPE/);
    await expect(rejection).rejects.toThrow(RedisError);
  });
});

describe('a dead letter that no bus has written', () => {
  it('is passed over, and the others of the group are delivered again', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    const failing = new Recorder(() => Promise.reject(new Error('no stock')));
    const subscription = await bus.subscribe('order.created', failing.handle, { group: 'g', maxAttempts: 1 });
    const { dead } = new EventKeys(keyPrefix).group('order', 5, 'g/order.created');
    await connect().xadd(dead, '1-1', 'name', 'value');
    const died = once(bus as never, 'die');
    await bus.publish(order('o1', 1));
    await died;
    await subscription.close();
    expect(await toArray(bus.deadLetters({ group: 'g' }))).toHaveLength(1);
    expect(await bus.redrive({ group: 'g' })).toBe(1);
    expect(await toArray(bus.deadLetters({ group: 'g' }))).toEqual([]);
  });
});

describe('a lease', () => {
  it('that was given before the clock of Redis was set back lasts no longer than it was given for', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    const { lease } = new EventKeys(keyPrefix).group('order', 5, 'g/order.created');
    const until = Date.now() + 3_600_000;
    await connect().hset(lease, { owner: 'dead', token: '5', duration: 300, until });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(order('o1', 1));
    await recorder.reach(1);
  });
});

describe('a Redis that is configured otherwise', () => {
  it('gives a clear error where it denies access', async () => {
    const server = await startRedis({ args: ['--requirepass', 'secret'] });
    const bus = open({ redis: server.url });
    const error = await bus.publish(order('o1', 1)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RedisError);
    expect(error).toMatchObject({ denied: true });
    await expect(bus.subscribe('order.created', () => {}, quick)).rejects.toMatchObject({ denied: true });
  });

  it('and denies all channels has its events handled all the same', async () => {
    const server = await startRedis();
    const admin = connect(server.url);
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>app', '~*', '+@all', 'resetchannels');
    const bus = open({ redis: server.url.replace('//', '//app:app@') });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(order('o1', 1));
    await recorder.reach(1);
    await bus.publish(order('o1', 2));
    await recorder.reach(2);
    expect(recorder.numbers).toEqual([1, 2]);
  });

  it('has the process warned once where it drops keys when it is full', async () => {
    const server = await startRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'] });
    const warnings: string[] = [];
    const note = ({ message }: Error) => void warnings.push(message);
    process.on('warning', note);
    onTestFinished(() => void process.off('warning', note));
    const bus = open({ redis: server.url });
    await bus.publish([order('o1', 1), order('o1', 2, { eventType: 'user.created' })]);
    await vi.waitUntil(() => warnings.length > 0);
    await bus.publish(order('o1', 1, { eventType: 'payment.processed' }));
    expect(warnings.filter((message) => message.includes("maxmemory-policy 'allkeys-lru'"))).toHaveLength(1);
  });

  it('leaves the client that it was given open', async () => {
    const redis = connect();
    const bus = open({ redis });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(order('o1', 1));
    await recorder.reach(1);
    await bus.close();
    expect(await redis.ping()).toBe('PONG');
  });
});

describe('a cluster of Redis', () => {
  const cluster = sharedCluster();

  it('has events published, handled, buried, delivered again and replayed', async () => {
    const { nodes } = await cluster();
    const redis = new Cluster([...nodes]);
    onTestFinished(() => redis.disconnect());
    const bus = open({ redis });
    let failing = true;
    const recorder = new Recorder(({ aggregateId }) => {
      if (failing && aggregateId === 'o7') throw new Error('no stock');
    });
    await bus.subscribe('order.created', recorder.handle, { ...quick, maxAttempts: 1 });
    const died = once(bus as never, 'die');
    await bus.publish(range(40).map((n) => order(`o${n}`, n)));
    await died;
    await recorder.reach(40);
    failing = false;
    await vi.waitUntil(async () => (await bus.redrive({ group: 'g' })) === 1);
    await recorder.reach(41);
    expect(sorted(recorder.numbers)).toEqual(sorted([...range(40), 7]));
    expect(sorted(numbersOf(await toArray(bus.replay())))).toEqual(range(40));
  });
});
