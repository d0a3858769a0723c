import { expect, it } from 'vitest';
import { GroupCommit } from '../../src/postgres/group-commit.ts';

it('a group commit takes no more than a bound of bytes into one statement, and a larger item by itself', async () => {
  const batches: number[][] = [];
  const MiB = 1_048_576;
  const commit = new GroupCommit(
    async (sizes: readonly number[]) => {
      batches.push([...sizes]);
      return sizes.map((size) => -size);
    },
    (size) => size,
  );
  const sizes = [1, 2, 3 * MiB, 2 * MiB, 9 * MiB, 1, 2 * MiB, 1];
  expect(await Promise.all(sizes.map((size) => commit.run(size)))).toEqual(sizes.map((size) => -size));
  expect(batches).toEqual([[1, 2, 3 * MiB], [2 * MiB], [9 * MiB], [1, 2 * MiB, 1]]);
});
