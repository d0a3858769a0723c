import { once } from 'node:events';
import { Cluster } from 'ioredis';
import { expect, it, onTestFinished } from 'vitest';
import { RedisError } from '../../src/index.ts';
import { change, create, end, newSaga, sagaStoreContract } from '../saga/store-contract.ts';
import { sharedCluster, uniquePrefix } from '../support/redis.ts';
import { connect } from './event-buses.ts';
import { bucketOf, createStorage, openStore } from './saga-storage.ts';

const startedCluster = sharedCluster();

sagaStoreContract('RedisSagaStore on a cluster', async () => {
  const { nodes } = await startedCluster();
  const client = new Cluster([...nodes]);
  onTestFinished(() => client.disconnect());
  await once(client, 'ready');
  return createStorage(client);
});

it('sagas in a slot that a cluster moves are neither read nor written until it has come', async () => {
  const { nodes, servers } = await startedCluster();
  const client = new Cluster([...nodes]);
  onTestFinished(() => client.disconnect());
  await once(client, 'ready');
  const keyPrefix = uniquePrefix();
  const store = openStore({ redis: client, keyPrefix, commandTimeout: 500 });
  const claimed = await create(store, newSaga('s1'));
  const admins = servers.map(({ url }) => connect(url));
  const slot = await client.cluster('KEYSLOT', bucketOf(keyPrefix, 's1'));
  const ids = await Promise.all(admins.map((admin) => admin.cluster('MYID')));
  const from = Math.floor((slot * servers.length) / 16_384);
  const to = (from + 1) % servers.length;
  const settle = () => Promise.all(admins.map((admin) => admin.cluster('SETSLOT', slot, 'STABLE')));
  onTestFinished(async () => void (await settle()));
  await admins[to]!.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', String(ids[from]));
  await admins[from]!.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', String(ids[to]));
  await expect(store.write(change(claimed, end))).rejects.toThrow(RedisError);
  // Its first key has moved: the script runs at the other node, which has no saga yet.
  const bucket = bucketOf(keyPrefix, 's1');
  const target = servers[to]!.port;
  await admins[from]!.call('MIGRATE', '127.0.0.1', target, bucket, 0, 1_000);
  await expect(store.create(newSaga('s1'))).rejects.toThrow(RedisError);
  await expect(store.claim([{ name: 'order', version: 1 }], 10, 60_000)).rejects.toThrow(RedisError);
  await admins[to]!.call('ASKING');
  await admins[to]!.del(bucket);
  await settle();
  expect(await store.get('s1')).toEqual(claimed.saga);
  expect(await store.write(change(claimed, end))).toMatchObject({ result: 'written' });
});
