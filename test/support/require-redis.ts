import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Redis } from 'ioredis';
import type { TestProject } from 'vitest/node';
import { startOncePerRun } from './once-per-run.ts';
import { findServerBinary, startRedis } from './redis.ts';

/** Gives all tests one Redis: REDIS_URL, else a server of this run's own. Without either, no test runs. */
export default async function requireRedis(project: TestProject): Promise<() => Promise<void>> {
  const { url, run, stop } = await startOncePerRun('redis', openRedis);
  project.provide('redisRun', run);
  project.provide('redisUrl', url);
  return stop;
}

async function openRedis() {
  const run = `holdfast-test-${randomBytes(6).toString('hex')}`;
  const given = process.env.REDIS_URL;
  if (given !== undefined && given !== '') {
    await connect(given, async () => {});
    return { url: given, run, stop: () => connect(given, (redis) => deleteKeys(redis, `*${run}*`)) };
  }
  if (findServerBinary() === undefined) install();
  const { url, stop } = await startRedis();
  return { url, run, stop };
}

async function connect(url: string, use: (redis: Redis) => Promise<void>): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: null, connectTimeout: 2_000 });
  let reason: unknown;
  redis.on('error', (error) => {
    reason = error;
  });
  try {
    await redis.connect();
    await use(redis);
  } catch (error) {
    throw new Error(`REDIS_URL: ${reason ?? error}`, { cause: error });
  } finally {
    redis.disconnect();
  }
}

async function deleteKeys(redis: Redis, match: string): Promise<void> {
  for await (const keys of redis.scanStream({ match, count: 1_000 })) {
    if (keys.length > 0) await redis.unlink(keys);
  }
}

/** With Debian's package manager, as root. Elsewhere it says what to do. */
function install(): void {
  if (!existsSync('/etc/debian_version') || process.getuid?.() !== 0) {
    throw new Error(
      'The tests need a Redis, and neither redis-server nor valkey-server is on the PATH. Install one of them ' +
        '(Debian: apt-get install redis-server; macOS: brew install redis), or set REDIS_URL.',
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const aptGet = (...args: string[]) =>
    execFileSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], { env, stdio: 'inherit' });
  aptGet('update');
  aptGet('install', '-y', 'redis-server');
}
