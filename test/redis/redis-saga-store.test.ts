import type { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ClosedError, type DomainEvent, RedisError } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { toArray } from '../events/recorder.ts';
import { change, create, end, eventOf, newSaga, sagaStoreContract } from '../saga/store-contract.ts';
import { monitorRedis, redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';
import { connect, range } from './event-buses.ts';
import { bucketOf, createStorage, openStore } from './saga-storage.ts';

sagaStoreContract('RedisSagaStore', () => createStorage(redisUrl()));

const orders = [{ name: 'order', version: 1 }];
const LEASE = 60_000;
const complete = { type: 'complete', step: 'a', data: '1' } as const;

describe('sagas in a Redis that is full', () => {
  /** Opens a store whose Redis can be filled, and two sagas: one is due. */
  const openFull = async () => {
    const { url } = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] });
    const redis = connect(url);
    const store = openStore({ redis: url });
    const owned = await create(store, newSaga('owned', { events: [eventOf('owned', 1)] }));
    await create(store, newSaga('due', { lease: 0 }));
    await store.write(change(await create(store, newSaga('ended')), end));
    await redis.config('SET', 'maxmemory', '1mb');
    const makeRoom = () => redis.config('SET', 'maxmemory', '0');
    return { store, owned, makeRoom };
  };

  it('are not begun, nor do they go on, until there is room again', async () => {
    const { store, owned, makeRoom } = await openFull();
    const step = change(owned, { entries: [complete] });
    await expect(store.create(newSaga('new'))).rejects.toThrow(RedisError);
    await expect(store.write(step)).rejects.toThrow(/maxmemory/);
    await expect(store.send('owned', { id: 'c', type: 'cancel' }, 'cancellable')).rejects.toThrow(RedisError);
    expect(await store.get('new')).toBeUndefined();
    expect(await store.get('owned')).toEqual(owned.saga);
    await makeRoom();
    expect(await store.write(step)).toMatchObject({ result: 'written' });
    await create(store, newSaga('new'));
  });

  it('are claimed, renewed, released, published and removed all the same', async () => {
    const { store, owned } = await openFull();
    expect(await store.renew([owned.lease], LEASE)).toEqual(new Map([['owned', 0]]));
    const [claimed] = await store.claim(orders, 10, LEASE);
    expect(claimed?.lease.sagaId).toBe('due');
    expect(await store.write(change(claimed!, { owned: false, dueIn: 0 }))).toMatchObject({
      result: 'written',
    });
    expect(await store.claim(orders, 10, LEASE)).toHaveLength(1);
    expect(await store.publishEvents(async () => {})).toBe(1);
    await expect(vi.waitFor(async () => store.removeEnded(0))).resolves.toBe(1);
    expect((await toArray(store.list({}))).map(({ sagaId }) => sagaId)).toEqual(['owned', 'due']);
  });
});

