import { expect, it, vi } from 'vitest';
import type { SettledBatch } from '../../src/redis/group-partition.ts';
import { SettlementQueue } from '../../src/redis/settlement-queue.ts';

/** A queue whose writes a test ends one by one. */
function createQueue() {
  const batches: SettledBatch[] = [];
  const ends: { resolve: (owned: boolean) => void; reject: (error: unknown) => void }[] = [];
  const onFenced = vi.fn();
  const onError = vi.fn();
  const queue = new SettlementQueue({
    settle: (batch) => {
      batches.push(batch);
      return new Promise((resolve, reject) => ends.push({ resolve, reject }));
    },
    onFenced,
    onError,
  });
  const nextBatch = async () => {
    const before = batches.length;
    await vi.waitUntil(() => batches.length > before);
    return batches.at(-1)!;
  };
  return { queue, batches, ends, onFenced, onError, nextBatch };
}

it('a settlement queue writes together what came in one turn, and one batch at a time', async () => {
  const { queue, batches, ends, nextBatch } = createQueue();
  queue.done('1-0');
  queue.save('2-0', 'a');
  queue.bury('3-0', 'b');
  expect(await nextBatch()).toEqual({ done: ['1-0'], saved: ['2-0', 'a'], dead: ['3-0', 'b'] });
  queue.done('4-0');
  await new Promise(setImmediate);
  expect(batches).toHaveLength(1);
  const next = nextBatch();
  ends[0]!.resolve(true);
  expect(await next).toEqual({ done: ['4-0'], saved: [], dead: [] });
});

it('a settlement queue writes a batch again after a failure, with what came since in its place', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  const { queue, ends, onError, nextBatch } = createQueue();
  queue.save('1-0', 'a');
  queue.save('2-0', 'a');
  const written = queue.written();
  await nextBatch();
  queue.done('1-0');
  const later = queue.written();
  const next = nextBatch();
  ends[0]!.reject(new Error('away'));
  await vi.waitUntil(() => vi.getTimerCount() > 0);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(await next).toEqual({ done: ['1-0'], saved: ['2-0', 'a'], dead: [] });
  ends[1]!.resolve(true);
  await Promise.all([written, later, queue.drained()]);
  expect(onError).toHaveBeenCalledTimes(1);
  vi.useRealTimers();
});

it('a settlement queue writes nothing more once another process owns the partition', async () => {
  const { queue, batches, ends, onFenced, nextBatch } = createQueue();
  queue.save('1-0', 'a');
  const written = queue.written();
  await nextBatch();
  queue.done('2-0');
  ends[0]!.resolve(false);
  await expect(written).rejects.toThrow('the partition is lost');
  await queue.drained();
  queue.done('3-0');
  await expect(queue.written()).rejects.toThrow('the partition is lost');
  expect(onFenced).toHaveBeenCalledTimes(1);
  expect(batches).toHaveLength(1);
});

it('a settlement queue that gives up waits for no further attempt', async () => {
  const { queue, ends, onFenced, nextBatch } = createQueue();
  queue.done('1-0');
  await nextBatch();
  const drained = queue.drained();
  ends[0]!.reject(new Error('away'));
  await new Promise(setImmediate);
  queue.giveUp();
  await drained;
  expect(onFenced).not.toHaveBeenCalled();
});
