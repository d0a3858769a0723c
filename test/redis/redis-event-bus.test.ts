import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { partitionOf } from '../../src/events/partition.ts';
import {
  constantBackoff,
  type DomainEvent,
  GroupInUseError,
  PartitionLostError,
  RedisError,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { EventKeys } from '../../src/redis/event-keys.ts';
import { GroupPartition } from '../../src/redis/group-partition.ts';
import { RedisEventBus } from '../../src/redis/index.ts';
import { describeBus } from '../events/bus-contract.ts';
import { Recorder, toArray } from '../events/recorder.ts';
import { EventConsumer } from '../support/event-consumers.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';
import {
  connect,
  lagOf,
  lengthOf,
  open,
  order,
  orders,
  PARTITIONS,
  quick,
  range,
  sorted,
} from './event-buses.ts';

describeBus('the Redis bus', () => {
  const keyPrefix = uniquePrefix();
  return {
    createBus: (options) =>
      new RedisEventBus({ redis: redisUrl(), keyPrefix, source: 'order-service', ...options }),
  };
});

const durable = { args: ['--appendonly', 'yes', '--appendfsync', 'always'] };

describe('a Redis that restarts', () => {
  it('has all events that it has written, and the bus goes on with them', async () => {
    const server = await startRedis(durable);
    const bus = open({ redis: server.url });
    await bus.publish(orders('o1', 3));
    await server.restart();
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await recorder.reach(3);
    await server.restart();
    await bus.publish(order('o1', 3));
    await recorder.reach(4);
    expect(recorder.numbers).toEqual([0, 1, 2, 3]);
  });

  it('has the attempts of an event, which count on', async () => {
    const server = await startRedis(durable);
    const failing = new Recorder(() => {
      throw new Error('no stock');
    });
    const bus = open({ redis: server.url });
    const subscription = await bus.subscribe('order.created', failing.handle, {
      group: 'g',
      backoff: constantBackoff(50),
    });
    await bus.publish(order('o1', 1));
    await failing.reach(2);
    await subscription.close();
    await server.restart();
    await bus.subscribe('order.created', failing.handle, quick);
    await once(bus as never, 'die');
    expect(failing.attempts).toEqual([1, 2, 3, 4, 5]);
    const [letter] = await toArray(bus.deadLetters({ group: 'g' }));
    expect(letter!.errors.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4, 5]);
  });

  it('is waited for: what is published meanwhile is stored, if that is within its deadline', async () => {
    const server = await startRedis();
    const bus = open({ redis: server.url });
    await bus.publish(order('o1', 0));
    await server.kill();
    const publishing = bus.publish(order('o1', 1), { timeout: 10_000 });
    await server.restart();
    await publishing;
    expect((await toArray(bus.replay())).map(({ data }) => data)).toContainEqual({ n: 1 });
  });

  it('has a publish rejected by its deadline while it is away, also if it accepts connections', async () => {
    const server = await startRedis();
    const bus = open({ redis: server.url, commandTimeout: 500 });
    await bus.publish(order('o1', 0));
    server.pause();
    const begun = performance.now();
    await expect(bus.publish(order('o1', 1), { timeout: 200 })).rejects.toThrow(RedisError);
    expect(performance.now() - begun).toBeLessThan(400);
    await server.kill();
    await expect(bus.publish(order('o1', 2), { timeout: 200 })).rejects.toThrow(RedisError);
    await server.restart();
    await bus.publish(order('o1', 3), { timeout: 10_000 });
    expect((await toArray(bus.replay())).map(({ data }) => data)).toEqual([{ n: 3 }]);
  });

  it('and has lost everything gets the groups again, and what is published then is handled', async () => {
    const server = await startRedis();
    const bus = open({ redis: server.url, lease: 500 });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(order('o1', 0));
    await recorder.reach(1);
    await connect(server.url).flushall();
    await bus.publish(order('o1', 1));
    await recorder.reach(2);
    await bus.publish(order('o2', 2));
    await recorder.reach(3);
    expect(recorder.numbers).toEqual([0, 1, 2]);
    expect(await toArray(bus.replay())).toHaveLength(2);
  });
});

