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
import { mean, percent } from './report.ts';

/**
 * Receives a call, and tells how many milliseconds the response to it takes. A backend does the work
 * whether or not the caller waits for the response.
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
  contender: Contender;
  /** Client processes that share the demand: each has policies of its own. */
  processes: number;
  /** Milliseconds after which an attempt is given up. */
  attemptTimeout: number;
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

/** Runs client processes with a demand on a backend. */
export function runProcesses(options: ProcessesOptions): Promise<Course> {
  const { seed, contender, processes, attemptTimeout, demand, backend } = options;
  if ('policy' in contender) {
    return simulate(seed, (world) => {
      const policies = Array.from({ length: processes }, () => contender.policy(attemptTimeout));
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
    { instances, processes, client: { attemptTimeout } },
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

/** By name. All have the defaults, but for the timeout of an attempt. */
export const CONTENDERS = {
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

/** The share of the calls begun from one second to another that succeeded. */
export function successBetween({ calls, succeeded }: Course, from: number, to: number): number {
  return sum(succeeded.slice(from, to)) / sum(calls.slice(from, to));
}

/** Attempts that the backend got from one second to another, for each call. */
export function loadBetween({ calls, attempts }: Course, from: number, to: number): number {
  return sum(attempts.slice(from, to)) / sum(calls.slice(from, to));
}

/** The share of the calls begun in each second that succeeded; in the middle of it, for a plot. */
export function successBySecond(courses: readonly Course[]): [second: number, share: number][] {
  return courses[0]!.calls.map((_, second) => [
    second + 0.5,
    mean(courses.map((course) => successBetween(course, second, second + 1))),
  ]);
}

/** The mean of some runs, with the worst of them in brackets. */
export function meanAndWorst(shares: readonly number[]): string {
  return `${percent(mean(shares), 0)} (${percent(Math.min(...shares), 0)})`;
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
