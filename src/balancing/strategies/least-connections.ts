import { type BalancingStrategy, type Candidate, type PickRequest, rotateRandomly } from '../strategy.ts';
import { LoadEntry, LoadHeap } from './load-heap.ts';
import { buildQueuePicker } from './preference-queue.ts';

/**
 * Picks the candidate with the fewest calls under way for its weight, and equals in turn, from a
 * random start. A heap follows each call as it begins and ends: a pick takes O(1) where weights are
 * alike, and O(log n) at most.
 *
 * The strategy knows the calls of this client alone, and every client sends its calls to the
 * instance that is idle in its eyes. Where there are many clients `power-of-two` does as well and
 * spreads the calls.
 */
export const leastConnections: BalancingStrategy = (candidates, { random }) => {
  const heap = new LoadHeap();
  const entries = rotateRandomly(candidates, random).map((candidate) => new LoadEntry(candidate));
  const entryOf = new Map(entries.map((entry) => [entry.candidate, entry]));
  for (const entry of entries) heap.add(entry);
  const pick = buildQueuePicker(heap);
  let next = 0;

  return Object.assign(
    (request: PickRequest): Candidate | undefined => {
      // Weights change with time and without notice: each pick updates one candidate, in turn.
      heap.update(entries[next]!);
      next = (next + 1) % entries.length;
      const picked = pick(request);
      if (picked !== undefined) heap.moveToBack(picked);
      return picked?.candidate;
    },
    {
      loadChanged(candidate: Candidate): void {
        const entry = entryOf.get(candidate);
        if (entry !== undefined) heap.update(entry);
      },
    },
  );
};
