import { type BalancingStrategy, type Candidate, fromRandomStart, type PickRequest } from '../strategy.ts';
import { LoadEntry, LoadHeap } from './load-heap.ts';
import { firstAccepted } from './preference-queue.ts';

/**
 * The candidate with the fewest calls under way for its weight; equals in turn, from a random start. A pick takes
 * the head of an order that follows each call as it begins and ends: O(1) where weights are alike, O(log n) at most.
 *
 * It knows the calls of this client alone, and every client sends its calls to the one that is idle in its eyes;
 * where there are many clients `power-of-two` does as well and spreads them.
 */
export const leastConnections: BalancingStrategy = (candidates, { random }) => {
  const order = new LoadHeap();
  const entries = fromRandomStart(candidates, random).map((candidate) => new LoadEntry(candidate));
  const entryOf = new Map(entries.map((entry) => [entry.candidate, entry]));
  for (const entry of entries) order.add(entry);
  const pick = firstAccepted(order);
  let next = 0;

  return Object.assign(
    (request: PickRequest): Candidate | undefined => {
      // Weights change as time passes, untold: one is looked at for each pick, in turn.
      order.update(entries[next]!);
      next = (next + 1) % entries.length;
      const picked = pick(request);
      if (picked !== undefined) order.yield(picked);
      return picked?.candidate;
    },
    {
      loadChanged(candidate: Candidate): void {
        const entry = entryOf.get(candidate);
        if (entry !== undefined) order.update(entry);
      },
    },
  );
};
