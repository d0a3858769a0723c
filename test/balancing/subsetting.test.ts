import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildSubsetting, type SubsetOptions } from '../../src/balancing/subsetting.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';

interface Node {
  readonly instance: ServiceInstance;
}

function fleetOf(size: number): Node[] {
  return Array.from({ length: size }, (_, index) => ({
    instance: { instanceId: `i${index}` } as ServiceInstance,
  }));
}

function idsOf(nodes: readonly Node[]): string[] {
  return nodes.map(({ instance }) => instance.instanceId);
}

const numbered = (size: number) => (client: number) => ({ size, clientIndex: client });
const named = (size: number) => (client: number) => ({ size, clientId: `client ${client}` });

/** The ids of the instances that each client talks to. */
function subsets(fleet: Node[], clients: number, optionsOf: (client: number) => SubsetOptions): string[][] {
  return Array.from({ length: clients }, (_, client) => idsOf(buildSubsetting(optionsOf(client))(fleet)));
}

/** The clients on the instance with the fewest, and on that with the most. */
function extremes(fleet: Node[], chosen: string[][]): [number, number] {
  const counts = new Map(idsOf(fleet).map((id) => [id, 0]));
  for (const id of chosen.flat()) counts.set(id, counts.get(id)! + 1);
  return [Math.min(...counts.values()), Math.max(...counts.values())];
}

/** The share of the second choices that were not made at first. */
function moved(before: string[][], after: string[][]): number {
  let count = 0;
  after.forEach((subset, client) => {
    const known = new Set(before[client]);
    count += subset.filter((id) => !known.has(id)).length;
  });
  return count / after.flat().length;
}

describe('a subset', () => {
  it.each([
    ['numbered', numbered],
    ['named', named],
  ])('a subset has the given size for %s clients, each instance once, and no other instances', (_, of) => {
    fc.assert(
      fc.property(fc.nat(120), fc.integer({ min: 1, max: 40 }), fc.nat(200), (instances, size, client) => {
        const fleet = fleetOf(instances);
        const chosen = buildSubsetting(of(size)(client))(fleet);
        expect(chosen).toHaveLength(Math.min(size, instances));
        expect(new Set(chosen).size).toBe(chosen.length);
        expect(fleet).toEqual(expect.arrayContaining([...chosen]));
      }),
    );
  });

  it.each([
    ['numbered', numbered],
    ['named', named],
  ])('a subset is always the same for %s clients, in whatever order the instances are listed', (_, of) => {
    const fleet = fleetOf(100);
    const chosen = idsOf(buildSubsetting(of(10)(3))(fleet));
    expect(idsOf(buildSubsetting(of(10)(3))(fleet.toReversed())).sort()).toEqual(chosen.sort());
    expect(idsOf(buildSubsetting(of(10)(4))(fleet)).sort()).not.toEqual(chosen);
  });

  it('a subset is another one for each balancer that has neither number nor name, and stays the same', () => {
    const fleet = fleetOf(1_000);
    const [one, other] = [buildSubsetting({ size: 10 }), buildSubsetting({ size: 10 })];
    expect(idsOf(one(fleet))).toEqual(idsOf(one(fleet)));
    expect(idsOf(one(fleet))).not.toEqual(idsOf(other(fleet)));
  });

  it('a subset is everything in a fleet that is no larger', () => {
    const fleet = fleetOf(20);
    expect(buildSubsetting({ size: 20, clientIndex: 7 })(fleet)).toBe(fleet);
    expect(buildSubsetting({ size: 20 })([])).toEqual([]);
  });

  it.each([
    ['size', { clientIndex: 1 }, TypeError],
    ['size', { size: 0 }, RangeError],
    ['size', { size: 1.5 }, RangeError],
    ['clientIndex', { size: 1, clientIndex: -1 }, RangeError],
    ['clientId', { size: 1, clientId: '' }, TypeError],
    ['clientID', { size: 1, clientID: 'a' }, TypeError],
  ] as const)('a wrong subset option %s is named in the error (%#)', (option, options, kind) => {
    const make = () => buildSubsetting(options as unknown as SubsetOptions);
    expect(make).toThrow(kind);
    expect(make).toThrow(option);
  });
});

describe('clients that have numbers', () => {
  const fleet = fleetOf(1_000);

  it.each([
    [1_000, 20],
    [400, 100],
  ])(
    'as many clients that have numbers load %d instances within a tenth of evenly, with %d instances each',
    (clients, size) => {
      const some = fleetOf(clients);
      const [fewest, most] = extremes(some, subsets(some, clients, numbered(size)));
      expect(fewest).toBeGreaterThanOrEqual(0.9 * size);
      expect(most).toBeLessThanOrEqual(1.1 * size);
    },
  );

  it.each([
    [993, 997, 20],
    [500, 300, 40],
    [203, 64, 20],
  ])(
    '%d clients of %d instances with %d each load them within two or a tenth of evenly',
    (clients, instances, size) => {
      const some = fleetOf(instances);
      const mean = (clients * size) / instances;
      const [fewest, most] = extremes(some, subsets(some, clients, numbered(size)));
      const slack = Math.max(2, mean / 10);
      expect(fewest).toBeGreaterThanOrEqual(mean - slack);
      expect(most).toBeLessThanOrEqual(mean + slack);
    },
  );

  it('clients that have numbers keep nearly all of their instances when one of 1,000 leaves, and when one joins', () => {
    // Every fourth of 1,000 clients.
    const some = (client: number) => numbered(20)(client * 4);
    const before = subsets(fleet, 250, some);
    const after = subsets(fleet.toSpliced(421, 1), 250, some);
    expect(moved(before, after)).toBeLessThan(0.01);
    expect(moved(after, before)).toBeLessThan(0.01);
  });

  it('clients that have numbers have little in common with their neighbours', () => {
    const chosen = subsets(fleet, 200, numbered(20)).map((subset) => new Set(subset));
    let most = 0;
    for (const [client, one] of chosen.entries()) {
      for (const other of chosen.slice(client + 1)) {
        let common = 0;
        for (const id of one) if (other.has(id)) common++;
        most = Math.max(most, common);
      }
    }
    expect(most).toBeLessThan(12);
  });
});

describe('clients that have only names', () => {
  it('clients that have only names change the one of their instances that left, and nothing else', () => {
    const fleet = fleetOf(1_000);
    const before = subsets(fleet, 300, named(20));
    const after = subsets(fleet.slice(1), 300, named(20));
    before.forEach((subset, client) => {
      const kept = subset.filter((id) => id !== 'i0');
      expect(after[client]).toEqual(expect.arrayContaining(kept));
    });
    expect(moved(before, after)).toBeLessThan(2 / 1_000);
  });
});
