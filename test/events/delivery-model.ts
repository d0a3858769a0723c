import fc from 'fast-check';
import { expect, vi } from 'vitest';
import { constantBackoff, type DomainEvent, type EventBus, type Subscription } from '../../src/index.ts';
import { toArray } from './recorder.ts';

const MAX_ATTEMPTS = 3;

/** Something that happens to a bus. */
type Step =
  | {
      readonly kind: 'publish';
      readonly aggregate: number;
      readonly failures: number;
      readonly turns: number;
    }
  | { readonly kind: 'join' }
  | { readonly kind: 'leave'; readonly member: number }
  | { readonly kind: 'wait'; readonly turns: number };

interface Published {
  readonly n: number;
  /** How many attempts to handle it fail. */
  readonly failures: number;
  /** For how many turns of the event loop an attempt lasts. */
  readonly turns: number;
}

const turns = fc.integer({ min: 0, max: 3 });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('publish' as const),
        aggregate: fc.integer({ min: 0, max: 4 }),
        failures: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 4 })),
        turns,
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('join' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('leave' as const), member: fc.nat(4) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), turns }) },
  ),
  { minLength: 1, maxLength: 60 },
);

const pass = async (turns: number) => {
  for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
};

/** The members of a group, and all that they do. */
class Group {
  /** The events of each aggregate in the order in which they were done: handled, or dead. */
  readonly done = new Map<string, number[]>();
  readonly #bus: EventBus;
  readonly #members: Subscription[] = [];
  readonly #underWay = new Set<string>();
  #count = 0;
  #onDone: () => void = () => {};

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  async join(): Promise<void> {
    const options = { group: 'g', maxAttempts: MAX_ATTEMPTS, backoff: constantBackoff(0), prefetch: 4 };
    this.#members.push(await this.#bus.subscribe('order.created', this.#handle, options));
  }

  async leave(member: number): Promise<void> {
    const [leaving] = this.#members.splice(member % Math.max(1, this.#members.length), 1);
    await leaving?.close();
  }

  async reach(count: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onDone = () => {
        if (this.#count === count) resolve();
      };
      this.#onDone();
    });
  }

  readonly #handle = async ({ aggregateId, data }: DomainEvent, { attempt }: { attempt: number }) => {
    const { n, failures, turns } = data as Published;
    expect(this.#underWay.has(aggregateId), `two handlers of ${aggregateId} at once`).toBe(false);
    this.#underWay.add(aggregateId);
    await pass(turns);
    this.#underWay.delete(aggregateId);
    if (attempt <= failures && attempt < MAX_ATTEMPTS) throw new Error('again');
    this.done.set(aggregateId, [...(this.done.get(aggregateId) ?? []), n]);
    this.#count++;
    this.#onDone();
    if (attempt <= failures) throw new Error('dead');
  };
}

/**
 * Checks, for any sequence of publishing, failing, joining and leaving, that a group has each event
 * done in the order of its aggregate, never two of an aggregate at once, and that those are dead
 * that failed too often.
 */
export async function checkDelivery(createBus: () => EventBus, numRuns: number): Promise<void> {
  const property = fc.asyncProperty(steps, async (steps) => {
    const bus = createBus();
    const group = new Group(bus);
    const published = new Map<string, number[]>();
    const doomed: number[] = [];
    for (const [n, step] of steps.entries()) {
      if (step.kind === 'publish') {
        const { aggregate, failures, turns } = step;
        const aggregateId = `o${aggregate}`;
        published.set(aggregateId, [...(published.get(aggregateId) ?? []), n]);
        if (failures >= MAX_ATTEMPTS) doomed.push(n);
        await bus.publish({ eventType: 'order.created', aggregateId, data: { n, failures, turns } });
      } else if (step.kind === 'join') await group.join();
      else if (step.kind === 'leave') await group.leave(step.member);
      else await pass(step.turns);
    }
    await group.join();
    await group.reach([...published.values()].flat().length);
    // Its death is written after the last attempt has ended.
    await vi.waitFor(async () => expect(await numbersOfDead(bus)).toEqual(doomed));
    await bus.close();
    expect(group.done).toEqual(published);
  });
  await fc.assert(property, { numRuns });
}

async function numbersOfDead(bus: EventBus): Promise<number[]> {
  const letters = await toArray(bus.deadLetters({ group: 'g' }));
  return letters.map(({ event }) => (event.data as Published).n).toSorted((one, other) => one - other);
}
