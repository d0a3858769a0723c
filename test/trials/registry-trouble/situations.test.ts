import { expect, it, vi } from 'vitest';
import { startRedis, startRedisWithReplica } from '../../support/redis.ts';
import {
  at,
  connect,
  discover,
  expectCutOffOnesKept,
  expectKeptWithout,
  expectSilentOnesKept,
  fill,
  IDS,
  idsOf,
  KEYS,
  loseOne,
  outlive,
  registrarOf,
  seeAll,
  service,
  startClients,
  startFleet,
} from '../../support/registry-troubles.ts';

// A small form of them is among the tests: test/integration/registry-trouble.test.ts.

it('a full Redis costs no client an instance, lets heartbeats through, and is as before with room again', {
  timeout: 20_000,
}, async () => {
  const redis = await startRedis();
  const admin = connect(redis.url);
  const fleet = await startFleet(redis.url);
  const clients = await startClients(redis.url);
  const failures = vi.fn();
  const registrar = registrarOf(fleet[1]!, 'v1');
  await fill(admin);
  const registered = new Promise((resolve) => registrar.on('registered', resolve));
  await expect(registrar.register({ timeout: 50 })).rejects.toMatchObject({
    code: 'ERR_DISCOVERY_UNAVAILABLE',
    message: expect.stringContaining('OOM'),
    cause: { code: 'ERR_REDIS' },
  });
  registrar.on('failure', failures);
  await outlive(admin);
  await seeAll(clients, IDS, true);
  // One that begins now sees all of them too, since their leases go on.
  const late = discover(redis.url);
  await seeAll([late], IDS, true);
  const [seconds] = await admin.time();
  for (const id of IDS) {
    expect(Number(await admin.zscore(KEYS[1]!, id))).toBeGreaterThan(Number(seconds) * 1_000);
  }
  // One that leaves is gone, and one that dies stays until there is room.
  await fleet[4]!.deregister(service, 'u4');
  await seeAll([...clients, late], IDS.slice(0, 4), true);
  await fleet[0]!.close();
  await outlive(admin);
  await seeAll([...clients, late], IDS.slice(0, 4), true);

  await admin.config('SET', 'maxmemory', '0');
  await registered;
  expect(failures).toHaveBeenCalled();
  await seeAll([...clients, late], ['u1', 'u2', 'u3', 'u4', 'v1'], false);
});

it(
  'a full Redis costs no client an instance of which there are no heartbeats',
  {
    timeout: 20_000,
  },
  () => expectSilentOnesKept(),
);

it(
  'instances whose Redis user is cut off stay in every list, and are as before when it is let in again',
  {
    timeout: 20_000,
  },
  () => expectCutOffOnesKept(2),
);

it('keys that Redis evicts cost no client an instance, whichever they are, and all is as before soon', {
  timeout: 30_000,
}, async () => {
  const warned = vi.spyOn(process, 'emitWarning');
  const names = 'holdfast:services';
  await Promise.all([
    ...KEYS.map((key) => expectKeptWithout(key)),
    expectKeptWithout(names),
    expectKeptWithout(...KEYS, names),
  ]);
  expect(warned).not.toHaveBeenCalled();
});

it('a client of a replica reads, hears of changes, and is stale only while nobody takes out who is overdue', {
  timeout: 20_000,
}, async () => {
  const { primary, replica } = await startRedisWithReplica();
  const fleet = await startFleet(primary.url);
  const clients = await startClients(replica.url);
  const admin = connect(primary.url);
  await outlive(admin);
  await seeAll(clients, IDS, false);
  await loseOne(fleet, clients);
  const changed = vi.fn();
  clients[0]!.watch(service, changed);
  await fleet[1]!.deregister(service, 'u1');
  await vi.waitFor(() => expect(changed).toHaveBeenCalled());
  expect(idsOf(changed.mock.calls[0]![0])).toEqual(['u2', 'u3', 'u4']);

  // With their last process nobody is left that could take them out of Redis.
  await Promise.all(fleet.slice(1).map((one) => one.close()));
  await outlive(admin);
  for (const client of clients) {
    await vi.waitFor(() => expect(client.isStale(service)).toBe(true));
    expect((await client.instances(service)).length).toBeGreaterThan(0);
  }
  expect(await admin.zcard(KEYS[1]!)).toBeGreaterThan(0);
  const late = discover(replica.url);
  const lateChanged = vi.fn();
  late.watch(service, lateChanged);
  expect((await late.instances(service)).length).toBeGreaterThan(0);
  expect(late.isStale(service)).toBe(true);
  // What is gone is not listed, though its name cannot be forgotten from here.
  await admin.sadd('holdfast:services', 'gone');
  await vi.waitFor(async () =>
    expect(await connect(replica.url).smembers('holdfast:services')).toContain('gone'),
  );
  expect(await late.services()).toEqual([service]);
  await startFleet(primary.url, ['w1']);
  await vi.waitFor(() => expect(idsOf(lateChanged.mock.lastCall![0])).toContain('w1'));
});

const READING = ['+time', '+hget', '+hgetall', '+zrange', '+zrevrange', '+zrangebyscore'];
READING.push('+subscribe', '+unsubscribe', '+ping', '+info');

async function readWith(...rights: string[]): Promise<void> {
  const redis = await startRedis();
  const admin = connect(redis.url);
  await admin.call('ACL', 'SETUSER', 'reader', 'on', '>secret', '&holdfast:*', ...READING, ...rights);
  const fleet = await startFleet(redis.url);
  const clients = await startClients(`redis://reader:secret@127.0.0.1:${redis.port}`);
  await outlive(admin);
  await seeAll(clients, IDS, false);
  await loseOne(fleet, clients);
  await expect(clients[0]!.register(at('w1'))).rejects.toMatchObject({ code: 'ERR_REDIS', denied: true });
}

it('a client reads with the right to read alone, as docs/discovery.md gives it', {
  timeout: 20_000,
}, async () => {
  await Promise.all([
    readWith('~holdfast:*', '+eval', '+evalsha'),
    readWith('%R~holdfast:*', '+eval_ro', '+evalsha_ro'),
    readWith('%R~holdfast:*', '+@all'),
  ]);
});

it('a client reads a Redis that takes no writes for want of replicas', { timeout: 20_000 }, async () => {
  const redis = await startRedis();
  const admin = connect(redis.url);
  const fleet = await startFleet(redis.url);
  const clients = await startClients(redis.url);
  await admin.config('SET', 'min-replicas-to-write', '1');
  await outlive(admin);
  await seeAll(clients, IDS, true);
  await seeAll([discover(redis.url)], IDS, true);
  await admin.config('SET', 'min-replicas-to-write', '0');
  await seeAll(clients, IDS, false);
  await loseOne(fleet, clients);
});
