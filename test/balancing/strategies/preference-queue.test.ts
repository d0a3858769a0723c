import { describe, expect, it } from 'vitest';
import { buildQueuePicker, type Entry } from '../../../src/balancing/strategies/preference-queue.ts';
import type { Candidate, PickRequest } from '../../../src/balancing/strategy.ts';

interface Numbered extends Entry<Numbered> {
  readonly number: number;
}

/** An order by number, of 0 and so on. */
function numbers(size: number) {
  const inOrder: Numbered[] = [];
  const order = {
    first: () => inOrder[0],
    add: (entry: Numbered) => {
      inOrder.push(entry);
      inOrder.sort((one, other) => one.number - other.number);
    },
    remove: (entry: Numbered) => {
      inOrder.splice(inOrder.indexOf(entry), 1);
    },
  };
  for (let number = 0; number < size; number++) {
    const candidate = { number } as unknown as Candidate;
    order.add({ number, candidate, next: undefined, previous: undefined });
  }
  const pick = buildQueuePicker(order);
  let asked = 0;
  return {
    pick: (accepts: (number: number) => boolean): number | undefined => {
      const request: PickRequest = {
        hashKey: undefined,
        now: 0,
        accepts: (candidate) => {
          asked++;
          return accepts((candidate as unknown as Numbered).number);
        },
        explores: () => false,
      };
      return pick(request)?.number;
    },
    asked: () => {
      const seen = asked;
      asked = 0;
      return seen;
    },
  };
}

describe('a preference queue', () => {
  it('a preference queue gives the first accepted entry in its order', () => {
    const { pick } = numbers(5);
    expect(pick(() => true)).toBe(0);
    expect(pick((number) => number > 2)).toBe(3);
    expect(pick((number) => number === 4)).toBe(4);
  });

  it('a deferred entry is at once in its place again when it is accepted again, if few are not', () => {
    const { pick } = numbers(5);
    expect(pick((number) => number > 3)).toBe(4);
    expect(pick(() => true)).toBe(0);
  });

  it('a deferred entry comes back within a few picks however many were not accepted', () => {
    const { pick } = numbers(100);
    expect(pick((number) => number > 90)).toBe(91);
    const picks = Array.from({ length: 30 }, () => pick((number) => number === 50 || number > 90));
    expect(picks.indexOf(50)).toBeLessThanOrEqual(91 / 4);
    expect(picks.at(-1)).toBe(50);
  });

  it('a preference queue finds the only accepted entry, and gives undefined if there is none', () => {
    const { pick } = numbers(100);
    for (const only of [99, 0, 57]) expect(pick((number) => number === only)).toBe(only);
    expect(pick(() => false)).toBeUndefined();
    expect(pick(() => false)).toBeUndefined();
    expect(pick((number) => number === 31)).toBe(31);
  });

  it('a pick from a preference queue takes no longer while many entries are not accepted than while few are', () => {
    const { pick, asked } = numbers(1_000);
    pick((number) => number > 900);
    asked();
    for (let round = 0; round < 50; round++) pick((number) => number > 900);
    expect(asked()).toBeLessThanOrEqual(50 * 5);
  });
});