describe('a Redis that is back with older data within the lease', () => {
  it('has what was acknowledged since then handled again, and nothing stays pending', async () => {
    const server = await startRedis();
    const keyPrefix = uniquePrefix();
    const bus = open({ redis: server.url, keyPrefix, lease: 3_000 });
    const gate = deferred<void>();
    const recorder = new Recorder(() => gate.promise);
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(range(10).map((n) => order(`o${n}`, n)));
    await recorder.reach(10);
    await connect(server.url).save();
    const lost = vi.fn();
    bus.on('lose', lost);
    gate.resolve();
    await vi.waitUntil(async () => (await lagOf(keyPrefix, server.url)) === 0);
    await server.restart();
    await recorder.reach(20);
    expect(sorted(recorder.numbers)).toEqual(sorted([...range(10), ...range(10)]));
    await vi.waitUntil(async () => (await lagOf(keyPrefix, server.url)) === 0);
    expect(lost).not.toHaveBeenCalled();
  });
});

describe('a Redis that is away for longer than the lease', () => {
  it('aborts the handlers, and takes in what they finish: nothing is handled twice', async () => {
    const server = await startRedis(durable);
    const bus = open({ redis: server.url, lease: 300, commandTimeout: 500 });
    const gate = deferred<void>();
    const reasons: unknown[] = [];
    const recorder = new Recorder(async (_, { signal }) => {
      signal.addEventListener('abort', () => reasons.push(signal.reason));
      await gate.promise;
    });
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(orders('o1', 2));
    await recorder.reach(1);
    await server.kill();
    await vi.waitUntil(() => reasons.length === 1);
    expect(reasons[0]).toBeInstanceOf(PartitionLostError);
    expect(reasons[0]).toMatchObject({ code: 'ERR_PARTITION_LOST', topic: 'order', partition: 5 });
    gate.resolve();
    await server.restart();
    await recorder.reach(2);
    expect(recorder.numbers).toEqual([0, 1]);
    expect(recorder.attempts).toEqual([1, 1]);
  });

  it('does not keep the bus from closing', async () => {
    const server = await startRedis();
    const bus = open({ redis: server.url, lease: 300, commandTimeout: 300 });
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(order('o1', 1));
    await recorder.reach(1);
    await server.kill();
    const publishing = bus.publish(order('o1', 2), { timeout: 400 }).catch((error: unknown) => error);
    await bus.close();
    expect(await publishing).toBeInstanceOf(RedisError);
  });
});

describe('a full Redis', () => {
  it('takes no more events, and has those that it has handled, given up and trimmed by whoever joins', async () => {
    const server = await startRedis();
    const shared = { redis: server.url, keyPrefix: uniquePrefix(), lease: 300, retention: 1 };
    const bus = open(shared);
    const admin = connect(server.url);
    const lost = vi.fn();
    const errors = vi.fn();
    bus.on('lose', lost).on('error', errors);
    const gate = deferred<void>();
    const recorder = new Recorder(async ({ data }) => {
      await gate.promise;
      await setTimeout(8);
      if ((data as { n: number }).n === 7) throw new Error('no stock');
    });
    await bus.subscribe('order.created', recorder.handle, quick);
    await bus.publish(range(2_000).map((n) => order(`o${n % 100}`, n)));
    await recorder.reach(1);
    await admin.config('SET', 'maxmemory', '1mb');
    await expect(bus.publish(order('o1', 0))).rejects.toThrow(/Redis at .*: OOM command not allowed/);
    const other = open(shared);
    other.on('lose', lost).on('error', errors);
    await other.subscribe('order.created', recorder.handle, quick);
    gate.resolve();
    // The last entry of each partition stays.
    await vi.waitUntil(async () => (await lengthOf(shared.keyPrefix, admin)) <= PARTITIONS);
    expect(new Set(recorder.numbers).size).toBe(2_000);
    expect(recorder.numbers).toHaveLength(2_004);
    expect(await toArray(bus.deadLetters({ group: 'g' }))).toHaveLength(1);
    expect(lost).not.toHaveBeenCalled();
    expect(errors).not.toHaveBeenCalled();
    await expect(bus.publish(order('o1', 0))).rejects.toThrow('OOM');
    await admin.config('SET', 'maxmemory', '0');
    await bus.publish(order('o1', 2_000));
    await recorder.reach(2_005);
  });
});

describe('a read that Redis executes after it was given up', () => {
  it('takes no event away from the handlers', async () => {
    const read = GroupPartition.prototype.read;
    let late = 0;
    vi.spyOn(GroupPartition.prototype, 'read').mockImplementation(async function (
      this: GroupPartition,
      ...args
    ) {
      const batch = await read.apply(this, args);
      // The one that was given up, whose reply reaches nobody.
      if (batch !== undefined && batch.ids.length > 0 && late++ < 3) await read.apply(this, args);
      return batch;
    });
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    await bus.publish(orders('o1', 20));
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, { ...quick, prefetch: 4 });
    await recorder.reach(20);
    expect(recorder.numbers).toEqual(range(20));
    await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
  });
});

