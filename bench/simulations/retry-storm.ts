import { Retry, RetryBudget, Timeout } from '../../src/index.ts';
import { arrivals, exponential } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { percent, type Report, times } from './report.ts';
import { Server } from './server.ts';

export interface RetryStormOptions {
  seed?: number;
  /** Whether each layer bounds its retries by a RetryBudget. */
  budgets: boolean;
  /** Whether a layer is told that the retries of the one below are spent. */
  mark: boolean;
  /** Seconds before, in and after the outage. */
  phases?: [before: number, outage: number, after: number];
  /** Calls that the backend works on at once, 50 ms each. */
  workers?: number;
  /** The load of the first attempts, as a share of the capacity of the backend. */
  load?: number;
}

export interface RetryStorm {
  /** Calls that came to the backend in each second, for each request of a user. */
  load: number[];
  /** The share of the requests begun in each second that succeeded. */
  success: number[];
  /** Calls that came to the backend during the outage, for each request of a user. */
  loadInOutage: number;
  /** The same in the worst second. */
  worstLoad: number;
  /** Seconds after the outage until 99 % of requests succeed again; undefined if they do not. */
  recovery: number | undefined;
}

const LAYERS = 3;
const SERVICE_TIME = 50;
/** Seconds at the end whose requests may still be under way. */
const TAIL = 5;

/**
 * Services in a row, each of which makes up to three attempts at the next, and a backend that fails
 * for a while.
 */
export async function retryStorm(options: RetryStormOptions): Promise<RetryStorm> {
  const { seed = 1, budgets, mark, phases = [10, 30, 20], workers = 20, load = 0.8 } = options;
  const [before, outage, after] = phases;
  const seconds = before + outage + after;
  const rate = (load * workers * 1000) / SERVICE_TIME;
  return simulate(seed, async (world) => {
    const server = new Server(world, {
      workers,
      maxQueue: 50 * workers,
      serviceTime: () => exponential(SERVICE_TIME),
    });
    const timeout = new Timeout(1_000);
    const callBackend = () => timeout.execute(() => server.call());
    let call: () => Promise<void> = callBackend;
    for (let layer = 0; layer < LAYERS; layer++) {
      const retry = new Retry({ maxAttempts: 3, budget: budgets ? new RetryBudget() : undefined });
      const next = call;
      call = mark ? () => retry.execute(next) : () => retry.execute(next).catch(forget);
    }

    const calls: number[] = [];
    const begun = new Array<number>(seconds).fill(0);
    const succeeded = new Array<number>(seconds).fill(0);
    let received = 0;
    for (let second = 1; second <= seconds; second++) {
      world.later(1000 * second, () => {
        calls.push(server.received - received);
        received = server.received;
      });
    }
    world.later(1000 * before, () => {
      server.failing = true;
    });
    world.later(1000 * (before + outage), () => {
      server.failing = false;
    });
    await arrivals(world, rate, 1000 * seconds, () => {
      const second = Math.floor(performance.now() / 1000);
      begun[second]!++;
      call().then(
        () => succeeded[second]!++,
        () => {},
      );
    });

    const success = begun.map((count, second) => succeeded[second]! / count).slice(0, -TAIL);
    const sum = (counts: number[]) =>
      counts.slice(before, before + outage).reduce((total, count) => total + count, 0);
    const lastBad = success.findLastIndex((share) => share < 0.99);
    return {
      load: calls.map((count) => count / rate),
      success,
      loadInOutage: sum(calls) / sum(begun),
      worstLoad: Math.max(...calls) / rate,
      recovery: lastBad === success.length - 1 ? undefined : Math.max(0, lastBad + 1 - before - outage),
    };
  });
}

/**
 * Throws an error as it comes over a network unless a service marks it: nothing that was known of
 * it arrives.
 */
function forget(): never {
  throw new Error('the service below responded with 503');
}

const KINDS = [
  { name: 'naive retries', published: '27×, stays down', budgets: false, mark: false },
  { name: 'budgets only', published: '–', budgets: true, mark: false },
  { name: 'mark only', published: '–', budgets: false, mark: true },
  { name: 'budgets and mark', published: '–', budgets: true, mark: true },
];

export async function report(): Promise<Report> {
  const storms: { name: string; published: string; storm: RetryStorm }[] = [];
  for (const { name, published, budgets, mark } of KINDS) {
    storms.push({ name, published, storm: await retryStorm({ budgets, mark }) });
  }
  return {
    title: 'A retry storm through three layers',
    source:
      "Brooker, 'Timeouts, retries, and backoff with jitter' (Amazon Builders' Library): three tries at each of " +
      'five layers make 243 times the load, so at each of three 27 times',
    assumed:
      'Three services in a row, 3 attempts each with the default backoff, budgets with their defaults; the backend ' +
      '(400 calls a second, a queue of 1,000, loaded to 80 %) refuses all calls for 30 s; attempts at it time out ' +
      'after 1 s, and it does not notice. Load: calls at the backend for each request in the outage.',
    head: [
      'three layers of 3 attempts',
      'load in the outage',
      'published',
      'worst second',
      'recovers after',
      'success at the end',
    ],
    rows: storms.map(({ name, published, storm }) => [
      name,
      times(storm.loadInOutage),
      published,
      times(storm.worstLoad),
      storm.recovery === undefined ? 'stays down' : `${storm.recovery} s`,
      percent(storm.success.at(-1)!),
    ]),
    plots: {
      'retry-storm': plot({
        title: 'Load at a backend that fails from 10 s to 40 s, beneath three layers of retries',
        x: { label: 'seconds', from: 0 },
        y: { label: 'calls at the backend per request', scale: 'log', from: 0.1, to: 100 },
        series: storms.map(({ name, storm }) => ({
          name,
          points: storm.load.map((load, second) => [second + 1, load]),
        })),
        band: { from: 10, to: 40, label: 'the backend fails' },
      }),
    },
  };
}
