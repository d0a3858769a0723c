import {
  CircuitBreaker,
  compose,
  constantBackoff,
  type Policy,
  Retry,
  RetryBudget,
  resilient,
  Timeout,
} from '../../src/index.ts';
import { withService } from '../../test/support/simulated-service.ts';
import { simulate, type World } from './harness.ts';
import { type Band, percentLabel, plot, type Series } from './plot.ts';
import { mean, percent } from './report.ts';

/**
 * Receives a call, and tells how many milliseconds the response to it takes. A backend does the
 * work whether or not the caller waits for the response.
 */
export type Backend = () => number;

export interface Demand {
  /** Seconds in which calls begin. */
  seconds: number;
  /** Calls a second of all processes together, at a time in seconds. */
  rateAt: (second: number) => number;
  /** Milliseconds until the next call begins, for a rate in calls a second. */
  gap: (rate: number) => number;
}

export interface ProcessesOptions {
  seed: number;
  contender: ContenderName;
  /** Client processes that share the demand: each has policies of its own. */
  processes: number;
  demand: Demand;
  backend: (world: World) => Backend;
}

/** The calls of all processes together, by the second in which they began. */
export interface Course {
  calls: number[];
  succeeded: number[];
  attempts: number[];
}

/**
 * The client between the callers and the backend in each process: policies, or a ServiceClient,
 * which calls this number of instances. The instances share the backend, as a database.
 */
type Contender = { policy: (attemptTimeout: number) => Policy } | { instances: number };

/** Milliseconds after which an attempt is given up, as in the sources of all these simulations. */
const ATTEMPT_TIMEOUT = 3_000;

/** Runs client processes with a demand on a backend. */
export function runProcesses(options: ProcessesOptions): Promise<Course> {
  const { seed, processes, demand, backend } = options;
  const contender: Contender = CONTENDERS[options.contender];
  if ('policy' in contender) {
    return simulate(seed, (world) => {
      const policies = Array.from({ length: processes }, () => contender.policy(ATTEMPT_TIMEOUT));
      const takes = backend(world);
      return courseOf(world, demand, (countAttempt) => {
        const policy = policies[Math.floor(Math.random() * processes)]!;
        return policy.execute(() => {
          countAttempt();
          return world.sleep(takes());
        });
      });
    });
  }
  const { instances } = contender;
  return withService(
    { instances, processes, client: { attemptTimeout: ATTEMPT_TIMEOUT } },
    async (simulated, world) => {
      const takes = backend(world);
      for (const instance of simulated.instances) instance.takes = takes;
      let countAttempt = () => {};
      simulated.onAttempt = () => countAttempt();
      return courseOf(world, demand, async (count) => {
        countAttempt = count;
        const client = simulated.processes[Math.floor(Math.random() * processes)]!;
        const { error } = await simulated.call('GET', client);
        if (error !== undefined) throw error;
      });
    },
    seed,
  );
}

async function courseOf(
  world: World,
  { seconds, rateAt, gap }: Demand,
  call: (countAttempt: () => void) => Promise<void>,
): Promise<Course> {
  const course: Course = { calls: [], succeeded: [], attempts: [] };
  for (const counts of Object.values(course)) counts.push(...new Array(seconds).fill(0));
  const secondNow = () => Math.floor(performance.now() / 1000);
  const countAttempt = () => {
    if (secondNow() < seconds) course.attempts[secondNow()]!++;
  };
  const calls: Promise<void>[] = [];
  for (;;) {
    await world.sleep(gap(rateAt(performance.now() / 1000)));
    const second = secondNow();
    if (second >= seconds) break;
    course.calls[second]!++;
    calls.push(
      call(countAttempt).then(
        () => {
          course.succeeded[second]!++;
        },
        () => {},
      ),
    );
  }
  await Promise.all(calls);
  return course;
}

const THREE = { maxAttempts: 3 };

/** The contenders by name. All have the defaults, except for the timeout of an attempt. */
const CONTENDERS = {
  'no retries': { policy: (timeout) => new Timeout(timeout) },
  'three attempts': { policy: (timeout) => compose(new Retry(THREE), new Timeout(timeout)) },
  'five attempts at once': {
    policy: (timeout) =>
      compose(new Retry({ maxAttempts: 5, backoff: constantBackoff(0) }), new Timeout(timeout)),
  },
  'with a floor of 10 a second': {
    policy: (timeout) =>
      compose(new Retry({ ...THREE, budget: new RetryBudget({ minPerSecond: 10 }) }), new Timeout(timeout)),
  },
  'with a RetryBudget': {
    policy: (timeout) => compose(new Retry({ ...THREE, budget: new RetryBudget() }), new Timeout(timeout)),
  },
  'with a ratio breaker': {
    policy: (timeout) =>
      compose(new Retry(THREE), new CircuitBreaker({ failureRatio: 0.5 }), new Timeout(timeout)),
  },
  'resilient()': { policy: (attemptTimeout) => resilient({ attemptTimeout }) },
  'ServiceClient, 1 instance': { instances: 1 },
  'ServiceClient, 4 instances': { instances: 4 },
} satisfies Record<string, Contender>;

export type ContenderName = keyof typeof CONTENDERS;

/** Numbers of client processes that share the same demand. */
export const PROCESSES = [1, 5, 20, 100];

/** The head of a column for each number of processes. */
export const PROCESS_LABELS = PROCESSES.map((count) => `${count} process${count === 1 ? '' : 'es'}`);

/** The share of the calls begun from one second to another that succeeded. */
function successBetween({ calls, succeeded }: Course, from: number, to: number): number {
  return sum(succeeded.slice(from, to)) / sum(calls.slice(from, to));
}

/** The share of the calls begun 10 to 20 s after a second that succeeded. */
export function successAfter(course: Course, second: number): number {
  return successBetween(course, second + 10, second + 20);
}

/** Attempts that the backend got from one second to another, for each call. */
export function loadBetween({ calls, attempts }: Course, from: number, to: number): number {
  return sum(attempts.slice(from, to)) / sum(calls.slice(from, to));
}

/** The results of a contender. */
export interface Results {
  /**
   * For each number of processes: the mean of the successes of all runs, with the worst in
   * brackets.
   */
  cells: string[];
  /** The runs with the most processes. */
  courses: Course[];
}

/** Runs a contender with each number of processes and each seed. */
export async function runAll(
  seeds: readonly number[],
  run: (processes: number, seed: number) => Promise<Course>,
  success: (course: Course) => number,
): Promise<Results> {
  const results: Results = { cells: [], courses: [] };
  for (const processes of PROCESSES) {
    results.courses = [];
    for (const seed of seeds) results.courses.push(await run(processes, seed));
    results.cells.push(meanAndWorst(results.courses.map(success)));
  }
  return results;
}

/** The share of the calls begun in each second that succeeded, as a line of a plot. */
export function successLine(name: string, courses: readonly Course[]): Series {
  return {
    name,
    points: courses[0]!.calls.map((_, second) => [
      second + 0.5,
      mean(courses.map((course) => successBetween(course, second, second + 1))),
    ]),
  };
}

/** Plots the success of contenders over time. */
export function plotSuccess(title: string, seconds: number, series: Series[], band: Band): string {
  return plot({
    title,
    x: { label: 'seconds', from: 0, to: seconds },
    y: { label: 'share of calls that succeed', from: 0, to: 1, format: percentLabel },
    series,
    band,
  });
}

function meanAndWorst(shares: readonly number[]): string {
  return `${percent(mean(shares), 0)} (${percent(Math.min(...shares), 0)})`;
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
