import { type Linked, LinkedList } from '../../internal/linked-list.ts';
import type { Candidate, PickRequest } from '../strategy.ts';

/** The number of deferred candidates that each pick rechecks. */
const MAX_RECHECKS = 4;

export interface Entry<E> extends Linked<E> {
  readonly candidate: Candidate;
}

/** Keeps candidates in the order in which a strategy prefers them, from one pick to the next. */
export interface PreferenceQueue<E> {
  /** The entry that is preferred now, which stays in the queue. */
  first(): E | undefined;
  add(entry: E): void;
  remove(entry: E): void;
}

/**
 * Makes a picker that gives the first accepted entry of the queue. An entry that is not, because it
 * is ejected, would stay at the head and have to be passed over each time. So it is deferred: it
 * leaves the queue, and is added again when a later pick finds it accepted. A pick rechecks a few
 * deferred entries, in turn, so that it costs the same however many there are.
 */
export function buildQueuePicker<E extends Entry<E>>(
  queue: PreferenceQueue<E>,
): (request: PickRequest) => E | undefined {
  const deferred = new LinkedList<E>();

  /** Adds the entry that was deferred first to the queue if it is accepted now; true if it is. */
  const recheck = (request: PickRequest): boolean => {
    const entry = deferred.shift()!;
    const accepted = request.accepts(entry.candidate);
    if (accepted) queue.add(entry);
    else deferred.append(entry);
    return accepted;
  };

  return (request) => {
    for (let left = Math.min(MAX_RECHECKS, deferred.length); left > 0; left--) recheck(request);
    for (let entry = queue.first(); entry !== undefined; entry = queue.first()) {
      if (request.accepts(entry.candidate)) return entry;
      queue.remove(entry);
      deferred.append(entry);
    }
    for (let left = deferred.length; left > 0; left--) if (recheck(request)) return queue.first();
    return undefined;
  };
}
