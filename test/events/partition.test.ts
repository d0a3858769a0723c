import { expect, it } from 'vitest';
import { partitionOf } from '../../src/events/partition.ts';

const WHOLE = 2 ** 32;

it.each([
  ['', 0x811c9dc5],
  ['a', 0xe40c292c],
  ['foobar', 0xbf9cf968],
])(
  'the partition of an aggregate is FNV-1a of its id, as the vectors of its authors have it: %j',
  (id, hash) => {
    expect(partitionOf(id, WHOLE)).toBe(hash);
  },
);

it('the partition of an aggregate is computed from the UTF-8 bytes of its id', () => {
  // The bytes c3 bc, by hand.
  const first = Math.imul(0x811c9dc5 ^ 0xc3, 0x01000193);
  expect(partitionOf('ü', WHOLE)).toBe(Math.imul(first ^ 0xbc, 0x01000193) >>> 0);
});

it('aggregates are spread over all partitions', () => {
  const counts = new Array<number>(8).fill(0);
  for (let n = 0; n < 8_000; n++) counts[partitionOf(`order-${n}`, 8)]!++;
  expect(Math.min(...counts)).toBeGreaterThan(800);
});
