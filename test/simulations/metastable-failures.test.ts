import { expect, it } from 'vitest';
import { CUTS, cutCapacity, successAfterCut } from '../../bench/simulations/metastable-failures.ts';

it.each(CUTS)(
  'with five attempts of each call, $processors processors for $seconds s and a call every $interval ms end as published',
  async (cut) => {
    const course = await cutCapacity(cut, 'five attempts at once', 1, 1);
    if (cut.recovers) expect(successAfterCut(cut, course)).toBeGreaterThan(0.99);
    else expect(successAfterCut(cut, course)).toBeLessThan(0.01);
  },
);

it.each(CUTS)(
  'resilient() in a hundred processes recovers from $processors processors for $seconds s with a call every $interval ms',
  async (cut) => {
    expect(successAfterCut(cut, await cutCapacity(cut, 'resilient()', 100, 1))).toBeGreaterThan(0.99);
  },
);

it('a ServiceClient in twenty processes recovers where five attempts of each call do not', async () => {
  const cut = CUTS.find(({ recovers }) => !recovers)!;
  const course = await cutCapacity(cut, 'ServiceClient, 4 instances', 20, 1);
  expect(successAfterCut(cut, course)).toBeGreaterThan(0.99);
});
