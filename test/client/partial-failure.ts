import type { World } from '../../bench/simulations/harness.ts';
import type { StrategyName } from '../../src/index.ts';
import {
  type Attempt,
  type Call,
  type SimulatedInstance,
  type SimulatedService,
  withService,
} from '../support/simulated-service.ts';

/** The numbers of bad instances and of all instances. */
export const SIZES: readonly (readonly [bad: number, of: number])[] = [
  [1, 2],
  [2, 3],
  [3, 5],
  [2, 10],
  [6, 10],
  [9, 10],
];

export const KINDS = ['refused', 'reset', 503, 'hang', 500] as const;
export type Kind = (typeof KINDS)[number];

export const METHODS = ['GET', 'POST'] as const;
export type Method = (typeof METHODS)[number];

/** A part of a course, from whose beginning on some instances are bad. */
interface Phase {
  readonly from: number;
  /** The time at which the client first knew of a failure in this phase. */
  readonly firstFailure: number;
}

/** The record of a course, which the requirements are checked against. */
export interface Course {
  readonly simulated: SimulatedService;
  readonly phases: readonly Phase[];
  /** Whether the client knew its instances as healthy before any was bad. */
  readonly warm: boolean;
  /** The time of the client's first success. */
  readonly metAt: number;
}

type Scenario = (course: Running) => Promise<void>;

/** A course under way. */
interface Running {
  readonly simulated: SimulatedService;
  readonly world: World;
  readonly method: Method;
  warm: boolean;
  /** Makes as many instances bad as the row says, from the given one on. */
  breakFrom(first: number): void;
  mend(): void;
  /** Milliseconds until a client must have learned what there is to learn of an instance. */
  readonly learning: number;
}

const SCENARIOS = {
  'a cold burst': async ({ simulated, method, breakFrom }) => {
    breakFrom(0);
    await simulated.burst(100, method);
    await simulated.burst(100, method);
  },
  'idle, then a burst': async (course) => {
    const { simulated, world, method, breakFrom } = course;
    await simulated.burst(20, method);
    await world.sleep(60_000);
    course.warm = true;
    breakFrom(0);
    await simulated.burst(100, method);
    await simulated.burst(50, method);
  },
  '100 calls a second': async ({ simulated, method, breakFrom, learning }) => {
    breakFrom(0);
    await simulated.steady(100, learning + 1_500, method);
  },
  '20 calls a second': async ({ simulated, method, breakFrom, learning }) => {
    breakFrom(0);
    await simulated.steady(20, learning + 6_000, method);
  },
  'bad in turn': async (course) => {
    const { simulated, method, breakFrom, mend, learning } = course;
    await simulated.steady(50, 1_000, method);
    course.warm = true;
    for (const first of [0, 1]) {
      breakFrom(first);
      await simulated.steady(25, learning + 2_000, method);
      mend();
      // This is long enough for the second probe, should the first one have failed.
      await simulated.steady(10, 5_000, method);
    }
  },
} satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;

/**
 * The scenarios of each method. The ones that POSTs leave out would teach nothing that the others
 * do not.
 */
export const SCENARIOS_OF: Readonly<Record<Method, readonly ScenarioName[]>> = {
  GET: Object.keys(SCENARIOS) as ScenarioName[],
  POST: ['a cold burst', '20 calls a second', 'bad in turn'],
};

export interface Row {
  readonly bad: number;
  readonly of: number;
  readonly kind: Kind;
  readonly strategy: StrategyName;
  readonly method: Method;
  readonly scenario: ScenarioName;
}

/** Plays a row with the default options of everything. */
export function play({ bad, of, kind, strategy, method, scenario }: Row): Promise<Course> {
  return withService({ instances: of, balancer: { strategy } }, async (simulated, world) => {
    const begun: number[] = [];
    const running: Running = {
      simulated,
      world,
      method,
      warm: false,
      learning: kind === 'hang' ? ATTEMPT_TIMEOUT + 500 : 0,
      breakFrom: (first) => {
        begun.push(performance.now());
        for (let index = 0; index < bad; index++)
          simulated.instances[(first * bad + index) % of]!.become(kind);
      },
      mend: () => {
        for (const instance of simulated.instances) instance.become('well');
      },
    };
    await SCENARIOS[scenario](running);
    const attempts = simulated.instances.flatMap((instance) => instance.attempts);
    const firstEnd = (failed: boolean, from = 0) =>
      attempts
        .filter((attempt) => attempt.failed === failed && attempt.endedAt >= from)
        .reduce((first, { endedAt }) => Math.min(first, endedAt), Number.POSITIVE_INFINITY);
    return {
      simulated,
      phases: begun.map((from) => ({ from, firstFailure: firstEnd(true, from) })),
      warm: running.warm,
      metAt: firstEnd(false),
    };
  });
}

