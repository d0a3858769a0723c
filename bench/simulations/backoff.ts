import {
  type Backoff,
  constantBackoff,
  decorrelatedJitter,
  exponentialBackoff,
  Retry,
} from '../../src/index.ts';
import { normal } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { count, milliseconds, type Report } from './report.ts';

/** Of the mean run: how often clients tried to write, and milliseconds until the last one had. */
export interface Contention {
  calls: number;
  time: number;
}

class Conflict extends Error {}

/** Clients that all update one row under optimistic locking at once, each once; the mean of some runs. */
export async function contention(
  makeBackoff: () => Backoff,
  { clients, runs, seed = 1 }: { clients: number; runs: number; seed?: number },
): Promise<Contention> {
  const total = { calls: 0, time: 0 };
  for (let run = 0; run < runs; run++) {
    await simulate(seed * 1_000_003 + run, async ({ sleep }) => {
      let version = 0;
      const network = () => sleep(Math.abs(normal(10, 2)));
      const update = async () => {
        await network();
        const read = version;
        await network();
        await network();
        total.calls++;
        const written = read === version;
        if (written) version++;
        await network();
        if (!written) throw new Conflict();
      };
      const retry = new Retry({ maxAttempts: Infinity, backoff: makeBackoff() });
      await Promise.all(Array.from({ length: clients }, () => retry.execute(update)));
      total.time += performance.now();
    });
  }
  return { calls: total.calls / runs, time: total.time / runs };
}

const max = 2_000;

/** The name, the backoff, and what Brooker's simulator gives for 100 clients: calls and milliseconds. */
export const BACKOFFS = {
  'no backoff': [() => constantBackoff(0), 2_422, 2_026],
  'no jitter': [() => exponentialBackoff({ base: 10, max, jitter: 'none' }), 1_848, 62_881],
  'equal jitter': [() => exponentialBackoff({ base: 10, max, jitter: 'equal' }), 813, 6_631],
  'full jitter': [() => exponentialBackoff({ base: 10, max, jitter: 'full' }), 795, 4_842],
  decorrelated: [() => decorrelatedJitter({ base: 5, max }), 1_000, 4_637],
} satisfies Record<string, [() => Backoff, number, number]>;

const CLIENTS = [10, 25, 50, 75, 100, 150];
const RUNS = 10;

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const lines: { name: string; points: [number, number][]; times: [number, number][] }[] = [];
  for (const [name, [makeBackoff, calls, time]] of Object.entries(BACKOFFS)) {
    const line = { name, points: [] as [number, number][], times: [] as [number, number][] };
    for (const clients of CLIENTS) {
      const result = await contention(makeBackoff, { clients, runs: RUNS });
      line.points.push([clients, result.calls]);
      line.times.push([clients, result.time / 1000]);
      if (clients === 100)
        rows.push([name, count(result.calls), count(calls), milliseconds(result.time), milliseconds(time)]);
    }
    lines.push(line);
  }
  const x = { label: 'clients that contend', from: 0 };
  return {
    title: 'A hundred clients contend for one row',
    source: "Brooker, 'Exponential Backoff and Jitter' (AWS, 2015)",
    assumed:
      'One row under optimistic locking, each client updates it once; a way through the network takes normal ' +
      '(10 ms, 2 ms); waits from 10 ms (decorrelated: 5 ms) to 2 s. Published: what his simulator prints, the ' +
      `article has only plots. Mean of ${RUNS} runs.`,
    head: ['backoff', 'calls', 'published', 'time to finish', 'published'],
    rows,
    plots: {
      'backoff-calls': plot({
        title: 'Calls until every client has updated the row',
        x,
        y: { label: 'calls', from: 0 },
        series: lines.map(({ name, points }) => ({ name, points })),
      }),
      'backoff-time': plot({
        title: 'Time until every client has updated the row',
        x,
        y: { label: 'seconds', scale: 'log' },
        series: lines.map(({ name, times }) => ({ name, points: times })),
      }),
    },
  };
}
