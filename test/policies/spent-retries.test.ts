import { expect, it } from 'vitest';
import { areRetriesSpent, spentRetries } from '../../src/policies/spent-retries.ts';

it('a mark of spent retries counts for attempts that began before it', () => {
  const [error, other] = [new Error('down'), { status: 503 }];
  const before = spentRetries.latest;
  spentRetries.mark(error);
  const between = spentRetries.latest;
  spentRetries.mark(other);
  expect([spentRetries.has(error, before), spentRetries.has(other, before)]).toEqual([true, true]);
  expect([spentRetries.has(error, between), spentRetries.has(other, between)]).toEqual([false, true]);
  spentRetries.mark(error);
  expect(spentRetries.has(error, between)).toBe(true);
});

it('areRetriesSpent() holds for marked objects alone, and for as long as they live', () => {
  const [marked, unmarked] = [new Error('down'), new Error('down')];
  spentRetries.mark(marked);
  expect([areRetriesSpent(marked), areRetriesSpent(unmarked)]).toEqual([true, false]);
  for (const value of ['text', 5, undefined, null]) {
    spentRetries.mark(value);
    expect(areRetriesSpent(value)).toBe(false);
  }
});