describe('an event whose message is lost', () => {
  it('is handled within a part of the lease, by its group and by broadcasts', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, lease: 600 });
    const [ofGroup, broadcast] = [new Recorder(), new Recorder()];
    await bus.subscribe('order.created', ofGroup.handle, quick);
    await bus.subscribe('order.created', broadcast.handle, { broadcast: true });
    await bus.publish(order('o1', 0));
    await Promise.all([ofGroup.reach(1), broadcast.reach(1)]);
    // Added without a message, to the partition of the first one.
    const { stream, state } = new EventKeys(keyPrefix).partition('order', 5);
    const redis = connect();
    const [[, fields]] = (await redis.xrange(stream, '-', '+')) as [[string, string[]]];
    await redis
      .multi()
      .hincrby(state, 'added', 1)
      .xadd(stream, '*', ...fields)
      .exec();
    await Promise.all([ofGroup.reach(2), broadcast.reach(2)]);
  });
});

describe('the process of a bus', () => {
  const run = async (code: string) => {
    const module = JSON.stringify(new URL('../../src/redis/index.ts', import.meta.url).href);
    const options = JSON.stringify({ redis: redisUrl(), keyPrefix: uniquePrefix(), source: 's' });
    const script = `import { RedisEventBus } from ${module}; const bus = new RedisEventBus(${options}); ${code}`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
    onTestFinished(() => void child.kill('SIGKILL'));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    const exited = once(child, 'exit');
    return { exited, output: () => output };
  };
  const event = "{ eventType: 'order.created', aggregateId: 'o1', data: {} }";

  it('ends by itself when the bus only publishes', async () => {
    const { exited, output } = await run(`await bus.publish(${event}); console.log('published');`);
    expect(await exited).toEqual([0, null]);
    expect(output()).toBe('published\n');
  });

  it('is held open by a subscription until that is closed', async () => {
    const { exited, output } = await run(`
      const subscription = await bus.subscribe('order.created', () => {
        console.log('handled');
        setTimeout(() => subscription.close(), 200).unref();
      }, { group: 'g' });
      setTimeout(() => bus.publish(${event}), 100).unref();
    `);
    expect(await exited).toEqual([0, null]);
    expect(output()).toBe('handled\n');
  });
});

describe('a consumer that dies', () => {
  it('with 100 events under way has them handled by another one after its lease', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, lease: 300 });
    await bus.publish(range(100).map((n) => order(`o${n % 20}`, n)));
    const consumer = new EventConsumer({
      redis: redisUrl(),
      keyPrefix,
      lease: 300,
      maxAttempts: 5,
      behave: 'hang',
    });
    await vi.waitUntil(() => consumer.begun.length >= 16, 10_000);
    const recorder = new Recorder();
    await consumer.kill();
    await bus.subscribe('order.created', recorder.handle, quick);
    await recorder.reach(100);
    expect(sorted(recorder.numbers)).toEqual(range(100));
    expect(recorder.numbersOf('o1')).toEqual([1, 21, 41, 61, 81]);
    await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
  });

  it.each([1, 2])(
    'of one event has that event alone in the dead letters: maxAttempts %i',
    async (maxAttempts) => {
      const keyPrefix = uniquePrefix();
      const bus = open({ keyPrefix });
      const isBeside = (n: number) => partitionOf(`o${n}`, PARTITIONS) === partitionOf('poison', PARTITIONS);
      const beside = range(100).filter(isBeside);
      await bus.publish([order('poison', 100), ...beside.map((n) => order(`o${n}`, n))]);
      const options = { redis: redisUrl(), keyPrefix, lease: 200, maxAttempts, behave: 'die' } as const;
      // The first death tells which events were under way; two more find the one.
      for (let deaths = 0; deaths < 3; deaths++) await new EventConsumer(options).exited();
      const last = new EventConsumer(options);
      await vi.waitUntil(async () => (await toArray(bus.deadLetters({ group: 'g' }))).length === 1, 10_000);
      await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
      await last.kill();
      const [letter] = await toArray(bus.deadLetters({ group: 'g' }));
      expect(letter).toMatchObject({ event: { aggregateId: 'poison' }, attempts: maxAttempts });
      expect(letter!.errors.at(-1)).toMatchObject({ name: 'ProcessEnded' });
    },
  );

  it('or blocks its event loop past its lease is fenced off, and the next owner keeps the order', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix, lease: 250 });
    await bus.publish(orders('o1', 5));
    const consumer = new EventConsumer({
      redis: redisUrl(),
      keyPrefix,
      lease: 250,
      maxAttempts: 5,
      behave: 'block',
    });
    await vi.waitUntil(() => consumer.begun.length === 1, 10_000);
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, quick);
    await recorder.reach(5);
    await vi.waitUntil(() => consumer.lost.length > 0, 10_000);
    expect(recorder.numbers).toEqual([0, 1, 2, 3, 4]);
    expect(consumer.begun).toEqual([0]);
  });
});

