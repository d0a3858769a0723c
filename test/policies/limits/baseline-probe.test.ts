import { expect, it } from 'vitest';
import { BaselineProbe } from '../../../src/policies/limits/baseline-probe.ts';

it('a probe lowers the limit, lasts two windows and remembers the limit to return to', () => {
  const probe = new BaselineProbe();
  expect(probe.underWay).toBe(false);
  for (const limit of [30, 41]) {
    expect(probe.begin(limit, 0.4)).toBe(limit * 0.4);
    expect(probe.underWay).toBe(true);
    expect([probe.advance(), probe.underWay]).toEqual([false, true]);
    expect([probe.advance(), probe.underWay]).toEqual([true, false]);
    expect(probe.limitBefore).toBe(limit);
  }
});
