import fc from 'fast-check';
import { afterEach, expect, it } from 'vitest';
import { defineSaga } from '../../src/saga/define-saga.ts';
import { InMemorySagaStore } from '../../src/saga/in-memory-saga-store.ts';
import type { AnySaga } from '../../src/saga/orchestrator-options.ts';
import type { SagaEntry, SagaStatus } from '../../src/saga/saga-entry.ts';
import { checkJournal } from './check-journal.ts';
import { BACKOFF, LEASE, sleep, World } from './simulated-world.ts';
import { VirtualTime } from './virtual-time.ts';

/** `rejected`: the service rejects it. `unrefundable`: the service rejects its compensation. */
type StepKind = 'call' | 'rejected' | 'unrefundable' | 'wait' | 'run';

interface Scenario {
  readonly seed: number;
  readonly stages: readonly (readonly StepKind[])[];
  readonly pivotAt: number | undefined;
  readonly callTroubles: number;
  readonly storeTroubles: number;
  /** Processes that are killed, or frozen for longer than their lease. */
  readonly blows: number;
  readonly cancels: boolean;
  readonly timeout: number | undefined;
}

const kind = fc.oneof(
  { weight: 8, arbitrary: fc.constant<StepKind>('call') },
  { weight: 1, arbitrary: fc.constant<StepKind>('rejected') },
  { weight: 1, arbitrary: fc.constant<StepKind>('unrefundable') },
  { weight: 1, arbitrary: fc.constant<StepKind>('wait') },
  { weight: 2, arbitrary: fc.constant<StepKind>('run') },
);

const scenario: fc.Arbitrary<Scenario> = fc.record({
  seed: fc.integer(),
  stages: fc.array(fc.array(kind, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 5 }),
  pivotAt: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
  callTroubles: fc.constantFrom(0, 0.1, 0.4),
  storeTroubles: fc.constantFrom(0, 0.02, 0.1),
  blows: fc.integer({ min: 0, max: 4 }),
  cancels: fc.boolean(),
  timeout: fc.option(fc.constantFrom(500, 5_000), { nil: undefined, freq: 3 }),
});

const SAGA_ID = 's';
/** Milliseconds after which nothing goes wrong any more. */
const CALM_AFTER = 30_000;

function stepOf(kind: StepKind, pivoted: boolean, world: () => World): object {
  const retry = { maxAttempts: pivoted ? Infinity : 3, backoff: BACKOFF };
  const undoing = { timeout: 1_000, retry: { maxAttempts: Infinity, backoff: BACKOFF } };
  const post = (path: string) => () => ({ service: 'service', method: 'POST', path });
  if (kind === 'wait')
    return { event: 'parcel.sent', sagaId: ({ aggregateId }: { aggregateId: string }) => aggregateId };
  if (kind === 'run') {
    // An effect without a key of its own, that may be lost: it writes nothing.
    return { run: () => sleep(world().chance.between(1, 200)), timeout: 1_000, retry };
  }
  const path = kind === 'rejected' && !pivoted ? '/rejects' : '/accepts';
  const step = { call: post(path), timeout: 1_000, retry };
  if (pivoted) return step;
  const compensate =
    kind === 'unrefundable'
      ? { call: post('/rejects'), timeout: 1_000, retry: { maxAttempts: 3, backoff: BACKOFF } }
      : { call: post('/accepts'), ...undoing };
  return { ...step, compensate };
}

function define({ stages, pivotAt, timeout }: Scenario, world: () => World): AnySaga {
  let saga: AnySaga = defineSaga('simulated', { version: 1, timeout });
  stages.forEach((kinds, index) => {
    if (index === pivotAt) saga = saga.pivot();
    const pivoted = pivotAt !== undefined && index >= pivotAt;
    const [first] = kinds;
    if (first === 'wait') {
      saga = saga.waitFor(`${index}-wait` as never, stepOf('wait', pivoted, world) as never);
      return;
    }
    const steps = kinds
      .filter((kind) => kind !== 'wait')
      .map((kind, number) => [`${index}-${number}-${kind}`, stepOf(kind, pivoted, world)] as const);
    saga = saga.parallel(Object.fromEntries(steps) as never);
  });
  return saga;
}

interface Outcome {
  readonly status: SagaStatus;
  readonly cancelled: boolean;
  readonly world: World;
  readonly saga: AnySaga;
  readonly entries: readonly SagaEntry[];
}