describe('the members of a group', () => {
  it('share all partitions as they come and go, and none handles what another one does', async () => {
    const keyPrefix = uniquePrefix();
    const publisher = open({ keyPrefix });
    const underWay = new Set<string>();
    const owned = new Map<RedisEventBus, Set<number>>();
    const handled: number[] = [];
    let overlaps = 0;
    const handle = async ({ aggregateId, data }: DomainEvent) => {
      if (underWay.has(aggregateId)) overlaps++;
      underWay.add(aggregateId);
      await new Promise((resolve) => setImmediate(resolve));
      underWay.delete(aggregateId);
      handled.push((data as { n: number }).n);
    };
    const join = async () => {
      const bus = open({ keyPrefix, lease: 1_000 });
      const partitions = new Set<number>();
      owned.set(bus, partitions);
      bus.on('acquire', ({ partition }) => void partitions.add(partition));
      bus.on('lose', ({ error }) => expect.unreachable(error.message));
      const subscription = await bus.subscribe('order.created', handle, quick);
      return { bus, subscription };
    };
    let n = 0;
    const publishSome = async () => {
      const events = range(200).map(() => order(`o${n % 20}`, n++));
      await publisher.publish(events);
    };
    const members = [await join()];
    await publishSome();
    members.push(await join());
    await publishSome();
    members.push(await join());
    await publishSome();
    await vi.waitUntil(() => [...owned.values()].every(({ size }) => size > 0));
    await members.shift()!.subscription.close();
    await publishSome();
    await members.shift()!.subscription.close();
    await publishSome();
    await vi.waitUntil(() => handled.length >= n, 10_000);
    expect(sorted(handled)).toEqual(range(n));
    expect(overlaps).toBe(0);
    expect(owned.get(members[0]!.bus)!.size).toBe(PARTITIONS);
  });

  it('cannot have their group removed by another process', async () => {
    const keyPrefix = uniquePrefix();
    const [bus, other] = [open({ keyPrefix }), open({ keyPrefix })];
    const subscription = await bus.subscribe('order.created', () => {}, quick);
    await vi.waitUntil(async () => {
      const error = await other.removeGroup('g').catch((thrown: unknown) => thrown);
      return error instanceof GroupInUseError;
    });
    await subscription.close();
    expect(await other.removeGroup('g')).toBe(true);
    expect(await other.removeGroup('g')).toBe(false);
  });
});

describe('the lag of a group', () => {
  it('counts exactly what is not handled, over types that the group passes over', async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    await bus.publish([order('o1', 0), order('o1', 1, { eventType: 'order.paid' })]);
    const subscription = await bus.subscribe('order.created', () => {}, quick);
    await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
    await subscription.close();
    for (let n = 0; n < 30; n++) await bus.publish(order(`o${n}`, n, { eventType: 'order.paid' }));
    await bus.publish(orders('o1', 3));
    expect(await lagOf(keyPrefix)).toBe(33);
    await bus.subscribe('order.created', () => {}, quick);
    await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
  });

  it("is 0 for a group that begins from: 'now', and all that is kept for one that begins at the start", async () => {
    const keyPrefix = uniquePrefix();
    const bus = open({ keyPrefix });
    await bus.publish(orders('o1', 5));
    const now = await bus.subscribe('order.created', () => {}, { group: 'now', from: 'now' });
    await now.close();
    expect(await lagOf(keyPrefix)).toBe(0);
    const gate = deferred<void>();
    await bus.subscribe('order.created', () => gate.promise, { group: 'start' });
    expect(await lagOf(keyPrefix)).toBe(5);
    gate.resolve();
    await vi.waitUntil(async () => (await lagOf(keyPrefix)) === 0);
  });
});
