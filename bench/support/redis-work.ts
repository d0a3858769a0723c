import type { Redis } from 'ioredis';
import * as scripts from '../../src/redis/registry-scripts.ts';

/** The work that a Redis has done since it was started, by its own account. */
export interface RedisWork {
  /** How often each command was called, by its name. */
  readonly calls: ReadonlyMap<string, number>;
  /** Milliseconds of CPU. */
  readonly cpu: number;
}

/** The commands that our scripts call. None of them is one that our clients send while they beat, watch or pick. */
const IN_SCRIPTS = new Set(
  Object.values(scripts).flatMap(({ lua }) =>
    Array.from(lua.matchAll(/redis\.call\('(\w+)'/g), ([, name]) => name!.toLowerCase()),
  ),
);

export async function workOf(redis: Redis): Promise<RedisWork> {
  const [stats, cpu] = [await redis.info('commandstats'), await redis.info('cpu')];
  const calls = new Map<string, number>();
  for (const [, name, count] of stats.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)) {
    calls.set(name!, Number(count));
  }
  const seconds = (what: string) => Number(new RegExp(`^used_cpu_${what}:(.+)$`, 'm').exec(cpu)![1]);
  return { calls, cpu: 1_000 * (seconds('user') + seconds('sys')) };
}

/**
 * Commands that clients sent in between, without those that asked for the work. Redis counts what a script calls as
 * it counts what a client sends, and the EVALSHA besides; so where ours have run, what they call is left out.
 */
export function commandsSent(before: RedisWork, after: RedisWork): number {
  const since = (name: string) => (after.calls.get(name) ?? 0) - (before.calls.get(name) ?? 0);
  const byScripts = since('evalsha') > 0;
  let sent = 0;
  for (const name of after.calls.keys()) {
    if (name !== 'info' && !(byScripts && IN_SCRIPTS.has(name))) sent += since(name);
  }
  return sent;
}
