import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { type Database, MemoryDatabase } from '../../examples/demo/database.ts';
import { RedisDatabase } from '../../examples/demo/redis-run.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

/** The tables of one process: another one with the same prefix shares them. */
function redisProcess(prefix = uniquePrefix()) {
  const redis = new Redis(redisUrl());
  const discovery = new RedisServiceDiscovery({ redis, keyPrefix: prefix });
  onTestFinished(async () => {
    await discovery.close();
    redis.disconnect();
  });
  return { locks: discovery.locks, database: new RedisDatabase(redis, discovery.locks, prefix) };
}

/** Two instances' views of one database. */
const views: Record<string, () => [Database, Database]> = {
  'in one process': () => {
    const database = new MemoryDatabase();
    return [database, database];
  },
  'over Redis': () => {
    const prefix = uniquePrefix();
    return [redisProcess(prefix).database, redisProcess(prefix).database];
  },
};

describe.each(Object.entries(views))('a database shared by instances %s', (_where, connect) => {
  test('what one adds the other finds, and the first of two with one key stays', async () => {
    const [one, two] = connect();
    expect(await one.table('charges').get('a')).toBeUndefined();
    expect(await one.table('charges').add('a', { amount: 1 })).toEqual({ amount: 1 });
    expect(await two.table('charges').add('a', { amount: 2 })).toEqual({ amount: 1 });
    expect(await two.table('charges').get('a')).toEqual({ amount: 1 });
    expect(await two.table('charges').entries()).toEqual(new Map([['a', { amount: 1 }]]));
    expect(await two.table('orders').entries()).toEqual(new Map());
  });

  test('of many that add one key at once all get the same', async () => {
    const [one, two] = connect();
    const numbers = Array.from({ length: 20 }, (_, number) => number);
    const got = await Promise.all(
      numbers.map((number) => (number % 2 ? one : two).table('charges').add('a', number)),
    );
    expect(new Set(got).size).toBe(1);
  });

  test('what is deleted is gone, and may be added again', async () => {
    const [one, two] = connect();
    await one.table('reservations').add('a', 1);
    expect(await two.table('reservations').delete('a')).toBe(true);
    expect(await one.table('reservations').delete('a')).toBe(false);
    expect(await one.table('reservations').add('a', 2)).toBe(2);
  });

  test('actions with one key go one after the other, those with another key meanwhile', async () => {
    const [one, two] = connect();
    const events: string[] = [];
    let end!: () => void;
    let running!: Promise<number>;
    await new Promise<void>((begun) => {
      running = one.exclusively('a', async () => {
        begun();
        await new Promise<void>((resolve) => {
          end = resolve;
        });
        events.push('first ends');
        return 1;
      });
    });
    const waiting = two.exclusively('a', async () => {
      events.push('second begins');
      return 2;
    });
    await two.exclusively('b', async () => {
      events.push('other key');
    });
    end();
    expect(await Promise.all([running, waiting])).toEqual([1, 2]);
    expect(events).toEqual(['other key', 'first ends', 'second begins']);
  });

  test('after an action that fails the next one begins', async () => {
    const [one, two] = connect();
    const failing = one.exclusively('a', async () => {
      throw new Error('broken');
    });
    await expect(failing).rejects.toThrow('broken');
    expect(await two.exclusively('a', async () => 'well')).toBe('well');
  });
});

test('a key whose holder died is free again when its lease has run out', async () => {
  const { locks, database } = redisProcess();
  await locks.acquire('a', 'one that died', 200);
  const action = vi.fn(async () => 'done');
  expect(await database.exclusively('a', action)).toBe('done');
  expect(action).toHaveBeenCalledTimes(1);
});
