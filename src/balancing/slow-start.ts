import { duration, number, validateOptions } from '../internal/validate.ts';

/** How an instance that is new, or well again, comes to its share of the calls. */
export interface SlowStartOptions {
  /** Milliseconds until it has its whole weight. Default 30,000. */
  duration?: number;
  /** How its weight grows: 1 in a straight line, above that fast at first, below that slowly at first. Default 1. */
  aggression?: number;
  /** The share of its weight that it has at once, above 0. Default 0.1. */
  minWeight?: number;
}

export type SlowStart = Required<SlowStartOptions>;

/** The options with their defaults; undefined for no slow start. */
export function slowStart(options: SlowStartOptions | false | undefined): SlowStart | undefined {
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
 * An instance on its way to its whole weight. It goes by the clock of the picks, so that to ask costs no look
 * at another. Source: Envoy, 'Slow start mode': max(minimum, (time / duration) ^ (1 / aggression)).
 */
export class SlowStartRamp {
  readonly #rules: SlowStart;
  readonly #startedAt: number;
  readonly #clock: { readonly now: number };

  constructor(rules: SlowStart, startedAt: number, clock: { readonly now: number }) {
    this.#rules = rules;
    this.#startedAt = startedAt;
    this.#clock = clock;
  }

  /** The share of its weight that it has, up to 1. */
  get share(): number {
    const { duration, aggression, minWeight } = this.#rules;
    const elapsed = Math.max(0, this.#clock.now - this.#startedAt);
    return elapsed >= duration ? 1 : Math.max(minWeight, (elapsed / duration) ** (1 / aggression));
  }
}
