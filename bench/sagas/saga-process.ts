/** The process of one contender: at each question it runs sagas for a while. */
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import { measurePace } from '../support/pace.ts';
import { play } from '../support/part.ts';
import { contenders } from './contenders.ts';

export interface SagaTask {
  readonly contender: keyof typeof contenders;
  /** The URL of a database that no other contender has; empty for one that needs none. */
  readonly url: string;
}

export interface SagaPace {
  readonly perSecond: number;
  /** Statements or commands a second, those of the background included. */
  readonly roundTrips: number;
}

/** Milliseconds. */
const TURN = 1_000;
const IDLE = 3_000;

await play<SagaTask>(async ({ contender, url }) => {
  const count = countRoundTrips(url);
  const run = await contenders[contender](url);
  const measure = async (atOnce: number): Promise<SagaPace> => {
    const [begun, before] = [performance.now(), await count()];
    const { perSecond } = await measurePace(TURN, atOnce, run);
    const seconds = (performance.now() - begun) / 1_000;
    return { perSecond, roundTrips: ((await count()) - before) / seconds };
  };
  const measureIdle = async () => {
    const before = await count();
    await setTimeout(IDLE);
    return (1_000 * ((await count()) - before)) / IDLE;
  };
  return { one: () => measure(1), sixteen: () => measure(16), idle: measureIdle };
});

/** Counts what is asked of the server of this process: with pg its queries, each BEGIN and COMMIT included. */
function countRoundTrips(url: string): () => Promise<number> {
  if (url.startsWith('redis:')) return countCommands(new Redis(url));
  let queries = 0;
  const { query } = pg.Client.prototype;
  pg.Client.prototype.query = function (...args: unknown[]) {
    queries++;
    return Reflect.apply(query, this, args);
  };
  return async () => queries;
}

/** Of a Redis that serves this process alone. What scripts call themselves is no round trip. */
function countCommands(redis: Redis): () => Promise<number> {
  return async () => {
    const stats = await redis.info('commandstats');
    const calls = (name: string) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    return calls('evalsha') || calls('rpush');
  };
}
