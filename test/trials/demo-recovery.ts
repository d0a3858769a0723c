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

/** Node's compile cache halves the time that the processes of a demo take to start. */
const CACHE = new URL('../../node_modules/.cache/compiled-by-tests', import.meta.url).pathname;

/**
 * The demo goes by chance of its own: what is required holds for several runs together. They run one after
 * the other, since each has five databases, and may have ten processes. Payments break and recover in each.
 */
export async function run(): Promise<Row[]> {
  const inOneProcess = await tell();
  const redis = await startRedis();
  try {
    const overRedis = [await tell('--redis', redis.url), await tell('--redis', redis.url)];
    return [...recovery([inOneProcess, ...overRedis]), replacement(overRedis), await interruption(redis.url)];
  } finally {
    await redis.stop();
  }
}

/**
 * Runs the demo, and reads its output. It fails if the demo does, which holds its books against
 * what it was told.
 */
async function tell(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [DEMO, ...args], {
    env: { ...process.env, NODE_COMPILE_CACHE: CACHE },
  });
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

/**
 * Each new instance gets some fifty calls in a run: those of all runs together, since fewer say more of chance
 * than of balancing.
 */
function replacement(stories: readonly string[]): Row {
  const counts = stories.map((story) =>
    ['user-service', 'inventory-service'].map((service) =>
      numbersIn(story, new RegExp(`the new ${service} got (\\d+) calls, the other (\\d+)`)),
    ),
  );
  const shares = counts.map(toShare);
  const together = toShare(counts.flat());
  return {
    situation: 'new instances take the place of crashed ones, from the third second on',
    measured: `${shares.join(', ')} % of their share, ${together} % together`,
    required: 'at least 60 % together',
    ok: together >= 60,
  };
}

/** Gives what new instances got of the half that is theirs, in percent. */
function toShare(counts: readonly (readonly number[])[]): number {
  const own = counts.reduce((sum, [calls]) => sum + calls!, 0);
  const all = counts.flat().reduce((sum, calls) => sum + calls, 0);
  return Math.round((200 * own) / all);
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
