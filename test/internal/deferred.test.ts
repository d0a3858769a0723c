import { expect, it } from 'vitest';
import { createDeferred } from '../../src/internal/deferred.ts';

it('a deferred promise settles once, as its holder says', async () => {
  const resolved = createDeferred<number>();
  resolved.resolve(1);
  resolved.reject(new Error('too late'));
  expect(await resolved.promise).toBe(1);
  const rejected = createDeferred();
  const reason = new Error('down');
  rejected.reject(reason);
  await expect(rejected.promise).rejects.toBe(reason);
});
