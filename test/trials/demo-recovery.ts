import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { median } from '../../bench/support/measure.ts';
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
    return [...rows, ...replacement(await tellOften('--redis', redis.url))];
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

function numbersIn(story: string, pattern: RegExp): number[] {
  const found = pattern.exec(story);
  if (found === null) throw new Error(`the demo does not tell ${pattern}:\n${story}`);
  return found.slice(1).map(Number);
}
