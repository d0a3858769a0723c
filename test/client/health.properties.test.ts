import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { StrategyName } from '../../src/index.ts';
import { strategies } from '../balancing/helpers.ts';
import {
  type Attempt,
  type Behaviour,
  type SimulatedInstance,
  type SimulatedService,
  withService,
} from '../support/simulated-service.ts';

/** The course of each run follows from it: what is found once is found again. */
const SEED = 11;

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

const settings = fc.record({
  instances: fc.integer({ min: 1, max: 6 }),
  strategy: fc.constantFrom<StrategyName>(...strategies),
  seed: fc.nat(),
});

/** More than there are instances would only make the runs longer. */
const MOST = 8;

/** Who is registered, and who of them is ejected. */
class Roster {
  readonly registered: SimulatedInstance[];
  readonly ejected = new Set<string>();
  readonly #simulated: SimulatedService;

  constructor(simulated: SimulatedService) {
    this.#simulated = simulated;
    this.registered = [...simulated.instances];
    const { balancer } = simulated;
    balancer.on('eject', ({ instance }) => this.ejected.add(instance.instanceId));
    balancer.on('return', ({ instance }) => this.ejected.delete(instance.instanceId));
    balancer.on('leave', ({ instance }) => this.ejected.delete(instance.instanceId));
  }

  at(index: number): SimulatedInstance {
    return this.registered[index % this.registered.length]!;
  }

  async join(): Promise<void> {
    if (this.registered.length < MOST) this.registered.push(await this.#simulated.join());
  }

  /** The last one stays. */
  async leave(index: number): Promise<void> {
    if (this.registered.length === 1) return;
    const [leaving] = this.registered.splice(index % this.registered.length, 1);
    await this.#simulated.leave(leaving!);
  }
}

/** Does what the steps say; calls overlap what comes after them. Gives when the last of them has ended. */
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

/** Whether it has responded well of late, and nothing else for longer than anybody remembers. */
function isClearlyWell({ attempts }: SimulatedInstance, now: number): boolean {
  const ended = attempts.filter(({ endedAt }) => endedAt <= now);
  const failedLately = ended.some(({ failed, endedAt }) => failed && endedAt > now - 11_000);
  return !failedLately && ended.some(({ failed, endedAt }) => !failed && endedAt > now - 8_000);
}

it('whatever happens, the breaker does not open while a clearly well instance responds', {
  timeout: 60_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(settings, steps, async ({ instances, strategy, seed }, all) => {
      await withService(
        { instances, balancer: { strategy } },
        async (simulated) => {
          const roster = new Roster(simulated);
          const wrong: string[] = [];
          simulated.client.policies('user-service').circuitBreaker!.on('state', ({ from, to }) => {
            if (from !== 'closed' || to !== 'open') return;
            const now = performance.now();
            const well = roster.registered.filter((instance) => isClearlyWell(instance, now));
            wrong.push(...well.map(({ id }) => `it opens at ${now} ms while ${id} is well`));
          });
          await take(all, simulated, roster);
          expect(wrong).toEqual([]);
        },
        seed,
      );
    }),
    { numRuns: 100, seed: SEED },
  );
});

it('whatever happened, every instance that is well again gets calls before long', {
  timeout: 60_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(settings, steps, async ({ instances, strategy, seed }, all) => {
      await withService(
        { instances, balancer: { strategy } },
        async (simulated) => {
          const roster = new Roster(simulated);
          // The longest wait after failures in a row, and that for the breaker's probe before it.
          let longest = 20_000;
          simulated.balancer.on('eject', ({ duration }) => {
            longest = Math.max(longest, duration + 10_000);
          });
          await take(all, simulated, roster);
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
        },
        seed,
      );
    }),
    { numRuns: 40, seed: SEED },
  );
});

it('whatever happens, an ejected instance gets one probe at a time while another is not ejected', {
  timeout: 60_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(settings, steps, async ({ instances, strategy, seed }, all) => {
      await withService(
        { instances, balancer: { strategy } },
        async (simulated) => {
          const roster = new Roster(simulated);
          const probes = new Map<string, Attempt>();
          const wrong: string[] = [];
          simulated.balancer.on('eject', ({ instance }) => probes.delete(instance.instanceId));
          simulated.onAttempt = (attempt) => {
            const { instance, beganAt } = attempt;
            if (!roster.ejected.has(instance.id)) return;
            const another = roster.registered.some(({ id }) => !roster.ejected.has(id));
            const before = probes.get(instance.id);
            if (another && before !== undefined && before.endedAt > beganAt)
              wrong.push(`${instance.id} gets another at ${beganAt} ms`);
            probes.set(instance.id, attempt);
          };
          await take(all, simulated, roster);
          expect(wrong).toEqual([]);
        },
        seed,
      );
    }),
    { numRuns: 100, seed: SEED },
  );
});

it('whatever happens, what is ejected by comparison stays within its ratio, or is one instance', {
  timeout: 60_000,
}, async () => {
  const volume = { minimumInstances: 2, minimumCalls: 5 };
  const outlierDetection = {
    consecutiveFailures: Number.POSITIVE_INFINITY,
    successRate: volume,
    failurePercentage: { ...volume, threshold: 0.3 },
    latency: { ...volume, factor: 1.2 },
    interval: 1_000,
    baseEjectionTime: 3_000,
    maxEjectionTime: 10_000,
  };
  const client = { circuitBreaker: false, attemptTimeout: 300 } as const;
  const ratios = fc.constantFrom(0, 0.1, 0.34, 0.5, 0.67, 1);
  await fc.assert(
    fc.asyncProperty(settings, ratios, steps, async ({ instances, seed }, maxEjectionRatio, all) => {
      const balancer = {
        strategy: 'round-robin',
        outlierDetection: { ...outlierDetection, maxEjectionRatio },
      } as const;
      await withService(
        { instances, balancer, client },
        async (simulated) => {
          const roster = new Roster(simulated);
          const wrong: string[] = [];
          simulated.balancer.on('eject', ({ reason }) => {
            const most = maxEjectionRatio * roster.registered.length;
            const allowed = maxEjectionRatio === 0 ? 0 : Math.max(1, Math.floor(most));
            if (reason !== 'probe' && roster.ejected.size > allowed)
              wrong.push(`${roster.ejected.size} of ${roster.registered.length} at ${performance.now()} ms`);
          });
          await take(all, simulated, roster);
          await simulated.steady(100, 3_000);
          expect(wrong).toEqual([]);
        },
        seed,
      );
    }),
    { numRuns: 60, seed: SEED },
  );
});
