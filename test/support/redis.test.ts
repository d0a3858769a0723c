import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { expect, onTestFinished, test, vi } from 'vitest';
import {
  clusterOfFile,
  redisUrl,
  startRedis,
  startRedisWithReplica,
  startRelay,
  uniquePrefix,
} from './redis.ts';

function connect(url: string, options: RedisOptions = {}): Redis {
  const redis = new Redis(url, { retryStrategy: () => 5, ...options });
  redis.on('error', () => {});
  onTestFinished(() => redis.disconnect());
  return redis;
}

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Whether the promise is still pending after the server has responded to another client several times. */
async function pendingFor(answer: Promise<unknown>, other: Redis): Promise<boolean> {
  let pending = true;
  void answer.then(() => {
    pending = false;
  });
  for (let asked = 0; asked < 20; asked++) await other.ping();
  return pending;
}

const cluster = clusterOfFile();

test('tests share a Redis and keep apart by prefix', async () => {
  const redis = connect(redisUrl());
  const [one, two] = [uniquePrefix(), uniquePrefix()];
  await redis.set(`${one}:key`, 'value');
  expect(await redis.get(`${one}:key`)).toBe('value');
  expect(await redis.get(`${two}:key`)).toBeNull();
});

test('a server that is killed is gone, and comes back empty at the same address', async () => {
  const server = await startRedis();
  const redis = connect(server.url);
  await redis.set('key', 'value');
  const { pid } = server;
  await server.kill();
  expect(runs(pid)).toBe(false);
  await server.restart();
  expect(server.pid).not.toBe(pid);
  expect(await redis.get('key')).toBeNull();
});

test('a server that writes to disk has its data after a restart', async () => {
  const server = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  const redis = connect(server.url);
  await redis.set('key', 'value');
  await server.restart();
  expect(await redis.get('key')).toBe('value');
});

test('a server that is paused responds when it goes on', async () => {
  const server = await startRedis();
  const redis = connect(server.url);
  await redis.ping();
  server.pause();
  const answer = redis.ping();
  expect(await pendingFor(answer, connect(redisUrl()))).toBe(true);
  server.resume();
  expect(await answer).toBe('PONG');
});

test('a server that is stopped leaves nothing behind but a directory that was given', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-redis-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const [one, two] = await Promise.all([startRedis(), startRedis({ directory })]);
  two.pause();
  await Promise.all([one.stop(), two.stop()]);
  expect([one, two].map(({ pid }) => runs(pid))).toEqual([false, false]);
  expect(existsSync(one.directory)).toBe(false);
  expect(existsSync(directory)).toBe(true);
});

test('a server that cannot start says why', async () => {
  const { port } = await startRedis();
  await expect(startRedis({ port })).rejects.toThrow(/address already in use/i);
  await expect(startRedis({ args: ['--no-such-setting', 'yes'] })).rejects.toThrow('no-such-setting');
});

test('a server does not outlive a process that was killed', async () => {
  const script = `
    import { startRedis } from ${JSON.stringify(new URL('./redis.ts', import.meta.url).href)};
    const { url, directory } = await startRedis();
    console.log(JSON.stringify({ url, directory }));
    setInterval(() => {}, 1_000);
  `;
  const parent = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void parent.kill('SIGKILL'));
  const [line] = await once(parent.stdout.setEncoding('utf8'), 'data');
  const { url, directory } = JSON.parse(line);
  const redis = connect(url);
  // Whether the end comes as an error or not, the server is gone.
  redis.on('error', () => {});
  const closed = new Promise((resolve) => void redis.once('close', resolve));
  expect(existsSync(directory)).toBe(true);
  parent.kill('SIGKILL');
  await closed;
  await vi.waitFor(() => expect(existsSync(directory)).toBe(false));
});

test('a replica has what the primary had when it takes over, and takes writes', async () => {
  const { primary, replica, failover } = await startRedisWithReplica();
  const redis = connect(primary.url);
  await redis.set('key', 'value');
  expect(await redis.wait(1, 0)).toBe(1);
  const promoted = connect(replica.url);
  await expect(promoted.set('key', 'refused')).rejects.toThrow('READONLY');
  await failover();
  expect(runs(primary.pid)).toBe(false);
  expect(await promoted.get('key')).toBe('value');
  expect(await promoted.set('key', 'taken')).toBe('OK');
});

test('a client of a relay is moved to another server when its own is lost', async () => {
  const [one, two] = await Promise.all([startRedis(), startRedis()]);
  await Promise.all([connect(one.url).set('name', 'one'), connect(two.url).set('name', 'two')]);
  const relay = await startRelay(one.port);
  const redis = connect(relay.url);
  expect(await redis.get('name')).toBe('one');
  relay.target(two.port);
  expect(await redis.get('name')).toBe('one');
  await one.kill();
  expect(await redis.get('name')).toBe('two');
});

test('a relay that is cut loses its connections and refuses new ones until it is open again', async () => {
  const server = await startRedis();
  const relay = await startRelay(server.port);
  const redis = connect(relay.url);
  await redis.ping();
  const closed = once(redis, 'close');
  await relay.cut();
  await closed;
  const refused = connect(relay.url, { lazyConnect: true, retryStrategy: () => null });
  const [[error]] = await Promise.all([once(refused, 'error'), refused.connect().catch(() => {})]);
  expect(error).toMatchObject({ code: 'ECONNREFUSED' });
  await relay.open();
  expect(await redis.ping()).toBe('PONG');
});

test('what is sent through a relay that is blocked arrives when it is open again', async () => {
  const server = await startRedis();
  const direct = connect(server.url);
  const relay = await startRelay(server.port);
  const redis = connect(relay.url);
  await redis.ping();
  relay.block();
  const answer = redis.set('key', 'value');
  const answerOfNewcomer = connect(relay.url).ping();
  expect(await pendingFor(answer, direct)).toBe(true);
  expect(await pendingFor(answerOfNewcomer, direct)).toBe(true);
  expect(await direct.get('key')).toBeNull();
  await relay.open();
  expect(await answer).toBe('OK');
  expect(await direct.get('key')).toBe('value');
  expect(await answerOfNewcomer).toBe('PONG');
});

test('a cluster spreads keys over its nodes, and goes on without one that is killed', async () => {
  const { servers, nodes } = await cluster();
  const client = new Cluster([...nodes]);
  client.on('error', () => {});
  onTestFinished(() => client.disconnect());
  await Promise.all(['a', 'b', 'c'].map((key) => client.set(key, `value of ${key}`)));
  // Their slots are 15495, 3300 and 7365.
  const keys = await Promise.all(servers.map(({ url }) => connect(url).keys('*')));
  expect(keys).toEqual([['b'], ['c'], ['a']]);
  await servers[2]!.kill();
  const left = connect(servers[0]!.url);
  const noticed = async () => expect(await left.cluster('INFO')).toContain('cluster_slots_fail:5462');
  await vi.waitFor(noticed, { timeout: 3_000, interval: 10 });
  expect(await Promise.all(['b', 'c'].map((key) => client.get(key)))).toEqual(['value of b', 'value of c']);
});
