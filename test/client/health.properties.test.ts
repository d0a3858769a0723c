import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Lease, LoadBalancer, StrategyName } from '../../src/index.ts';
import { strategies } from '../balancing/helpers.ts';
import {
  type Behaviour,
  type SimulatedInstance,
  type SimulatedService,
  type SimulatedServiceOptions,
  service,
  withService,
} from '../support/simulated-service.ts';

type Step =
  | { readonly is: 'become'; readonly which: number; readonly behaviour: Behaviour | 'failing' }
  | { readonly is: 'join' }
  | { readonly is: 'leave'; readonly which: number }
  | { readonly is: 'calls'; readonly count: number; readonly every: number; readonly method: string }
  | { readonly is: 'idle'; readonly for: number };

const BEHAVIOURS = ['well', 'well', 'refused', 'reset', 503, 500, 'hang', 'failing'] as const;
const which = fc.nat(7);

const calls = fc.record({
  is: fc.constant('calls' as const),
  count: fc.integer({ min: 1, max: 40 }),
  every: fc.constantFrom(0, 5, 50),
  method: fc.constantFrom('GET', 'GET', 'POST'),
});

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: calls },
    {
      weight: 4,
      arbitrary: fc.record({
        is: fc.constant('become' as const),
        which,
        behaviour: fc.constantFrom(...BEHAVIOURS),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ is: 'join' as const }) },
    { weight: 1, arbitrary: fc.record({ is: fc.constant('leave' as const), which }) },
    {
      weight: 2,
      arbitrary: fc.record({ is: fc.constant('idle' as const), for: fc.integer({ min: 1, max: 12_000 }) }),
    },
  ),
  { maxLength: 25, size: 'max' },
);

const instances = fc.integer({ min: 1, max: 6 });

/** A service with a number of instances and a strategy. */
const anyService: fc.Arbitrary<SimulatedServiceOptions> = fc
  .record({ instances, strategy: fc.constantFrom<StrategyName>(...strategies) })
  .map(({ strategy, ...others }) => ({ ...others, balancer: { strategy } }));

/**
 * The number of registered instances that no join exceeds: more would only make the runs longer.
 */
const MOST = 8;

/**
 * Keeps which instances are registered, which of these the balancer knows, and which of these are
 * ejected.
 */
class Roster {
  readonly registered: SimulatedInstance[];
  readonly known = new Set<string>();
  readonly ejected = new Set<string>();
  readonly #simulated: SimulatedService;

  constructor(simulated: SimulatedService) {
    this.#simulated = simulated;
    this.registered = [...simulated.instances];
    const { balancer } = simulated;
    balancer.on('join', ({ instance }) => this.known.add(instance.instanceId));
    balancer.on('eject', ({ instance }) => this.ejected.add(instance.instanceId));
    balancer.on('return', ({ instance }) => this.ejected.delete(instance.instanceId));
    balancer.on('leave', ({ instance }) => {
      this.known.delete(instance.instanceId);
      this.ejected.delete(instance.instanceId);
    });
  }

  at(index: number): SimulatedInstance {
    return this.registered[index % this.registered.length]!;
  }

