import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CriticalityLevels } from '../../../../src/middleware/server/guard/criticality.ts';

const names = ['checkout', 'browse', 'report'];
const priorities = new CriticalityLevels(names);
const shares = (overload: number) => names.map((name) => priorities.rejectedShare(name, overload));

describe('the levels of criticality', () => {
  it.each([
    [0, [0, 0, 0]],
    [1 / 6, [0, 0, 0.5]],
    [1 / 3, [0, 0, 1]],
    [1 / 2, [0, 0.5, 1]],
    [2 / 3, [0, 1, 1]],
    [1, [1, 1, 1]],
    [7, [1, 1, 1]],
  ])('at an overload of %d the least critical levels are rejected first, gradually', (overload, expected) => {
    const found = shares(overload);
    for (const [rank, share] of expected.entries()) expect(found[rank]).toBeCloseTo(share);
  });

  it('an unknown priority counts as the least critical level', () => {
    expect(priorities.rejectedShare('unknown', 1 / 6)).toBe(priorities.rejectedShare('report', 1 / 6));
    expect(priorities.rejectedShare(undefined, 1 / 6)).toBe(priorities.rejectedShare('report', 1 / 6));
  });

  it('no level loses a request before the levels below it have lost all, at any overload', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 3, noNaN: true }), (overload) => {
        const [checkout, browse, report] = shares(overload) as [number, number, number];
        if (browse > 0) expect(report).toBe(1);
        if (checkout > 0) expect(browse).toBe(1);
      }),
    );
  });
});