describe('sagas in Redis that somebody has damaged', () => {
  const openDamaged = async () => {
    const keyPrefix = uniquePrefix();
    const store = openStore({ keyPrefix });
    for (const sagaId of ['s0', 's1', 's2']) {
      await create(store, newSaga(sagaId, { lease: 0, events: [eventOf(sagaId, 1)] }));
    }
    const keyOf = (kind: string) => `${bucketOf(keyPrefix, 's0')}:${kind}:s0`;
    return { store, redis: connect(), keyOf };
  };
  type Damage = (redis: Redis, keyOf: (kind: string) => string) => Promise<unknown>;
  const damages: [string, Damage][] = [
    ['a key of another type', (redis, keyOf) => redis.set(keyOf('saga'), 'x')],
    ['no status', (redis, keyOf) => redis.hdel(keyOf('saga'), 'status')],
    ['no name and no version', (redis, keyOf) => redis.hdel(keyOf('saga'), 'name', 'version')],
    ['no input', (redis, keyOf) => redis.hdel(keyOf('saga'), 'input')],
    ['no number', (redis, keyOf) => redis.hdel(keyOf('saga'), 'number')],
    ['not whether it can be cancelled', (redis, keyOf) => redis.hdel(keyOf('saga'), 'cancellable')],
    ['a time that is none', (redis, keyOf) => redis.hset(keyOf('saga'), 'createdAt', 'x')],
    ['a context that is no JSON', (redis, keyOf) => redis.hset(keyOf('saga'), 'context', '{')],
    ['a reason that is no JSON', (redis, keyOf) => redis.hset(keyOf('saga'), 'reason', '{')],
    ['no journal', (redis, keyOf) => redis.del(keyOf('entries'))],
    ['a journal of another type', (redis, keyOf) => redis.set(keyOf('entries'), 'x')],
    ['an entry that is none', (redis, keyOf) => redis.lset(keyOf('entries'), 0, 'x')],
    ['inputs of another type', (redis, keyOf) => redis.set(keyOf('inputs'), 'x')],
    ['an input too few', (redis, keyOf) => redis.hset(keyOf('saga'), 'inputs', 1)],
  ];

  it.each(damages)('are stuck and delay no other: %s', async (_, damage) => {
    const { store, redis, keyOf } = await openDamaged();
    await damage(redis, keyOf);
    const claimed = await store.claim(orders, 10, LEASE);
    expect(claimed.map(({ lease }) => lease.sagaId).toSorted()).toEqual(['s1', 's2']);
    const stuck = { sagaId: 's0', status: 'stuck', reason: { error: { code: 'ERR_SAGA_UNREADABLE' } } };
    const saga = await store.get('s0').catch((error) => ({ ...stuck, reason: { error } }));
    expect(saga).toMatchObject(stuck);
    expect(await store.summaries(['s0', 's1'])).toEqual(
      expect.arrayContaining([expect.objectContaining({ sagaId: 's1', status: 'running' })]),
    );
    expect(await toArray(store.list({ status: 'stuck' }))).toMatchObject([stuck]);
    expect(await toArray(store.list({}))).toHaveLength(3);
    const held = await store.renew([{ sagaId: 's0', token: 1 }, ...claimed.map(({ lease }) => lease)], LEASE);
    expect([...held.keys()].toSorted()).toEqual(['s1', 's2']);
    expect(await store.create(newSaga('s0'))).toMatchObject({ result: 'exists', saga: stuck });
    expect(await store.claim(orders, 10, LEASE)).toEqual([]);
  });

  it('go on if only their token is damaged, by a token that no former owner has', async () => {
    const { store, redis, keyOf } = await openDamaged();
    await redis.hset(keyOf('saga'), 'token', 'x');
    const claimed = await store.claim(orders, 10, LEASE);
    const mended = claimed.find(({ lease }) => lease.sagaId === 's0')!;
    expect(mended.lease.token).toBeGreaterThan(1_000_000);
    const step = change(mended, { entries: [complete] });
    expect(await store.write({ ...step, lease: { sagaId: 's0', token: 1 } })).toEqual({ result: 'lost' });
    expect(await store.write(step)).toMatchObject({ result: 'written' });
  });

  it('and have gone are forgotten, and can be begun anew', async () => {
    const { store, redis, keyOf } = await openDamaged();
    await redis.del(keyOf('saga'));
    expect(await store.summaries(['s0'])).toEqual([]);
    expect(await store.get('s0')).toBeUndefined();
    expect(await toArray(store.list({}))).toHaveLength(2);
    expect(await store.claim(orders, 10, LEASE)).toHaveLength(2);
    await create(store, newSaga('s0'));
    expect((await store.get('s0'))?.entries).toHaveLength(1);
    expect(await toArray(store.list({}))).toHaveLength(3);
  });

  it('and have gone after their end are not removed once they are begun anew', async () => {
    const { store, redis, keyOf } = await openDamaged();
    const claimed = (await store.claim(orders, 10, LEASE)).find(({ lease }) => lease.sagaId === 's0')!;
    await store.write(change(claimed, end));
    await redis.del(keyOf('saga'));
    await create(store, newSaga('s0'));
    expect(await store.removeEnded(-1_000)).toBe(0);
    expect((await toArray(store.list({}))).map(({ sagaId }) => sagaId)).toEqual(['s1', 's2', 's0']);
  });

  it('have their events left, and those of others published', async () => {
    const { store, redis, keyOf } = await openDamaged();
    await redis.lset(keyOf('events'), 0, '{');
    const published: string[] = [];
    const publish = async (events: readonly DomainEvent[]) => {
      published.push(...events.map(({ aggregateId }) => aggregateId));
    };
    await expect(store.publishEvents(publish)).rejects.toThrow(SyntaxError);
    expect(published.toSorted()).toEqual(['s1', 's2']);
  });
});

