import { duration, number, validateOptions } from '../internal/validate.ts';

/** How an instance that is new, or well again, comes to its share of the calls. */
export interface SlowStartOptions {
  /** Milliseconds until the instance has its full weight. Default 30,000. */
  duration?: number | undefined;
  /**
   * How the weight grows: 1 in a straight line, above that fast at first, below that slowly at
   * first. Default 1.
   */
  aggression?: number | undefined;
  /** The share of its weight that the instance has at once, above 0. Default 0.1. */
  minWeight?: number | undefined;
}

export type SlowStart = Required<SlowStartOptions>;

/** Gives the time of the latest pick, on the clock of the balancer. */
export type PickClock = () => number;

/** Reads the options and adds the defaults; undefined for no slow start. */
export function readSlowStartOptions(options: SlowStartOptions | false | undefined): SlowStart | undefined {
  if (options === undefined || options === false) return undefined;
  validateOptions('LoadBalancer slowStart', options, {
    duration,
    aggression: number(0.01),
    minWeight: number(0.01, 1),
  });
  return {
    duration: options.duration ?? 30_000,
    aggression: options.aggression ?? 1,
    minWeight: options.minWeight ?? 0.1,
  };
}

/**
 * The slow start of one instance. It reads the time of the latest pick, which costs no look at a
 * clock.
 * Source: Envoy, 'Slow start mode': max(minimum, (time / duration) ^ (1 / aggression)).
 */
export class SlowStartRamp {
  readonly #options: SlowStart;
  readonly #startedAt: number;
  readonly #clock: PickClock;

  constructor(options: SlowStart, startedAt: number, clock: PickClock) {
    this.#options = options;
    this.#startedAt = startedAt;
    this.#clock = clock;
  }

  /** The share of its weight that the instance has, up to 1. */
  get factor(): number {
    const { duration, aggression, minWeight } = this.#options;
    const elapsed = Math.max(0, this.#clock() - this.#startedAt);
    return elapsed >= duration ? 1 : Math.max(minWeight, (elapsed / duration) ** (1 / aggression));
  }
}
