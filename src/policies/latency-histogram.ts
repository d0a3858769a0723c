import { type Clock, systemClock } from '../internal/clock.ts';

/** How far an estimate may be from the true value: 2 % of it. */
const ACCURACY = 0.02;
const GAMMA = (1 + ACCURACY) / (1 - ACCURACY);
const BUCKETS_PER_E = 1 / Math.log(GAMMA);
/** Milliseconds. Shorter latencies count as the one, longer ones as the other. */
const SHORTEST = 0.01;
const LONGEST = 1e9;
const LOWEST = Math.ceil(Math.log(SHORTEST) * BUCKETS_PER_E);
const BUCKETS = Math.ceil(Math.log(LONGEST) * BUCKETS_PER_E) - LOWEST + 1;

/** Milliseconds of one generation. */
const SPAN = 30_000;

/**
 * Milliseconds for which an estimate is reused. An estimate over half a minute hardly moves
 * meanwhile, and with any number of calls the sum of the buckets (about a microsecond) takes no
 * share of the processor that matters.
 */
const FRESH = 100;

/** Latencies below which a percentile says more about chance than about the service. */
const MINIMUM = 20;

/**
 * The latencies of the last 30 to 60 seconds, in 10 kB whatever their number. Recording one is
 * O(1); a percentile is at most 2 % off for latencies from 0.01 ms to 11 days, and at most 100 ms
 * old.
 *
 * Source: Charles Masson, Jee E. Rim and Homin K. Lee, 'DDSketch: A Fast and Fully-Mergeable
 * Quantile Sketch with Relative-Error Guarantees', VLDB 2019: each bucket is wider than the one
 * before by the same factor. Two such sketches take turns, so that clearing one forgets the older
 * generation.
 */
export class LatencyHistogram {
  #current = new Uint32Array(BUCKETS);
  #previous = new Uint32Array(BUCKETS);
  #inCurrent = 0;
  #inPrevious = 0;
  readonly #clock: Clock;
  #generation: number;
  #estimate: number | undefined = undefined;
  #estimated = Number.NaN;
  #estimatedAt = 0;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    this.#generation = Math.floor(clock.now() / SPAN);
  }

  /** @param latency in milliseconds */
  record(latency: number, now = this.#clock.now()): void {
    this.#rotate(now);
    this.#current[bucketOf(latency)]!++;
    this.#inCurrent++;
  }

  /**
   * Gives the milliseconds within which the given share of calls was done; undefined while fewer
   * than 20 are remembered, or none beyond that share.
   *
   * @param share above 0 and below 1: 0.95 for the 95th percentile
   */
  percentile(share: number, now = this.#clock.now()): number | undefined {
    const age = now - this.#estimatedAt;
    if (share !== this.#estimated || age >= FRESH || age < 0) {
      this.#rotate(now);
      this.#estimate = this.#estimateOf(share);
      this.#estimated = share;
      this.#estimatedAt = now;
    }
    return this.#estimate;
  }

  #estimateOf(share: number): number | undefined {
    const count = this.#inCurrent + this.#inPrevious;
    const beyond = count - Math.ceil(share * count);
    if (count < MINIMUM || beyond < 1) return undefined;
    let bucket = BUCKETS;
    for (let passed = 0; passed <= beyond; ) {
      bucket--;
      passed += this.#current[bucket]! + this.#previous[bucket]!;
    }
    return (2 * GAMMA ** (bucket + LOWEST)) / (GAMMA + 1);
  }

  #rotate(now: number): void {
    const generation = Math.floor(now / SPAN);
    const passed = generation - this.#generation;
    this.#generation = generation;
    if (passed <= 0) return;
    const cleared = this.#previous.fill(0);
    this.#previous = this.#current;
    this.#inPrevious = this.#inCurrent;
    this.#current = cleared;
    this.#inCurrent = 0;
    if (passed > 1) {
      this.#previous.fill(0);
      this.#inPrevious = 0;
    }
  }
}

function bucketOf(latency: number): number {
  if (!(latency > SHORTEST)) return 0;
  return Math.min(Math.ceil(Math.log(latency) * BUCKETS_PER_E) - LOWEST, BUCKETS - 1);
}