describe('events of sagas in Redis', () => {
  it('are published by another process when the one that did has died', async () => {
    const keyPrefix = uniquePrefix();
    const [dead, other] = [openStore({ keyPrefix }), openStore({ keyPrefix })];
    const claimed = await create(dead, newSaga('s1', { events: [eventOf('s1', 1)] }));
    const entered = deferred<void>();
    const release = deferred<void>();
    const late = dead.publishEvents(() => {
      entered.resolve();
      return release.promise;
    });
    await entered.promise;
    expect(await other.publishEvents(async () => {})).toBe(0);
    const lock = `${bucketOf(keyPrefix, 's1')}:publisher`;
    expect(await connect().pttl(lock)).toBeGreaterThan(0);
    await connect().del(lock);
    expect(await other.publishEvents(async () => {})).toBe(1);
    await other.write(change(claimed, { entries: [complete], events: [eventOf('s1', 2)] }));
    // What came meanwhile is not forgotten by a process that has lost its lock.
    release.resolve();
    await late;
    const published: DomainEvent[] = [];
    expect(await other.publishEvents(async (events) => void published.push(...events))).toBe(1);
    expect(published).toEqual([eventOf('s1', 2)]);
  });

  it('wait behind those of other sagas once the bus has rejected them', async () => {
    const store = openStore();
    await Promise.all(
      range(2_000).map((n) => create(store, newSaga(`s${n}`, { events: [eventOf(`s${n}`, 1)] }))),
    );
    const published = new Set<string>();
    const publish = async ([event]: readonly DomainEvent[]) => {
      const { aggregateId } = event!;
      if (Number(aggregateId.slice(1)) < 1_000) throw new Error('rejected');
      published.add(aggregateId);
    };
    for (let n = 0; n < 20 && published.size < 1_000; n++) await store.publishEvents(publish).catch(() => {});
    expect(published.size).toBe(1_000);
  });
});

/** As docs/sagas.md gives it. */
const USER = [
  'holdfast reset on >secret ~holdfast:* +eval +evalsha +time +get +set +del +exists +hget +hmget +hset',
  '+hsetnx +rpush +lrange +ltrim +zadd +zrem +zscore +zrange +zrangebyscore +info',
].flatMap((rules) => rules.split(' '));
const COMMANDS = USER.filter((rule) => rule.startsWith('+')).map((rule) => rule.slice(1));

