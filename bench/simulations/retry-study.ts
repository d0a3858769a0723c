import {
  CircuitBreaker,
  CircuitOpenError,
  constantBackoff,
  type Policy,
  Retry,
  RetryBudget,
  resilient,
} from '../../src/index.ts';
import { arrivals, exponential } from './chance.ts';
import { PROCESSES } from './client-processes.ts';
import { simulate } from './harness.ts';
import { percentLabel, plot } from './plot.ts';
import { mean, percent, type Report, times } from './report.ts';

export interface Study {
  /** The share of the calls that succeeded. */
  success: number;
  /** Attempts that the service got for each call. */
  load: number;
}

/** Milliseconds of the network, each way. */
const NETWORK = 10;

const AT_ONCE = { backoff: constantBackoff(0) };

/** The strategies of the study, made of our classes, for one client process. */
export const STRATEGIES = {
  'no retries': () => new Retry({ maxAttempts: 1 }),
  'three retries': () => new Retry({ ...AT_ONCE, maxAttempts: 4 }),
  adaptive: () =>
    new Retry({
      ...AT_ONCE,
      maxAttempts: Infinity,
      budget: new RetryBudget({ ratio: 0.1, initial: 5 }),
    }),
  breaker: retriesBehindBreaker,
  'resilient()': () => resilient(),
} satisfies Record<string, () => Pick<Policy, 'execute'>>;

export type StrategyName = keyof typeof STRATEGIES;

/** Three retries while a tenth of the attempts or less fails. The breaker stops retries alone: a first attempt goes past it. */
function retriesBehindBreaker(): Pick<Policy, 'execute'> {
  const breaker = new CircuitBreaker({
    failureRatio: 0.1,
    window: { calls: 100 },
    minimumCalls: 1,
    resetTimeout: 2_000,
    halfOpen: { calls: 1 },
  });
  const retry = new Retry({ ...AT_ONCE, maxAttempts: 4 });
  return {
    execute: (operation) =>
      retry.execute((context) =>
        breaker
          .execute(() => operation(context))
          .catch((error) => {
            if (context.attempt === 1 && error instanceof CircuitOpenError) return operation(context);
            throw error;
          }),
      ),
  };
}

/** Client processes that begin so many calls a second together, of a service each of whose responses may be a failure. */
export function retryStudy(
  strategy: StrategyName,
  failureRate: number,
  processes: number,
  seed: number,
  { rate = 1_000, seconds = 10 } = {},
): Promise<Study> {
  return simulate(seed, async (world) => {
    const policies = Array.from({ length: processes }, () => STRATEGIES[strategy]());
    let calls = 0;
    let succeeded = 0;
    let attempts = 0;
    const attempt = async () => {
      attempts++;
      await world.sleep(exponential(NETWORK) + exponential(NETWORK));
      if (Math.random() < failureRate) throw new Error('503');
    };
    const all: Promise<void>[] = [];
    await arrivals(world, rate, 1_000 * seconds, () => {
      calls++;
      const policy = policies[Math.floor(Math.random() * processes)]!;
      all.push(
        policy.execute(attempt).then(
          () => {
            succeeded++;
          },
          () => {},
        ),
      );
    });
    await Promise.all(all);
    return { success: succeeded / calls, load: attempts / calls };
  });
}

const SEEDS = [2, 3, 4];
const NAMES = Object.keys(STRATEGIES) as StrategyName[];
const RATES = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5];

/** By failure rate and strategy. */
export const PUBLISHED: Record<number, Partial<Record<StrategyName, string>>> = {
  0.1: { 'three retries': '99.98 %, 1.114×', adaptive: '99.2 %, 1.101×', breaker: '92.7 %, 1.031×' },
  0.5: { 'three retries': '93.8 %, 1.87×', adaptive: '57.5 %, 1.142×', breaker: '49.4 %' },
};

/** The mean of three runs. */
export async function meanStudy(
  strategy: StrategyName,
  failureRate: number,
  processes: number,
): Promise<Study> {
  const studies: Study[] = [];
  for (const seed of SEEDS) studies.push(await retryStudy(strategy, failureRate, processes, seed));
  return {
    success: mean(studies.map(({ success }) => success)),
    load: mean(studies.map(({ load }) => load)),
  };
}

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  for (const rate of [0.1, 0.5]) {
    for (const name of NAMES) {
      const row = [percent(rate, 0), name];
      for (const processes of PROCESSES) {
        const { success, load } = await meanStudy(name, rate, processes);
        row.push(`${percent(success, 2)}, ${times(load, 3)}`);
      }
      rows.push([...row, PUBLISHED[rate]![name] ?? '–']);
    }
  }
  const success: { name: string; points: [number, number][] }[] = [];
  const load: { name: string; points: [number, number][] }[] = [];
  for (const name of NAMES) {
    const studies: [number, Study][] = [];
    for (const rate of RATES) studies.push([rate, await retryStudy(name, rate, 100, SEEDS[0]!)]);
    success.push({ name, points: studies.map(([rate, study]) => [rate, study.success]) });
    load.push({ name, points: studies.map(([rate, study]) => [rate, study.load]) });
  }
  const x = { label: 'share of responses that are failures', format: percentLabel, from: 0, to: 0.5 };
  return {
    title: 'Retries of a service that fails by chance',
    source:
      "Brooker, 'Fixing retries with token buckets and circuit breakers' (2022), and its simulator: 100 clients",
    assumed:
      'A thousand calls a second of all processes together for 10 s, 10 ms of network each way, retries without a wait; success, and attempts for ' +
      'each call, the mean of three runs. Adaptive: as many retries as `new RetryBudget({ ratio: 0.1, initial: 5 })` pays for. Breaker: three retries ' +
      'while its `CircuitBreaker({ failureRatio: 0.1, window: { calls: 100 }, minimumCalls: 1, resetTimeout: 2_000, halfOpen: { calls: 1 } })` is closed; first attempts go past ' +
      'it. The one of the study compares all calls since the start, and is closed again as soon as fewer than a tenth of them have failed; its 49.4 % is what half comes to in one run.',
    head: [
      'failures',
      'strategy',
      ...PROCESSES.map((count) => `${count} process${count === 1 ? '' : 'es'}`),
      'published, 100',
    ],
    rows,
    plots: {
      'retry-study-success': plot({
        title: 'Calls that succeed in a hundred processes, by strategy',
        x,
        y: { label: 'share of calls that succeed', from: 0, to: 1, format: percentLabel },
        series: success,
      }),
      'retry-study-load': plot({
        title: 'Attempts for each call in a hundred processes, by strategy',
        x,
        y: { label: 'attempts for each call', from: 0.8, to: 2 },
        series: load,
      }),
    },
  };
}
