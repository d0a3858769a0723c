import { exponential } from './chance.ts';
import {
  type Backend,
  type ContenderName,
  type Course,
  type Demand,
  loadBetween,
  PROCESS_LABELS,
  plotSuccess,
  runAll,
  runProcesses,
  successAfter,
  successLine,
} from './client-processes.ts';
import type { World } from './harness.ts';
import type { Series } from './plot.ts';
import { mean, type Report, times } from './report.ts';

export type Wave = 'spike' | 'ramp';

/** Milliseconds that the server works on a call. */
const BASE_TIME = 1_000;
/** Milliseconds that a response takes longer for each call under way. */
const SLOPE = 10;
/** Milliseconds of network each way. */
const NETWORK = 100;

/**
 * A server whose responses take longer the more calls it works on, so that 64 a second come within
 * the timeout.
 */
function contendedServer({ later }: World): Backend {
  let inFlight = 0;
  return () => {
    inFlight++;
    const work = BASE_TIME + SLOPE * inFlight;
    later(work, () => inFlight--);
    return exponential(NETWORK) + work + exponential(NETWORK);
  };
}

interface WaveRules {
  rateAt: Demand['rateAt'];
  /** The second from which on the demand is below what the server can do. */
  calm: number;
  seconds: number;
}

export const WAVES: Record<Wave, WaveRules> = {
  spike: { rateAt: (second) => (second >= 20 && second < 25 ? 80 : 40), calm: 25, seconds: 75 },
  ramp: { rateAt: (second) => Math.max(0.1, 80 - 1.6 * Math.abs(second - 25)), calm: 35, seconds: 75 },
};

export interface CollapseOptions {
  seed: number;
  seconds?: number;
}

/** Client processes whose demand is for a while more than a server can do. */
export function collapse(
  wave: Wave,
  contender: ContenderName,
  processes: number,
  { seed, seconds = WAVES[wave].seconds }: CollapseOptions,
): Promise<Course> {
  return runProcesses({
    seed,
    contender,
    processes,
    demand: { seconds, rateAt: WAVES[wave].rateAt, gap: (rate) => exponential(1_000 / rate) },
    backend: contendedServer,
  });
}

/**
 * The share of calls that succeed 10 to 20 s after the demand has fallen below what the server can
 * do.
 */
export function successAfterWave(wave: Wave, course: Course): number {
  return successAfter(course, WAVES[wave].calm);
}

/** With these seeds the server collapses in the spike without help. */
export const SEEDS = [2, 3, 4, 5, 6];

const NAMES = [
  'no retries',
  'three attempts',
  'with a floor of 10 a second',
  'with a RetryBudget',
  'with a ratio breaker',
  'resilient()',
  'ServiceClient, 1 instance',
  'ServiceClient, 4 instances',
] satisfies ContenderName[];

const PLOTTED: ContenderName[] = [
  'three attempts',
  'with a RetryBudget',
  'resilient()',
  'ServiceClient, 1 instance',
];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const plots: Record<string, string> = {};
  for (const wave of ['spike', 'ramp'] as const) {
    const { calm, seconds } = WAVES[wave];
    const series: Series[] = [];
    for (const name of NAMES) {
      const { cells, courses } = await runAll(
        SEEDS,
        (processes, seed) => collapse(wave, name, processes, { seed }),
        (course) => successAfterWave(wave, course),
      );
      const load = mean(courses.map((course) => loadBetween(course, calm, calm + 10)));
      rows.push([wave, name, ...cells, times(load)]);
      if (PLOTTED.includes(name)) series.push(successLine(name, courses));
    }
    plots[`collapse-${wave}`] = plotSuccess(
      wave === 'spike'
        ? 'A hundred client processes and a server that collapses in a spike'
        : 'A hundred client processes and a server that collapses in a ramp',
      seconds,
      series,
      wave === 'spike'
        ? { from: 20, to: 25, label: 'twice the calls' }
        : { from: 15, to: 35, label: 'more calls than it can do' },
    );
  }
  return {
    title: 'A server that collapses, and client processes that share the demand',
    source:
      "Brooker, 'What is Backoff For?' (2022), and the simulator that goes with it: without retries the server recovers, with " +
      'three attempts of each call it never does',
    assumed:
      'A call takes 1 s and 10 ms more for each call that the server works on, whether or not somebody waits, and 0.1 s of ' +
      'network each way; attempts time out after 3 s, all other options are defaults. Spike: 40 calls a second, 80 for 5 s. Ramp: ' +
      'from 40 to 80 in 25 s, then down to none in 50 s. The four instances lead to the one server. Success of the calls begun 10 to 20 s after the ' +
      'demand has fallen below 64 a second: the mean of five runs, the worst in brackets; attempts for each call in the 10 s before, with 100 processes.',
    head: ['demand', 'client', ...PROCESS_LABELS, 'load'],
    rows,
    plots,
  };
}
