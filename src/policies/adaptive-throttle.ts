import { ThrottledError } from '../errors.ts';
import { clockOption } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import { isFunction, MAX_DELAY, nonEmptyString, number, validateOptions } from '../internal/validate.ts';
import type { Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { effectiveOutcome, isInconclusive, type Outcome, type OutcomeFunction, start } from './outcome.ts';
import { type TimedPolicyOptions, withName } from './policy-options.ts';
import { TimeWindow } from './rolling-window.ts';

export interface AdaptiveThrottleOptions extends TimedPolicyOptions {
  /**
   * Calls let through for each that is accepted, at least 1. Less spares an overloaded backend
   * more; more finds out sooner that it has recovered. Default 2.
   */
  k?: number | undefined;
  /**
   * Milliseconds for which calls are counted. Default 2,000. More lets fewer calls through beyond
   * `k` for each that is accepted, since each process adds one a window; less lets a backend that
   * has recovered serve all sooner.
   */
  window?: number | undefined;
  /**
   * Whether the backend accepted the call, even if it failed later. Default: it did unless the call
   * ended with an error. The function is not called for calls that count as neither.
   */
  isAccepted?: OutcomeFunction<boolean> | undefined;
  /** Numbers from 0 up to 1. Default `Math.random`. */
  random?: (() => number) | undefined;
}

export interface AdaptiveThrottleEvents {
  /** The throttle rejected a call. */
  reject: [event: { error: ThrottledError }];
}

/**
 * Rejects calls by itself once a backend rejects too many, so that an overloaded backend need not
 * spend its strength on rejecting: with probability max(0, (requests − k · accepts) / (requests +
 * 1)) over the last two seconds. Calls that it rejects count as requests, so that it lets about k
 * times as many through as are accepted. Calls that were cancelled, or rejected by another policy
 * inside, count as neither.
 *
 * A call counts when it ends, not when it begins as in the source: else calls still under way would
 * look rejected, and most of many that begin at once after a silence would be rejected. So put a
 * Timeout inside, and a Bulkhead around calls that can hang.
 *
 * The error is a ThrottledError. The throttle lets about one call a window through to a backend
 * that accepts nothing at all, and when the backend is well again it takes about five windows until
 * it lets all through. It uses no timer.
 *
 * Source: 'Site Reliability Engineering', chapter 21, 'Handling Overload', section 'Client-Side
 * Throttling', whose window is two minutes. With that, calls accepted before an overload outweigh
 * it for as long, and a backend that has recovered waits ten minutes for its load; the load in a
 * lasting overload hardly depends on the window.
 *
 * @example
 * const throttle = new AdaptiveThrottle({ isAccepted: (outcome) => outcome.ok || !isBusy(outcome.error) });
 */
export class AdaptiveThrottle extends EmittingPolicy<AdaptiveThrottleEvents> {
  readonly #k: number;
  readonly #isAccepted: AdaptiveThrottleOptions['isAccepted'];
  readonly #random: () => number;
  /** #requests counts the requests that were not accepted as its failures. */
  readonly #requests: TimeWindow;

  constructor(options: AdaptiveThrottleOptions = {}) {
    super('adaptive-throttle', options);
    validateOptions('AdaptiveThrottle', options, {
      name: nonEmptyString,
      clock: clockOption,
      k: number(1),
      window: number(1, MAX_DELAY),
      isAccepted: isFunction,
      random: isFunction,
    });
    this.#k = options.k ?? 2;
    this.#isAccepted = options.isAccepted;
    this.#random = options.random ?? Math.random;
    this.#requests = new TimeWindow(options.window ?? 2_000, 0, this.clock);
  }

  /** The share of calls that it rejects now, 0 to 1. */
  get rejectionProbability(): number {
    if (this.#requests.failures === 0) return 0;
    this.#requests.forget();
    const { calls, failures } = this.#requests;
    return Math.max(0, (calls - this.#k * (calls - failures)) / (calls + 1));
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const probability = this.rejectionProbability;
    if (probability > 0 && decided(this.#random(), "AdaptiveThrottle option 'random'") < probability)
      throw this.#rejection(probability);
    return start(operation, context).then(
      (value) => {
        this.#count({ ok: true, value }, context);
        return value;
      },
      (error) => {
        this.#count({ ok: false, error }, context);
        throw error;
      },
    );
  }

  #count(ended: Outcome<unknown>, context: Context): void {
    if (isInconclusive(ended, context)) return;
    const outcome = effectiveOutcome(ended, context);
    const accepted = this.#isAccepted
      ? decided(this.#isAccepted(outcome, context), "AdaptiveThrottle option 'isAccepted'")
      : outcome.ok;
    this.#requests.record(!accepted, false);
  }

  #rejection(probability: number): ThrottledError {
    this.#requests.record(true, false);
    const error = new ThrottledError(
      `${withName('throttled', this.name, 'by ')}: too few calls of late were accepted, so ${Math.round(100 * probability)} % are rejected`,
    );
    this.emit('reject', { error });
    return error;
  }
}
