import { decided } from '../internal/decision.ts';
import { jitter as spread } from '../internal/jitter.ts';
import {
  anyDuration,
  isFunction,
  MAX_DELAY,
  number,
  oneOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { Outcome } from './outcome.ts';

/**
 * Gives the milliseconds to wait before retry number `attempt` (1 for the first retry); `previous`
 * is the wait before it, 0 at first. Pure but for its random source.
 */
export type Backoff = (attempt: number, previous: number, outcome?: Outcome<unknown>) => number;

export interface ExponentialBackoffOptions {
  /** Milliseconds before the first retry, before jitter. */
  base: number;
  /** Each further wait is multiplied by it. Default 2. */
  factor?: number | undefined;
  /**
   * The longest wait, in milliseconds, before jitter; at least `base`. Default 30,000, or `base` if
   * that is longer.
   */
  max?: number | undefined;
  /**
   * `full`: uniform between 0 and the wait; `equal`: between half of it and the whole; `none`.
   * Default `full`.
   */
  jitter?: 'full' | 'equal' | 'none' | undefined;
  /** A source of numbers from 0 to 1. Default Math.random. */
  random?: (() => number) | undefined;
}

/**
 * Makes a backoff that waits for `base · factor^(attempt − 1)`, capped at `max`, then jittered.
 * Source: Marc Brooker, 'Exponential Backoff and Jitter', AWS Architecture Blog, 2015.
 */
export function exponentialBackoff(options: ExponentialBackoffOptions): Backoff {
  validateOptions('exponentialBackoff', options, {
    base: number(0, MAX_DELAY),
    factor: number(1),
    max: number(0, MAX_DELAY),
    jitter: oneOf('full', 'equal', 'none'),
    random: isFunction,
  });
  requireOption('exponentialBackoff', options, 'base');
  const { base, factor = 2, jitter = 'full' } = options;
  const max = readMax(options, 'exponentialBackoff');
  const random = checkedRandom(options, "exponentialBackoff option 'random'");
  return (attempt) => {
    // Bounded, since 0 times Infinity is no number.
    const wait = Math.min(max, base * Math.min(factor ** (attempt - 1), Number.MAX_VALUE));
    if (jitter === 'none') return wait;
    return spread(wait, jitter === 'full' ? 0 : 0.5, 1, random);
  };
}

export interface DecorrelatedJitterOptions {
  /** The shortest wait, in milliseconds. */
  base: number;
  /** The longest wait, in milliseconds; at least `base`. Default 30,000, or `base` if longer. */
  max?: number | undefined;
  /** A source of numbers from 0 to 1. Default Math.random. */
  random?: (() => number) | undefined;
}

/**
 * Makes a backoff that waits for `min(max, uniform(base, 3 · previous))`, with `base` in the place
 * of `previous` at first. Source: Marc Brooker, 'Exponential Backoff and Jitter', AWS Architecture
 * Blog, 2015.
 */
export function decorrelatedJitter(options: DecorrelatedJitterOptions): Backoff {
  validateOptions('decorrelatedJitter', options, {
    base: number(0, MAX_DELAY),
    max: number(0, MAX_DELAY),
    random: isFunction,
  });
  requireOption('decorrelatedJitter', options, 'base');
  const { base } = options;
  const max = readMax(options, 'decorrelatedJitter');
  const random = checkedRandom(options, "decorrelatedJitter option 'random'");
  return (_attempt, previous) => Math.min(max, base + random() * (3 * (previous || base) - base));
}

/** Makes a backoff with the same wait before every retry, in milliseconds. */
export function constantBackoff(wait: number): Backoff {
  number(0, MAX_DELAY)(wait, 'the wait of constantBackoff()');
  return () => wait;
}

function readMax(
  { base, max = Math.max(30_000, base) }: { base: number; max?: number | undefined },
  owner: string,
): number {
  number(base, MAX_DELAY)(max, `${owner} option 'max'`);
  return max;
}

function checkedRandom({ random }: { random?: (() => number) | undefined }, option: string): () => number {
  return random === undefined ? () => Math.random() : () => decided(random(), option);
}

/**
 * Computes a wait that a timer can keep, by a backoff that may be a user's own.
 *
 * @param option the full name of the backoff, to show in errors
 * @throws RangeError if the backoff gives a number below 0, TypeError if it gives none
 */
export function computeWait(
  backoff: Backoff,
  option: string,
  attempt: number,
  previous: number,
  outcome?: Outcome<unknown>,
): number {
  const wait = decided(backoff(attempt, previous, outcome), option);
  if (!(typeof wait === 'number' && wait >= 0))
    anyDuration(wait, `${option}: the milliseconds that a backoff gives`);
  return Math.min(wait, MAX_DELAY);
}
