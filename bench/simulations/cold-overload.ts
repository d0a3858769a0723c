import { compose, type Policy, Timeout } from '../../src/index.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { ALGORITHMS } from './limiter-growth.ts';
import { plot } from './plot.ts';
import { mean, percent, type Report, times } from './report.ts';
import { Server } from './server.ts';

export interface ColdOptions {
  seed?: number;
  /** Calls for each that the server can take. */
  demand: number;
  seconds?: number;
  /** Calls that come at once, at the very start. */
  burst?: number;
}

const WORKERS = 20;
const SERVICE_TIME = 50;
const MAX_WAIT = 250;

/**
 * The calls that succeed in time in each second, as a share of the server's capacity, when a
 * process starts into overload.
 */
export async function coldOverload(
  makeLimiter: () => Policy,
  { seed = 1, demand, seconds = 60, burst = 0 }: ColdOptions,
): Promise<number[]> {
  return simulate(seed, async (world) => {
    const server = new Server(world, {
      workers: WORKERS,
      maxQueue: Infinity,
      serviceTime: () => Math.max(1, normal(SERVICE_TIME, SERVICE_TIME / 5)),
    });
    const policy = compose(makeLimiter(), new Timeout(MAX_WAIT));
    const capacity = (WORKERS * 1000) / SERVICE_TIME;
    const inTime = new Array<number>(seconds).fill(0);
    const call = () => {
      policy
        .execute(() => server.call())
        .then(
          () => {
            inTime[Math.min(seconds - 1, Math.floor(performance.now() / 1000))]!++;
          },
          () => {},
        );
    };
    for (let calls = 0; calls < burst; calls++) call();
    await arrivals(world, demand * capacity, 1000 * seconds, call);
    return inTime.map((calls) => calls / capacity);
  });
}

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const series: { name: string; points: [number, number][] }[] = [];
  for (const demand of [2, 5]) {
    for (const burst of [0, 1000]) {
      for (const algorithm of ALGORITHMS) {
        const goodput = await coldOverload(() => new AdaptiveConcurrency({ algorithm }), { demand, burst });
        const first = mean(goodput.slice(0, 10));
        rows.push([algorithm, times(demand, 0), String(burst), percent(first), percent(mean(goodput))]);
        if (demand !== 5 || burst !== 0) continue;
        series.push({
          name: algorithm,
          points: goodput.slice(0, 20).map((share, second): [number, number] => [second + 1, share]),
        });
      }
    }
  }
  return {
    title: 'A process starts into an overload',
    source: 'nothing: it is what a limit that looks upward first has to pay for it',
    assumed:
      'Twenty workers that take 50 ms a call (normal, deviation 10 ms), from which a call that was given up after ' +
      '250 ms takes its time all the same. Goodput: answers in time, as a share of what the workers can do. Burst: ' +
      'calls that come at once at the start. All options at their defaults.',
    head: ['algorithm', 'demand', 'burst', 'goodput in 10 s', 'in 60 s'],
    rows,
    plots: {
      'cold-overload': plot({
        title: 'Goodput of a server that is called five times as often as it can take, from the start',
        x: { label: 'seconds', from: 1, to: 20 },
        y: { label: 'goodput', from: 0, to: 1, format: (share) => percent(share, 0) },
        series,
      }),
    },
  };
}