describe('RedisSagaStore', () => {
  it('gives the sagas of a claim that it got, and rejects a claim of which it got none', async () => {
    const store = openStore();
    for (const n of range(3)) await create(store, newSaga(`s${n}`, { lease: 0 }));
    const { evaluate } = RedisConnection.prototype;
    const lost = new RedisError('the node is away');
    const evaluating = vi.spyOn(RedisConnection.prototype, 'evaluate');
    onTestFinished(() => evaluating.mockRestore());
    evaluating.mockImplementation(function (this: RedisConnection, script, keys, args) {
      return args[0] === 's1' ? Promise.reject(lost) : evaluate.call(this, script, keys, args);
    });
    const claimed = await store.claim(orders, 10, LEASE);
    expect(claimed.map(({ lease }) => lease.sagaId).toSorted()).toEqual(['s0', 's2']);
    await expect(store.claim(orders, 10, LEASE)).rejects.toBe(lost);
    evaluating.mockRestore();
    expect(await store.claim(orders, 10, LEASE)).toMatchObject([
      { lease: { sagaId: 's1' }, takeover: false },
    ]);
  });

  it('needs exactly the documented rights', async () => {
    const { url, port } = await startRedis();
    const admin = connect(url);
    await admin.call('ACL', 'SETUSER', ...USER);
    const used = new Set<string>();
    await monitorRedis(url, ({ args }) => used.add(args[0]!.toLowerCase()));
    const store = openStore({ redis: `redis://holdfast:secret@127.0.0.1:${port}`, keyPrefix: 'holdfast' });
    const claimed = await create(store, newSaga('s1', { events: [eventOf('s1', 1)] }));
    await store.send('s1', { id: 'c', type: 'cancel' }, 'cancellable');
    await store.renew([claimed.lease], LEASE);
    await create(store, newSaga('s2', { lease: 0 }));
    await create(store, newSaga('s3', { lease: 0 }));
    await admin.hdel(`${bucketOf('holdfast', 's3')}:saga:s3`, 'number');
    expect(await store.claim(orders, 10, LEASE)).toHaveLength(1);
    await store.get('s1');
    await store.summaries(['s1']);
    await toArray(store.list({ dueFor: 0 }));
    await store.write(change(claimed, { ...end, inputs: 1 }));
    await store.publishEvents(async () => {});
    await vi.waitFor(async () => expect(await store.removeEnded(0)).toBe(1));
    await vi.waitFor(() => expect(COMMANDS.filter((command) => !used.has(command))).toEqual([]));
    const rejected = (await admin.acl('LOG')) as unknown[][];
    const objects = rejected.map((entry) => entry[entry.indexOf('object') + 1]);
    // A command of ioredis that may fail; Redis 7.2 has it.
    expect(objects.filter((object) => object !== 'client' && object !== 'client|setinfo')).toEqual([]);
  });

  it('keeps the sagas in as many buckets as Redis has been told of', async () => {
    const keyPrefix = uniquePrefix();
    const redis = connect();
    await redis.hset(`${keyPrefix}:sagas:meta`, 'buckets', 1);
    const [one, other] = [openStore({ keyPrefix }), openStore({ keyPrefix })];
    for (const n of range(5)) await create(one, newSaga(`s${n}`, { lease: 0 }));
    expect(await redis.zcard(`${keyPrefix}:sagas:{sagas:0}:running`)).toBe(5);
    expect(await other.claim(orders, 10, LEASE)).toHaveLength(5);
    await redis.hset(`${keyPrefix}:sagas:meta`, 'buckets', 'x');
    await expect(openStore({ keyPrefix }).get('s1')).rejects.toThrow(RedisError);
  });

  it('writes nothing to a Redis without sagas until one is created', async () => {
    const keyPrefix = uniquePrefix();
    const redis = connect();
    const [one, other] = [openStore({ keyPrefix }), openStore({ keyPrefix })];
    expect(await toArray(one.list({}))).toEqual([]);
    expect(await one.claim(orders, 10, LEASE)).toEqual([]);
    expect(await one.get('s1')).toBeUndefined();
    expect(await one.send('s1', { id: 'r', type: 'retry' }, 'stuck')).toBe('missing');
    expect(await one.renew([{ sagaId: 's1', token: 1 }], LEASE)).toEqual(new Map());
    expect(await one.publishEvents(async () => {})).toBe(0);
    expect(await one.removeEnded(0)).toBe(0);
    expect(await redis.keys(`${keyPrefix}:*`)).toEqual([]);
    await redis.hset(`${keyPrefix}:sagas:meta`, 'buckets', 1);
    await create(other, newSaga('s1', { lease: 0 }));
    expect(await one.claim(orders, 10, LEASE)).toHaveLength(1);
  });

  it('gives the sagas of one millisecond in the order of their creation', async () => {
    const keyPrefix = uniquePrefix();
    await connect().hset(`${keyPrefix}:sagas:meta`, 'buckets', 1);
    const store = openStore({ keyPrefix });
    const ids = range(500).map((n) => `s${(n * 7) % 500}`);
    await Promise.all(ids.map((sagaId) => create(store, newSaga(sagaId))));
    expect((await toArray(store.list({}))).map(({ sagaId }) => sagaId)).toEqual(ids);
  });

  it('writes a step in one round trip', async () => {
    const { url } = await startRedis();
    const store = openStore({ redis: url });
    const claimed = await create(store, newSaga('s1'));
    await store.write(change(claimed));
    const commands: string[] = [];
    await monitorRedis(url, ({ args, byScript }) => {
      if (!byScript) commands.push(args[0]!);
    });
    for (const n of range(5)) await store.write(change(claimed, { length: 1 + n, entries: [complete] }));
    await connect(url).ping();
    await vi.waitUntil(() => commands.includes('ping'));
    expect(commands.filter((command) => command.startsWith('eval'))).toEqual(Array(5).fill('evalsha'));
  });

  it('loses nothing of what Redis has confirmed with appendfsync always when Redis is killed', async () => {
    const server = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
    const store = openStore({ redis: server.url });
    const claimed = await create(store, newSaga('s1'));
    await store.write(change(claimed, { entries: [complete] }));
    await server.restart();
    await vi.waitFor(async () => expect((await store.get('s1'))?.entries).toHaveLength(2));
    const next = change(claimed, { length: 2, ...end });
    expect(await store.write(next)).toMatchObject({ result: 'written' });
  });

  it('gives no owner the token of another one whose claim Redis has lost', async () => {
    const keyPrefix = uniquePrefix();
    const store = openStore({ keyPrefix });
    const redis = connect();
    const bucket = bucketOf(keyPrefix, 's1');
    const key = `${bucket}:saga:s1`;
    const first = await create(store, newSaga('s1', { lease: 0 }));
    const before = await redis.dumpBuffer(key);
    const [lost] = await store.claim(orders, 1, LEASE);
    await redis.restore(key, 0, before, 'REPLACE');
    await redis.zadd(`${bucket}:due:1:order`, 0, 's1');
    const [next] = await store.claim(orders, 1, LEASE);
    expect(next!.lease.token).toBeGreaterThan(lost!.lease.token);
    expect(await store.write(change(lost!, { entries: [complete] }))).toEqual({ result: 'lost' });
    // The same holds for a start that is lost.
    await redis.del(key);
    const again = await create(store, newSaga('s1'));
    expect(again.lease.token).toBeGreaterThan(first.lease.token);
  });

  it('warns once where Redis drops keys when it is full', async () => {
    const server = await startRedis({ args: ['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'] });
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    onTestFinished(() => warned.mockRestore());
    const store = openStore({ redis: server.url });
    for (const n of range(3)) await create(store, newSaga(`s${n}`));
    await vi.waitUntil(() => warned.mock.calls.length > 0);
    await store.get('s1');
    const type = 'HoldfastSagasWarning';
    expect(warned.mock.calls).toEqual([[expect.stringContaining("'allkeys-lru'"), { type }]]);
  });

  it('rejects with a RedisError while Redis is away, and goes on when it is back', async () => {
    const server = await startRedis();
    const store = openStore({ redis: server.url, commandTimeout: 200 });
    await create(store, newSaga('s1'));
    await server.kill();
    await expect(store.create(newSaga('s2'))).rejects.toThrow(RedisError);
    await expect(store.claim(orders, 10, LEASE)).rejects.toThrow(RedisError);
    await server.restart();
    await vi.waitFor(() => store.create(newSaga('s3')), 5_000);
  });

  it('leaves the client that it was given open', async () => {
    const redis = connect();
    const store = openStore({ redis });
    await create(store, newSaga('s1'));
    await store.close();
    expect(await redis.ping()).toBe('PONG');
    await expect(store.get('s1')).rejects.toThrow(ClosedError);
  });
});