  async join(): Promise<void> {
    if (this.registered.length < MOST) this.registered.push(await this.#simulated.join());
  }

  /** Lets an instance leave, unless it is the last one. */
  async leave(index: number): Promise<void> {
    if (this.registered.length === 1) return;
    const [leaving] = this.registered.splice(index % this.registered.length, 1);
    await this.#simulated.leave(leaving!);
  }
}

/**
 * Carries out the steps. Calls overlap the steps after them. It resolves when the last call has
 * ended.
 */
async function take(all: readonly Step[], simulated: SimulatedService, roster: Roster): Promise<void> {
  const under: Promise<unknown>[] = [];
  for (const step of all) {
    if (step.is === 'join') await roster.join();
    else if (step.is === 'leave') await roster.leave(step.which);
    else if (step.is === 'idle') await simulated.world.sleep(step.for);
    else if (step.is === 'become') {
      const { behaviour } = step;
      roster
        .at(step.which)
        .become(behaviour === 'failing' ? () => (Math.random() < 0.5 ? 500 : 'well') : behaviour);
    } else {
      for (let count = 0; count < step.count; count++) {
        under.push(simulated.call(step.method));
        if (step.every > 0) await simulated.world.sleep(step.every);
      }
    }
  }
  await Promise.all(under);
}

/**
 * Tells whether an instance has responded well of late, and has not failed for longer than the
 * windows reach back: ten seconds, or the results by which an instance is known.
 */
function isClearlyWell({ attempts }: SimulatedInstance, instances: number, now: number): boolean {
  const ended = attempts
    .filter(({ endedAt }) => endedAt <= now)
    .sort((one, other) => other.endedAt - one.endedAt);
  const required = Math.max(3, Math.ceil(20 / instances));
  const inWindow = ended.filter(({ endedAt }, index) => endedAt > now - 11_000 || index < required);
  return inWindow.every(({ failed }) => !failed) && inWindow.some(({ endedAt }) => endedAt > now - 8_000);
}

/** The subject of a property, and how to carry out its steps. */
interface Course<Options> {
  readonly simulated: SimulatedService;
  readonly roster: Roster;
  readonly options: Options;
  /** Resolves when all steps are done and all calls have ended. */
  readonly run: () => Promise<void>;
}

const PATIENT = { timeout: 60_000 };

/**
 * Milliseconds of real time after which no run begins: the search for a shorter failure must not
 * outlast the test.
 */
const LATEST_RUN = 40_000;

/**
 * Checks a property with other steps in each run. A failure is reported with the seed and the path
 * that repeat it.
 */
function check<Options extends SimulatedServiceOptions>(
  numRuns: number,
  services: fc.Arbitrary<Options>,
  property: (course: Course<Options>) => Promise<void>,
  examples: [Options, Step[], number][] = [],
): Promise<void> {
  const course = (options: Options, all: readonly Step[], seed: number) =>
    withService(
      options,
      (simulated) => {
        const roster = new Roster(simulated);
        return property({ simulated, roster, options, run: () => take(all, simulated, roster) });
      },
      seed,
    );
  return fc.assert(fc.asyncProperty(services, steps, fc.nat(), course), {
    numRuns,
    examples,
    skipAllAfterTimeLimit: LATEST_RUN,
  });
}

/** Five of seven instances were ejected after they had done well, and two have three successes each. */
const EJECTED_OF_LATE: [SimulatedServiceOptions, Step[], number] = [
  { instances: 5, balancer: { strategy: 'round-robin' } },
  [
    { is: 'join' },
    { is: 'join' },
    { is: 'become', which: 2, behaviour: 'reset' },
    { is: 'become', which: 3, behaviour: 'hang' },
    { is: 'calls', count: 33, every: 50, method: 'GET' },
    { is: 'become', which: 1, behaviour: 500 },
    { is: 'become', which: 5, behaviour: 503 },
    { is: 'become', which: 0, behaviour: 'refused' },
    { is: 'calls', count: 4, every: 0, method: 'GET' },
    { is: 'calls', count: 31, every: 5, method: 'POST' },
  ],
  1_291_062_543,
];

it(
  'the breaker of a service does not open while a clearly well instance responds, whatever happens',
  PATIENT,
  () =>
    check(
      100,
      anyService,
      async ({ simulated, roster, run }) => {
        const wrong: string[] = [];
        simulated.client.policies(service).circuitBreaker!.on('state', ({ from, to }) => {
          if (from !== 'closed' || to !== 'open') return;
          const now = performance.now();
          const well = roster.registered.filter((instance) =>
            isClearlyWell(instance, roster.registered.length, now),
          );
          wrong.push(...well.map(({ id }) => `it opens at ${now} ms while ${id} is well`));
        });
        await run();
        expect(wrong).toEqual([]);
      },
      [EJECTED_OF_LATE],
    ),
);

it('every instance that is well again gets calls before long, whatever happened', PATIENT, () =>
  check(40, anyService, async ({ simulated, roster, run }) => {
    // This is the longest wait after failures in a row, and the wait for the breaker's probe before
    // it.
    let longest = 20_000;
    simulated.balancer.on('eject', ({ duration }) => {
      longest = Math.max(longest, duration + 10_000);
    });
    await run();
    for (const instance of roster.registered) instance.become('well');
    const mended = performance.now();
    await simulated.steady(20, longest + 20_000);
    for (const { id, attempts } of roster.registered) {
      const first = attempts.find(({ beganAt }) => beganAt >= mended);
      const wait = (first?.beganAt ?? Number.POSITIVE_INFINITY) - mended;
      expect(wait, `how long ${id} waits`).toBeLessThan(longest);
      const late = attempts.filter(({ beganAt }) => beganAt >= mended + longest).length;
      const fair = 400 / roster.registered.length;
      expect(late / fair, `the share of ${id} in the last twenty seconds`).toBeGreaterThan(0.3);
    }
  }),
);

/**
 * Reports each lease when the balancer gives it: the attempt may begin later, as the attempt of a
 * POST does.
 */
function watchLeases(
  balancer: LoadBalancer,
  given: (lease: Lease) => void,
  released: (lease: Lease) => void,
): void {
  const tryAcquire = balancer.tryAcquire.bind(balancer);
  balancer.tryAcquire = (...call) => {
    const lease = tryAcquire(...call);
    if (lease === undefined) return undefined;
    given(lease);
    const release = lease.release.bind(lease);
    lease.release = (result) => {
      released(lease);
      return release(result);
    };
    return lease;
  };
}

it(
  'an ejected instance gets one probe at a time while another is not ejected, whatever happens',
  PATIENT,
  () =>
    check(100, anyService, async ({ simulated: { balancer }, roster, run }) => {
      /** Maps each ejected instance to the probe that is under way on it. */
      const probes = new Map<string, Lease>();
      const wrong: string[] = [];
      balancer.on('eject', ({ instance }) => probes.delete(instance.instanceId));
      watchLeases(
        balancer,
        (lease) => {
          const { instanceId } = lease.instance;
          if (!roster.ejected.has(instanceId)) return;
          const another = roster.ejected.size < roster.known.size;
          if (another && probes.has(instanceId))
            wrong.push(`${instanceId} gets another at ${performance.now()} ms`);
          // A call that it gets for want of another instance is no probe, unless a probe is due.
          if (another || lease.probe) probes.set(instanceId, lease);
        },
        (lease) => {
          const { instanceId } = lease.instance;
          if (probes.get(instanceId) === lease) probes.delete(instanceId);
        },
      );
      await run();
      expect(wrong).toEqual([]);
    }),
);

const rules = {
  consecutiveFailures: Number.POSITIVE_INFINITY,
  successRate: { minimumInstances: 2, minimumCalls: 5 },
  failurePercentage: { minimumInstances: 2, minimumCalls: 5, threshold: 0.3 },
  latency: { minimumInstances: 2, minimumCalls: 5, factor: 1.2 },
  interval: 1_000,
  baseEjectionTime: 3_000,
  maxEjectionTime: 10_000,
};

/** A service whose instances are ejected by comparison alone. */
const comparingService = fc
  .record({ instances, maxEjectionRatio: fc.constantFrom(0, 0.1, 0.34, 0.5, 0.67, 1) })
  .map(({ maxEjectionRatio, ...others }) => ({
    ...others,
    balancer: { strategy: 'round-robin', outlierDetection: { ...rules, maxEjectionRatio } },
    client: { circuitBreaker: false, attemptTimeout: 300 },
  })) satisfies fc.Arbitrary<SimulatedServiceOptions>;

it(
  'the instances ejected by comparison stay within maxEjectionRatio, or are one instance, whatever happens',
  PATIENT,
  () =>
    check(60, comparingService, async ({ simulated, roster, options, run }) => {
      const { maxEjectionRatio } = options.balancer.outlierDetection;
      const wrong: string[] = [];
      simulated.balancer.on('eject', ({ reason }) => {
        const most = maxEjectionRatio * roster.known.size;
        const allowed = maxEjectionRatio === 0 ? 0 : Math.max(1, Math.floor(most));
        if (reason !== 'probe' && roster.ejected.size > allowed)
          wrong.push(`${roster.ejected.size} of ${roster.known.size} at ${performance.now()} ms`);
      });
      await run();
      await simulated.steady(100, 3_000);
      expect(wrong).toEqual([]);
    }),
);
