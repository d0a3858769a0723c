import type { Clock } from '../internal/clock.ts';
import { DueQueue, type Queued } from '../internal/due-queue.ts';
import type { Context } from './context.ts';

/** A call under way, and whether it has become slow. */
class Stopwatch implements Queued<Stopwatch> {
  next: Stopwatch | undefined = undefined;
  previous: Stopwatch | undefined = undefined;
  queued = false;
  queuedAt = 0;
  slow = false;
}

/**
 * Tells which calls are slow. A timer finds out and not the clock at the end of a call, so that a
 * response which this process reads late, after it was blocked, does not make its call slow.
 */
export class SlowCalls {
  readonly #duration: number;
  readonly #underWay: DueQueue<Stopwatch>;

  /** @param duration milliseconds from which a call is slow */
  constructor(duration: number, clock: Clock) {
    this.#duration = duration;
    this.#underWay = new DueQueue({
      delayAt: () => duration,
      onDue: (stopwatch, _now, stalled) => {
        stopwatch.slow = stalled === 0;
      },
      holdsOpen: false,
      clock,
    });
  }

  /** Takes in that a call begins. One that waits for its caller may be long, and is not slow for that. */
  start({ call }: Context): Stopwatch | undefined {
    if (call.callerWait !== undefined) return undefined;
    const stopwatch = new Stopwatch();
    this.#underWay.add(stopwatch, this.#underWay.clock.now());
    return stopwatch;
  }

  /** Takes in that the call ends, and tells whether it was slow. */
  end(stopwatch: Stopwatch): boolean {
    this.#underWay.remove(stopwatch);
    return stopwatch.slow || this.#duration === 0;
  }
}

export type { Stopwatch };