const ATTEMPT_TIMEOUT = 10_000;
/** The number of attempts of an idempotent call. */
const ATTEMPTS = 3;
/** Milliseconds that a probe may keep a caller waiting: ten times the usual latency is less. */
const PROBE = 1_000;
/** Milliseconds that timers and backoff may add. */
const SLACK = 200;
/** The number of failures in a row by which an instance is known to be bad. */
const KNOWN = 5;

/** Lists in words each way in which the course breaks a requirement. */
export function violations(course: Course, kind: Kind, method: Method): string[] {
  return [
    ...troubled(course),
    ...neverOpen(course),
    ...probesInTurn(course),
    ...REQUIREMENTS[kind](course, method),
  ];
}

const REQUIREMENTS: Readonly<Record<Kind, (course: Course, method: Method) => string[]>> = {
  refused: nothingFails,
  reset: retriedElsewhere,
  503: retriedElsewhere,
  500: failsUntilKnown,
  hang: waitsUntilKnown,
};

/** Checks that an attempt has failed: a course without failures would show nothing. */
function troubled({ simulated }: Course): string[] {
  const failures = simulated.instances.some(({ attempts }) => attempts.some(({ failed: bad }) => bad));
  return failures ? [] : ['no attempt has failed'];
}

function neverOpen({ simulated }: Course): string[] {
  return [
    ...simulated.breaker.map(({ to, at }) => `the breaker turns ${to} at ${time(at)}`),
    ...simulated.calls.filter(({ error }) => error?.code === 'ERR_CIRCUIT_OPEN').map(failure),
  ];
}

/**
 * Checks that an instance known to be bad gets one call at a time, at most one a second, and no
 * retry.
 */
function probesInTurn({ simulated }: Course): string[] {
  return simulated.instances.flatMap((instance) => {
    const probes = instance.attempts.filter((attempt) => isProbe(attempt));
    return probes.flatMap((probe, index) => {
      const previous = probes[index - 1];
      const found: string[] = [];
      if (probe.call.attempts.indexOf(probe) > 0) found.push(`a retry is sent to ${known(probe)}`);
      if (previous === undefined || !sameStretch(previous, probe)) return found;
      if (probe.beganAt < previous.endedAt) found.push(`a second probe at once is sent to ${known(probe)}`);
      else if (probe.beganAt < previous.beganAt + PROBE)
        found.push(
          `a probe ${time(probe.beganAt - previous.beganAt)} after another is sent to ${known(probe)}`,
        );
      return found;
    });
  });
}

function nothingFails({ simulated }: Course): string[] {
  return failed(simulated).map(failure);
}

/**
 * Checks that no idempotent call fails that begins half a second after the first failure, and that
 * an earlier one fails only if the budget cannot pay for its retries, or if the client could not
 * know better.
 */
function retriedElsewhere(course: Course, method: Method): string[] {
  if (method === 'POST') return sentOnce(course);
  return failed(course.simulated).flatMap((call) => {
    const phase = course.phases.findLast(({ from }) => from <= call.beganAt);
    if (call.beganAt >= phase!.firstFailure + 500) return [`late: ${failure(call)}`];
    return isExcused(course, call) ? [] : [failure(call)];
  });
}

/**
 * Checks that a call fails only by a status that is not retried, and no idempotent call because it
 * was a probe.
 */
function failsUntilKnown(course: Course, method: Method): string[] {
  if (method === 'POST') return sentOnce(course);
  return failed(course.simulated).flatMap((call) => {
    if (call.error?.status !== 500) return [failure(call)];
    return isProbe(call.attempts.at(-1)!) ? [`by a probe: ${failure(call)}`] : [];
  });
}

/**
 * Checks that no caller waits longer than two attempt timeouts, nor longer than a second for an
 * idempotent probe.
 */
