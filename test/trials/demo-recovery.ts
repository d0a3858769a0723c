import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import pg from 'pg';
import { median } from '../../bench/support/measure.ts';
import { startPostgres } from '../support/postgres-server.ts';
import { startRedis } from '../support/redis.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'in the demo a service that is well again, and instances that take the place of others, get their calls soon.';

const DEMO = new URL('../../examples/demo/main.ts', import.meta.url).pathname;

/** The demo goes by chance of its own: what is required holds for the median of several runs. */
export async function run(): Promise<Row[]> {
  const rows = recovery(await tellOften());
  const redis = await startRedis();
  try {
    rows.push(...replacement(await tellOften('--redis', redis.url)));
    return [...rows, await interruption(redis.url)];
  } finally {
    await redis.stop();
  }
}

/** Runs the demo three times, one after the other: each has five databases, and may have ten processes. */
async function tellOften(...args: string[]): Promise<string[]> {
  const stories: string[] = [];
  for (let run = 1; run <= 3; run++) stories.push(await tell(...args));
  return stories;
}

/**
 * Runs the demo, and reads its output. It fails if the demo does, which holds its books against
 * what it was told.
 */
async function tell(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [DEMO, ...args]);
  return stdout;
}

function recovery(stories: readonly string[]): Row[] {
  const figures = stories.map((story) =>
    numbersIn(story, /In these 5 s (\S+) % of the orders succeeded; one order-service got (\d+) .* (\d+)\./),
  );
  const succeeded = figures.map(([share]) => share!);
  const fewest = Math.min(...figures.flatMap(([, ...counts]) => counts));
  return [
    {
      situation: `payment-service is well again, orders of the next 5 s`,
      measured: `${succeeded.join(', ')} % succeed, in the median ${median(succeeded)} %`,
      required: 'at least 70 % in the median',
      ok: median(succeeded) >= 70,
    },
    {
      situation: 'calls of each order-service in these 5 s',
      measured: figures.map(([, ...counts]) => counts.join(' and ')).join(', '),
      required: 'both get calls',
      ok: fewest > 0,
    },
  ];
}

/** Each new instance gets some fifty calls in a run: both together, since fewer say more of chance than of balancing. */
function replacement(stories: readonly string[]): Row[] {
  const shares = stories.map((story) => {
    const counts = ['user-service', 'inventory-service'].map((service) =>
      numbersIn(story, new RegExp(`the new ${service} got (\\d+) calls, the other (\\d+)`)),
    );
    const own = counts.reduce((sum, [calls]) => sum + calls!, 0);
    const all = counts.flat().reduce((sum, calls) => sum + calls, 0);
    return Math.round((200 * own) / all);
  });
  return [
    {
      situation: 'new instances take the place of crashed ones, from the third second on',
      measured: `${shares.join(', ')} % of their share, in the median ${median(shares)} %`,
      required: 'at least 60 % in the median',
      ok: median(shares) >= 60,
    },
  ];
}

/** Interrupts a demo of ten processes while these start. */
async function interruption(redisUrl: string): Promise<Row> {
  const redis = new Redis(redisUrl);
  const postgres = await startPostgres();
  const pool = new pg.Pool({ connectionString: postgres.url });
  const leftovers = async () => {
    const databases = await pool.query("select from pg_database where datname like 'holdfast_demo_%'");
    return [databases.rowCount, (await redis.keys('holdfast-demo:*')).length];
  };
  const demo = execFile(process.execPath, [DEMO, '--redis', redisUrl, '--postgres', postgres.url]);
  try {
    while (demo.exitCode === null && (await redis.keys('holdfast-demo:*')).length === 0) await setTimeout(10);
    demo.kill('SIGINT');
    const [code] = await once(demo, 'exit');
    const [databases, keys] = await leftovers();
    return {
      situation: 'a demo of ten processes is interrupted while they start',
      measured: `it ends with ${code}, and leaves ${databases} databases and ${keys} keys`,
      required: '130, and nothing left',
      ok: code === 130 && databases === 0 && keys === 0,
    };
  } finally {
    demo.kill('SIGKILL');
    redis.disconnect();
    await pool.end();
    await postgres.stop();
  }
}

function numbersIn(story: string, pattern: RegExp): number[] {
  const found = pattern.exec(story);
  if (found === null) throw new Error(`the demo does not tell ${pattern}:\n${story}`);
  return found.slice(1).map(Number);
}
