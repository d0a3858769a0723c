import { Bulkhead, compose, type Policy, Timeout } from '../../src/index.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { mean, percent, type Report } from './report.ts';
import { Server } from './server.ts';

export interface LimitedOptions {
  seed?: number;
  /** Seconds with all workers, with half of them, and with all again. */
  phase?: number;
  workers?: number;
  /** Calls for each that the server can take with all workers. */
  demand?: number;
}

export interface Limited {
  /** The limit at the end of each second. */
  limits: number[];
  /** In each of the three phases: the mean limit of its second half. */
  limit: number[];
  /**
   * In each of the three phases: calls that succeeded in time, as a share of the capacity of the
   * server.
   */
  goodput: number[];
}

const SERVICE_TIME = 50;
const MAX_WAIT = 250;

/** A server that loses half its workers for a while, called more often than it can take, under a limit. */
export async function limited(
  makeLimiter: () => Policy & { readonly limit: number },
  options: LimitedOptions = {},
): Promise<Limited> {
  const { seed = 1, phase = 60, workers = 20, demand = 1.5 } = options;
  return simulate(seed, async (world) => {
    const server = new Server(world, {
      workers,
      maxQueue: Infinity,
      serviceTime: () => Math.max(1, normal(SERVICE_TIME, SERVICE_TIME / 5)),
    });
    const limiter = makeLimiter();
    const policy = compose(limiter, new Timeout(MAX_WAIT));
    const capacity = (workers * 1000) / SERVICE_TIME;
    const limits: number[] = [];
    const inTime = [0, 0, 0];
    for (let second = 1; second <= 3 * phase; second++) {
      world.later(1000 * second, () => limits.push(limiter.limit));
    }
    world.later(1000 * phase, () => {
      server.workers = workers / 2;
    });
    world.later(2000 * phase, () => {
      server.workers = workers;
    });
    await arrivals(world, demand * capacity, 3000 * phase, () => {
      policy
        .execute(() => server.call())
        .then(
          () => inTime[Math.min(2, Math.floor(performance.now() / (1000 * phase)))]!++,
          () => {},
        );
    });
    const half = Math.floor(phase / 2);
    return {
      limits,
      limit: inTime.map((_, index) => mean(limits.slice(index * phase + half, (index + 1) * phase))),
      goodput: inTime.map((count, index) => count / (capacity * phase * (index === 1 ? 0.5 : 1))),
    };
  });
}

class FixedLimit extends Bulkhead {
  readonly limit: number;

  constructor(limit: number) {
    super({ maxConcurrent: limit });
    this.limit = limit;
  }
}

export const LIMITERS: Record<string, () => Policy & { readonly limit: number }> = {
  'fixed at 20': () => new FixedLimit(20),
  'fixed at 60': () => new FixedLimit(60),
  'fixed at 100': () => new FixedLimit(100),
  gradient2: () => new AdaptiveConcurrency({ algorithm: 'gradient2' }),
  vegas: () => new AdaptiveConcurrency({ algorithm: 'vegas' }),
  aimd: () => new AdaptiveConcurrency({ algorithm: 'aimd' }),
};

export async function report(): Promise<Report> {
  const results: { name: string; result: Limited }[] = [];
  for (const [name, makeLimiter] of Object.entries(LIMITERS)) {
    results.push({ name, result: await limited(makeLimiter) });
  }
  return {
    title: 'A server loses half its capacity and gets it back',
    source:
      "Netflix, 'Performance Under Load' (2018) and concurrency-limits, which publish no figures for this",
    assumed:
      'Twenty workers that take 50 ms a call (normal, deviation 10 ms), ten of them from 60 s to 120 s; half as many ' +
      'calls again as twenty can do; a call is given up after 250 ms, which the server does not notice. Limit: mean ' +
      'of the second half of each minute. Goodput: answers in time, as a share of what the workers could do.',
    head: ['limit', '20 workers', '10 workers', '20 again', 'goodput', '10 workers', '20 again'],
    rows: results.map(({ name, result: { limit, goodput } }) => [
      name,
      ...limit.map((value) => value.toFixed(0)),
      ...goodput.map((share) => percent(share)),
    ]),
    plots: {
      'adaptive-concurrency': plot({
        title: 'The limit found for twenty workers, ten of which are away for a minute',
        x: { label: 'seconds', from: 0, to: 180 },
        y: { label: 'limit', from: 0 },
        series: [
          {
            name: 'workers',
            points: [0, 60, 60, 120, 120, 180].map((x, index) => [x, index >> 1 === 1 ? 10 : 20]),
          },
          ...results
            .filter(({ name }) => !name.startsWith('fixed'))
            .map(({ name, result }) => ({
              name,
              points: result.limits.map((limit, index): [number, number] => [index + 1, limit]),
            })),
        ],
        band: { from: 60, to: 120, label: 'ten workers' },
      }),
    },
  };
}