async function simulate(scenario: Scenario, time: VirtualTime): Promise<Outcome> {
  const { seed, callTroubles, storeTroubles, blows, cancels } = scenario;
  const store = new InMemorySagaStore();
  let world!: World;
  const saga = define(scenario, () => world);
  world = new World(seed, store, [saga], { call: callTroubles, store: storeTroubles });
  const { chance } = world;
  world.startProcess();
  world.startProcess();

  let cancelled = false;
  let started = false;
  const start = async () => {
    while (!started) {
      const { orchestrator } = await world.findLiving();
      const starting = orchestrator.start(saga, { n: 1 }, { sagaId: SAGA_ID }).then(
        () => true,
        () => false,
      );
      started ||= await Promise.race([starting, sleep(1_000).then(() => false)]);
    }
  };
  const cancel = async () => {
    await sleep(chance.between(0, 2_000));
    const { orchestrator } = await world.findLiving();
    cancelled = await orchestrator.cancel(SAGA_ID).catch(() => false);
  };
  const strike = async () => {
    for (let n = 0; n < blows; n++) {
      await sleep(chance.between(0, 3_000));
      const victim = await world.findLiving();
      if (chance.next() < 0.4) {
        victim.freeze(chance.between(LEASE, 3 * LEASE));
        continue;
      }
      victim.kill();
      if (world.living.length > 0 && chance.next() < 0.3) continue;
      await sleep(chance.between(0, 2_000));
      world.startProcess();
    }
  };
  const ship = async () => {
    while (!started) await sleep(50);
    await sleep(chance.between(0, 3_000));
    await world.publish({
      eventType: 'parcel.sent',
      eventId: 'e1',
      aggregateId: SAGA_ID,
      data: { n: 2 },
    } as never);
  };
  void start().then(start);
  void start();
  if (cancels) void cancel();
  void strike();
  if (saga.plan.steps.some(({ invoke }) => invoke === undefined)) void ship();
  void sleep(CALM_AFTER).then(() => world.calm());

  let status: SagaStatus = 'running';
  const watch = async () => {
    while (status === 'running' || status === 'compensating') {
      await sleep(500);
      status = (await store.get(SAGA_ID))?.status ?? 'running';
    }
  };
  void watch();
  const ended = await time.runUntil(() => status !== 'running' && status !== 'compensating', 600_000);
  if (!ended)
    throw new Error(`the saga has not ended: ${JSON.stringify(await store.get(SAGA_ID), undefined, 1)}`);
  // What is still under way somewhere arrives.
  const quiet = time.now + 100_000;
  world.end();
  await time.runUntil(() => time.now >= quiet, 100_000);
  time.reset();
  const entries = (await store.get(SAGA_ID))!.entries.map(({ entry }) => entry);
  return { status, cancelled, world, saga, entries };
}

function check({ stages, pivotAt }: Scenario, { status, cancelled, world, saga, entries }: Outcome): void {
  checkJournal(saga, entries);
  const { effects, present } = world.services;
  for (const [key, times] of effects) expect(times, key).toBe(1);
  const calls = saga.plan.steps.filter(({ invoke }) => invoke?.effect.kind === 'call');
  const keys = calls.map(({ name }) => `${SAGA_ID}:${name}:invoke`);
  const kinds = new Set(stages.flat());
  if (cancelled) expect(status).not.toBe('completed');
  if (status === 'completed') expect(present).toEqual(new Set(keys));
  else if (status === 'compensated') expect(present).toEqual(new Set());
  else
    expect(kinds.has('unrefundable') && pivotAt !== 0, 'only a compensation that always fails is stuck').toBe(
      true,
    );
}

const time = new VirtualTime();
afterEach(() => time.uninstall());

it('whatever is lost, delayed, killed or frozen, each saga ends whole, and no step takes effect twice', async () => {
  time.install();
  const seen = new Set<SagaStatus>();
  await fc.assert(
    fc.asyncProperty(scenario, async (scenario) => {
      const outcome = await simulate(scenario, time);
      check(scenario, outcome);
      seen.add(outcome.status);
    }),
    { numRuns: 1_000 },
  );
  expect(seen).toEqual(new Set(['completed', 'compensated', 'stuck']));
}, 60_000);
