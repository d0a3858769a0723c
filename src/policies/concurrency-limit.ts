/** A summary of the calls that ended within one window. */
export interface LimitSample {
  /** Mean time of the calls that were not dropped, in milliseconds; undefined if all were. */
  readonly rtt: number | undefined;
  /** The most calls that were under way at once. */
  readonly inFlight: number;
  /** Calls that ended, the dropped ones among them. */
  readonly calls: number;
  /** Calls that ended as a sign of overload: by a timeout, or rejected by the callee. */
  readonly dropped: number;
  /** Milliseconds from the end of the first call to that of the last, at least 1. */
  readonly elapsed: number;
  /** Calls per millisecond that came, the ones that found no place included. */
  readonly demand: number;
  /**
   * Mean time of the very first calls, with next to nothing in flight; undefined until they have
   * ended.
   */
  readonly firstRtt: number | undefined;
}

/**
 * An algorithm that finds how many calls may be under way at once. It knows nothing of queues,
 * callers or clocks: its user gathers the samples, and keeps the limit, within its bounds, from one
 * to the next.
 */
export interface ConcurrencyLimit {
  /**
   * Gives the limit after a window of calls, from the limit before it. Fractions count; NaN changes
   * nothing.
   */
  next(limit: number, sample: LimitSample): number;
  /** True makes windows shorter, since the limit may be far too low. */
  readonly growing?: boolean | undefined;
  /** Takes in the latency without a queue, if that is known before the first window. */
  baseline?(rtt: number): void;
}

/** Calls that a window must hold before it ends. */
const MINIMUM_CALLS = 10;

/**
 * Sums up the calls of a window, in fixed memory. A window begins with the first call that ends in
 * it, and ends when it holds ten calls and has lasted its duration, or twice the mean of its calls
 * if that is longer, so that the effect of one change of the limit can be seen before the next.
 * While the limit grows, the very first window ends with its ten calls. The others end when they
 * have lasted as long as their calls took on average, and a fifth of the duration, or of the time
 * since the first call if that is less.
 *
 * Source: Netflix concurrency-limits, `WindowedLimit` with `AverageSampleWindow`. There a window
 * with too few calls is thrown away, and slow traffic never changes the limit; here the window
 * continues. There the time of a dropped call counts in the mean; here it does not, so that a quick
 * rejection does not look like a quick response.
 */
export class SampleWindow {
  readonly #duration: number;
  #startedAt = 0;
  #calls = 0;
  #dropped = 0;
  #total = 0;
  #inFlight = 0;
  #arrived = 0;
  /**
   * #countedFrom is when the count of #arrived began: the first call that ended, then the end of
   * each window.
   */
  #countedFrom: number | undefined;
  #isFirst = true;
  readonly #firstCalls = new FirstCalls();

  /** @param duration milliseconds */
  constructor(duration: number) {
    this.#duration = duration;
  }

  /** Takes in a call that came, even one that found no place. */
  arrive(): void {
    this.#arrived++;
  }

  /** Takes in a call that found a place. */
  begin(now: number): void {
    this.#firstCalls.begin(now);
  }

  /**
   * Takes in a call that ended `now` after `rtt` milliseconds, and began as one of `inFlight`.
   * Gives the sample of the window if the window ends with it. `growing` is that of the
   * ConcurrencyLimit.
   */
  add(
    rtt: number,
    inFlight: number,
    dropped: boolean,
    now: number,
    growing = false,
  ): LimitSample | undefined {
    if (this.#calls === 0 || now < this.#startedAt) this.#startedAt = now;
    this.#countedFrom ??= now - rtt;
    this.#calls++;
    this.#firstCalls.end(now - rtt, rtt);
    if (inFlight > this.#inFlight) this.#inFlight = inFlight;
    if (dropped) {
      this.#dropped++;
    } else {
      this.#total += rtt;
    }
    return this.#isOver(now, growing) ? this.#end(now) : undefined;
  }

  #isOver(now: number, growing: boolean): boolean {
    if (this.#calls < MINIMUM_CALLS) return false;
    const elapsed = now - this.#startedAt;
    if (!growing) return elapsed >= Math.max(this.#duration, 2 * (this.#rtt ?? 0));
    const age = now - this.#firstCalls.beganAt;
    return this.#isFirst || elapsed >= Math.max(this.#rtt ?? 0, Math.min(this.#duration, age) / 5);
  }

  get #rtt(): number | undefined {
    return this.#calls > this.#dropped ? this.#total / (this.#calls - this.#dropped) : undefined;
  }

  #end(now: number): LimitSample {
    const sample = {
      rtt: this.#rtt,
      inFlight: this.#inFlight,
      calls: this.#calls,
      dropped: this.#dropped,
      elapsed: Math.max(1, now - this.#startedAt),
      demand: this.#arrived / Math.max(1, now - (this.#countedFrom ?? now)),
      firstRtt: this.#firstCalls.rtt(now),
    };
    this.#calls = this.#dropped = this.#total = this.#inFlight = this.#arrived = 0;
    this.#isFirst = false;
    this.#countedFrom = now;
    return sample;
  }
}

/** The number of first calls. */
const FIRST_CALLS = 24;

/**
 * The latency of the calls that begin first. The calls that end first would not tell it, since they
 * are the quickest.
 */
class FirstCalls {
  /** beganAt is when the first of them began. */
  beganAt = 0;
  #lastBeganAt = Infinity;
  #begun = 0;
  #ended = 0;
  #total = 0;
  #rtt: number | undefined;

  begin(now: number): void {
    if (this.#begun === FIRST_CALLS) return;
    if (this.#begun === 0) this.beganAt = now;
    // The start of a call is computed from its end and its duration, so that it is not quite exact.
    if (++this.#begun === FIRST_CALLS) this.#lastBeganAt = now + 1e-3;
  }

  end(startedAt: number, rtt: number): void {
    if (this.#ended === FIRST_CALLS || startedAt > this.#lastBeganAt) return;
    this.#ended++;
    this.#total += rtt;
  }

  /**
   * Gives their mean milliseconds, once three quarters of them have ended; the rest, which may
   * hang, count with their time so far.
   */
  rtt(now: number): number | undefined {
    if (this.#rtt === undefined && this.#ended >= 0.75 * FIRST_CALLS) {
      const unfinished = (FIRST_CALLS - this.#ended) * Math.max(0, now - this.#lastBeganAt);
      this.#rtt = (this.#total + unfinished) / this.#ended;
    }
    return this.#rtt;
  }
}
