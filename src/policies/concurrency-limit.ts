/** What the calls that ended within one window tell. */
export interface LimitSample {
  /** Mean time of the calls that were not dropped, in milliseconds; undefined if all were. */
  readonly rtt: number | undefined;
  /** The most calls that were under way at once. */
  readonly inFlight: number;
  /** Calls that ended, the dropped ones among them. */
  readonly calls: number;
  /** Calls that ended as a sign of overload: by a timeout, or refused by what was called. */
  readonly dropped: number;
}

/**
 * An algorithm that finds how many calls may be under way at once. It knows nothing of queues, callers or
 * clocks: whoever uses it gathers the samples, and keeps the limit, within its bounds, from one to the next.
 */
export interface ConcurrencyLimit {
  /** The limit after a window of calls, from the limit before it. Fractions count; NaN leaves it as it is. */
  next(limit: number, sample: LimitSample): number;
}

/** Calls that a window must hold before it tells anything. */
const MINIMUM_CALLS = 10;

/**
 * Sums up the calls of a window, in fixed memory. A window begins with the first call that ends in it, and
 * ends when it holds ten calls and has lasted its duration, or twice the mean of its calls if that is longer,
 * so that the effect of one change of the limit can be seen before the next.
 *
 * Source: Netflix concurrency-limits, `WindowedLimit` with `AverageSampleWindow`. There a window with too
 * few calls is thrown away, and slow traffic never changes the limit; here it goes on. There the time of a
 * dropped call counts in the mean; here it does not, so that a quick refusal does not look like a quick answer.
 */
export class SampleWindow {
  readonly #duration: number;
  #startedAt = 0;
  #calls = 0;
  #dropped = 0;
  #total = 0;
  #inFlight = 0;

  /** @param duration milliseconds. */
  constructor(duration: number) {
    this.#duration = duration;
  }

  /**
   * Takes in a call that ended `now` after `rtt` milliseconds, and began as one of `inFlight`. Gives the
   * sample of the window if the window ends with it.
   */
  add(rtt: number, inFlight: number, dropped: boolean, now: number): LimitSample | undefined {
    if (this.#calls === 0) this.#startedAt = now;
    this.#calls++;
    if (inFlight > this.#inFlight) this.#inFlight = inFlight;
    if (dropped) {
      this.#dropped++;
    } else {
      this.#total += rtt;
    }
    return this.#isOver(now) ? this.#end() : undefined;
  }

  #isOver(now: number): boolean {
    if (this.#calls < MINIMUM_CALLS) return false;
    return now - this.#startedAt >= Math.max(this.#duration, 2 * (this.#rtt ?? 0));
  }

  get #rtt(): number | undefined {
    return this.#calls > this.#dropped ? this.#total / (this.#calls - this.#dropped) : undefined;
  }

  #end(): LimitSample {
    const sample = {
      rtt: this.#rtt,
      inFlight: this.#inFlight,
      calls: this.#calls,
      dropped: this.#dropped,
    };
    this.#calls = this.#dropped = this.#total = this.#inFlight = 0;
    return sample;
  }
}