function waitsUntilKnown(course: Course, method: Method): string[] {
  const { simulated } = course;
  const tooLong = simulated.calls
    .filter(({ beganAt, endedAt }) => endedAt - beganAt > 2 * ATTEMPT_TIMEOUT + SLACK)
    .map((call) => `waits for ${time(call.endedAt - call.beganAt)}: ${failure(call)}`);
  if (method === 'POST') return [...tooLong, ...sentOnce(course)];
  const longProbes = simulated.instances.flatMap(({ attempts }) =>
    attempts
      .filter((attempt) => isProbe(attempt) && attempt.endedAt - attempt.beganAt > PROBE + SLACK)
      .map((attempt) => `a probe waits for ${time(attempt.endedAt - attempt.beganAt)} on ${known(attempt)}`),
  );
  const lost = failed(simulated).filter((call) => !isExcused(course, call));
  return [...tooLong, ...longProbes, ...lost.map(failure)];
}

/**
 * Checks that a call that is not idempotent is sent once, since the instance may have processed it:
 * it fails with its instance, at most five times in a row, since then the instance is known, and
 * then at most once for each probe.
 */
function sentOnce({ simulated }: Course): string[] {
  return failed(simulated).flatMap((call) => {
    const { attempts } = call;
    if (attempts.length !== 1) return [`sent ${attempts.length} times: ${failure(call)}`];
    return attempts[0]!.failed ? [] : [failure(call)];
  });
}

function failed({ calls }: SimulatedService): Call[] {
  return calls.filter(({ error }) => error !== undefined);
}

/**
 * Tells whether nothing better could be done for a call than to let it fail: the budget was spent,
 * or a cold client had met no healthy instance yet, or each retry of a warm client went to an
 * instance that was not yet known to be bad.
 */
function isExcused({ warm, metAt, phases }: Course, { beganAt, attempts, budgetSpent }: Call): boolean {
  if (budgetSpent) return true;
  if (attempts.length < ATTEMPTS) return false;
  if (!warm) return attempts.at(-1)!.beganAt <= metAt;
  const { from } = phases.findLast((phase) => phase.from <= beganAt)!;
  return attempts
    .slice(1)
    .every((attempt) =>
      attempt.instance.attempts.every(
        ({ failed: bad, endedAt }) => !bad || endedAt < from || endedAt >= attempt.beganAt,
      ),
    );
}

/** A time in which an instance was known to be bad. */
interface Stretch {
  readonly from: number;
  readonly to: number;
}

const stretches = new WeakMap<SimulatedInstance, readonly Stretch[]>();

/**
 * Finds the stretches of an instance: each is from the fifth failure in a row to the next success.
 */
function stretchesOf(instance: SimulatedInstance): readonly Stretch[] {
  const cached = stretches.get(instance);
  if (cached !== undefined) return cached;
  const found: { from: number; to: number }[] = [];
  let inARow = 0;
  for (const { endedAt, failed: bad } of instance.attempts.toSorted((a, b) => a.endedAt - b.endedAt)) {
    if (!bad && inARow >= KNOWN) found.at(-1)!.to = endedAt;
    inARow = bad ? inARow + 1 : 0;
    if (inARow === KNOWN) found.push({ from: endedAt, to: Number.POSITIVE_INFINITY });
  }
  stretches.set(instance, found);
  return found;
}

function stretchAt({ instance, beganAt }: Attempt): Stretch | undefined {
  return stretchesOf(instance).find(({ from, to }) => from < beganAt && beganAt < to);
}

/** Tells whether an attempt began while its instance was known to be bad. */
function isProbe(attempt: Attempt): boolean {
  return stretchAt(attempt) !== undefined;
}

function sameStretch(one: Attempt, other: Attempt): boolean {
  return stretchAt(one) === stretchAt(other);
}

function known({ instance, beganAt }: Attempt): string {
  return `${instance.id} at ${time(beganAt)}, which is known to be bad`;
}

function failure({ beganAt, endedAt, error, attempts }: Call): string {
  const route = attempts.map(({ instance, failed: bad }) => `${instance.id}${bad ? '✗' : ''}`).join(' ');
  return `the call from ${time(beganAt)} to ${time(endedAt)} by ${route || 'no instance'}: ${error?.message ?? 'well'}`;
}

function time(milliseconds: number): string {
  return `${Math.round(milliseconds)} ms`;
}

/** Shows the first few violations, and how many more there are. */
export function shown(found: readonly string[]): string {
  const more = found.length > 3 ? [`… and ${found.length - 3} more`] : [];
  return [...found.slice(0, 3), ...more].map((line) => `\n    ${line}`).join('');
}
