import { type Linked, LinkedList } from '../../internal/linked-list.ts';
import type { Candidate, PickRequest } from '../strategy.ts';

/** Candidates that were not accepted and are looked at again, for each pick. */
const LOOKS = 4;

export interface Entry<E> extends Linked<E> {
  readonly candidate: Candidate;
}

/** Keeps candidates in the order in which a strategy prefers them, from one pick to the next. */
export interface PreferenceQueue<E> {
  first(): E | undefined;
  add(entry: E): void;
  remove(entry: E): void;
}

/**
 * Gives the first of the order that is accepted. One that is not, as it is ejected, would stay at the head and
 * have to be passed over each time: it is set aside, and comes back to its place when a later pick finds it
 * accepted. A pick looks again at few of those set aside, in turn, so that it costs the same however many they are.
 */
export function firstAccepted<E extends Entry<E>>(
  order: PreferenceQueue<E>,
): (request: PickRequest) => E | undefined {
  const aside = new LinkedList<E>();

  /** True if the one that was aside for longest is back in the order. */
  const reconsider = (request: PickRequest): boolean => {
    const entry = aside.shift()!;
    const accepted = request.accepts(entry.candidate);
    if (accepted) order.add(entry);
    else aside.append(entry);
    return accepted;
  };

  return (request) => {
    for (let looks = Math.min(LOOKS, aside.length); looks > 0; looks--) reconsider(request);
    for (let entry = order.first(); entry !== undefined; entry = order.first()) {
      if (request.accepts(entry.candidate)) return entry;
      order.remove(entry);
      aside.append(entry);
    }
    for (let looks = aside.length; looks > 0; looks--) if (reconsider(request)) return order.first();
    return undefined;
  };
}
