import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readZoneOptions, zoneShares } from '../../src/balancing/zones.ts';

function sharesOf(capacities: Record<string, number>, own: string): Record<string, number> | undefined {
  const shares = zoneShares(new Map(Object.entries(capacities)), own);
  return (
    shares && Object.fromEntries([...shares].map(([zone, share]) => [zone, Math.round(share * 1e6) / 1e6]))
  );
}

const fleets = fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd', 'e'), fc.nat(50), { minKeys: 1 });

describe('the share of each zone', () => {
  it.each([
    ['stays at home where all are alike', { a: 3, b: 3, c: 3 }, { a: 1, b: 0, c: 0 }],
    ['stays at home where there is more than enough', { a: 8, b: 2, c: 2 }, { a: 1, b: 0, c: 0 }],
    [
      'goes where there is room if the own zone has half of what it needs',
      { a: 2, b: 5, c: 5 },
      { a: 0.5, b: 0.25, c: 0.25 },
    ],
    ['goes in proportion to the room that there is', { a: 2, b: 7, c: 6 }, { a: 0.4, b: 0.4, c: 0.2 }],
    ['does not go where there is none', { a: 2, b: 3, c: 7 }, { a: 0.5, b: 0, c: 0.5 }],
    ['leaves a zone with nothing available', { a: 0, b: 3, c: 3 }, { a: 0, b: 0.5, c: 0.5 }],
    ['is all for the only zone', { a: 1 }, { a: 1 }],
  ])('a client sends each zone its share: %s', (_, capacities, shares) => {
    expect(sharesOf(capacities, 'a')).toEqual(shares);
  });

  it('zones have no shares where the own zone has no instances, or none is available', () => {
    expect(sharesOf({ b: 3, c: 3 }, 'a')).toBeUndefined();
    expect(sharesOf({ a: 0, b: 0 }, 'a')).toBeUndefined();
    expect(sharesOf({}, 'a')).toBeUndefined();
  });

  it('the shares of the zones are never negative and add up to 1, and a zone without capacity gets nothing', () => {
    fc.assert(
      fc.property(fleets, (capacities) => {
        const zones = new Map(Object.entries(capacities));
        for (const own of zones.keys()) {
          const shares = zoneShares(zones, own);
          if (shares === undefined) continue;
          let sum = 0;
          for (const [zone, share] of shares) {
            expect(share).toBeGreaterThanOrEqual(0);
            if (zones.get(zone) === 0) expect(share).toBe(0);
            sum += share;
          }
          expect(sum).toBeCloseTo(1, 9);
        }
      }),
    );
  });

  it('the shares of the zones load every instance alike if as many clients are in each zone', () => {
    fc.assert(
      fc.property(fleets, (capacities) => {
        const zones = new Map(Object.entries(capacities));
        const total = [...zones.values()].reduce((sum, capacity) => sum + capacity, 0);
        fc.pre(total > 0);
        const load = new Map<string, number>();
        for (const own of zones.keys()) {
          for (const [zone, share] of zoneShares(zones, own)!)
            load.set(zone, (load.get(zone) ?? 0) + share / zones.size);
        }
        for (const [zone, capacity] of zones) expect(load.get(zone)).toBeCloseTo(capacity / total, 9);
      }),
    );
  });

  it('the own zone gets as much as possible without more for an instance there than elsewhere', () => {
    fc.assert(
      fc.property(fleets, (capacities) => {
        const zones = new Map(Object.entries(capacities));
        const total = [...zones.values()].reduce((sum, capacity) => sum + capacity, 0);
        fc.pre(total > 0);
        for (const [own, capacity] of zones) {
          const fair = (capacity / total) * zones.size;
          expect(zoneShares(zones, own)!.get(own)).toBeCloseTo(Math.min(1, fair), 9);
        }
      }),
    );
  });
});

describe('the zone option', () => {
  it('the zone option is a name, or a name and minInstances', () => {
    expect(readZoneOptions('a')).toEqual({ name: 'a', minInstances: 6 });
    expect(readZoneOptions({ name: 'a' })).toEqual({ name: 'a', minInstances: 6 });
    expect(readZoneOptions({ name: 'a', minInstances: 0 })).toEqual({ name: 'a', minInstances: 0 });
  });

  it.each([
    ['name', {}],
    ['name', { name: 5 }],
    ['minInstances', { name: 'a', minInstances: -1 }],
    ['zone', { name: 'a', zone: 'b' }],
  ])('a wrong zone option %s is named in the error (%#)', (option, options) => {
    expect(() => readZoneOptions(options as unknown as string)).toThrow(option);
  });
});

it('the options of zones have their default where minInstances is undefined', () => {
  expect(readZoneOptions({ name: 'a', minInstances: undefined })).toEqual({ name: 'a', minInstances: 6 });
});
