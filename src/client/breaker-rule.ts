import type { Lease } from '../balancing/lease.ts';
import type { Selector } from '../balancing/selector.ts';
import type { Candidate } from '../balancing/strategy.ts';
import { type Clock, systemClock } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import { type CircuitBreakerOptions, withBreakerDefaults } from '../policies/circuit-breaker-options.ts';
import type { CallContext } from '../policies/context.ts';
import type { Outcome } from '../policies/outcome.ts';
import { probeWait } from '../policies/probe-wait.ts';
import type { ResponseHead } from './response.ts';
import { ServiceEvidence } from './service-evidence.ts';

/** Milliseconds from which a call counts as slow, as by default in a CircuitBreaker. */
const DEFAULT_SLOW_CALL = 1_000;

const BREAKER_DEFAULTS = {
  resetTimeout: probeWait,
  failureRatio: 0.6,
  // A service that is down gets no more than one probe a wait.
  halfOpen: { calls: 1 },
} satisfies CircuitBreakerOptions;

/** The least milliseconds between two probes that are allowed because an instance may be well. */
const PROBE_INTERVAL = 1_000;

/**
 * Decides when the CircuitBreaker of a service opens and lets a probe through, by the results of
 * each instance.
 */
export class BreakerRule {
  /** breaker is undefined where the service has none. */
  readonly breaker: CircuitBreaker | undefined = undefined;
  readonly #evidence: ServiceEvidence | undefined = undefined;
  /** #options is undefined where the breaker is the user's. */
  readonly #options: CircuitBreakerOptions | undefined = undefined;
  readonly #select: Selector | undefined;
  readonly #clock: Clock;
  #allowedAt = -Infinity;

  /** @param select the instances that the breaker is for. Default: all. */
  constructor(
    serviceName: string,
    circuitBreaker: CircuitBreakerOptions | CircuitBreaker | false,
    clock: Clock = systemClock,
    select?: Selector,
  ) {
    this.#clock = clock;
    this.#select = select;
    if (circuitBreaker === false) return;
    if (circuitBreaker instanceof CircuitBreaker) {
      this.breaker = circuitBreaker;
      this.#evidence = new ServiceEvidence({ ...BREAKER_DEFAULTS, clock, certain: false });
      return;
    }
    const options = withBreakerDefaults(
      { ...BREAKER_DEFAULTS, clock, name: nameOf(serviceName, select) },
      circuitBreaker,
    );
    this.#options = options;
    // The breaker is made first since it checks the options.
    this.breaker = new CircuitBreaker(options, (rule) =>
      rule === 'failures-in-a-row' ? evidence.allFailedLast() : evidence.isDown(),
    );
    const certain = options.failureRatio !== undefined && circuitBreaker.failureRatio === undefined;
    const evidence = new ServiceEvidence({ ...options, certain });
    this.#evidence = evidence;
    this.breaker.on('close', () => evidence.clear());
  }

  /** Calls the listener when the breaker, if it is not the user's, has closed. */
  onClose(listener: () => void): void {
    if (this.#options !== undefined) this.breaker!.on('close', listener);
  }

  /**
   * Takes in how an attempt ended that says something of its instance, and opens the breaker at
   * once where every instance fails.
   *
   * @returns whether the breaker must not count the attempt: the breaker is the user's, and the
   *   instance is bad while another is well
   */
  record(
    lease: Lease,
    outcome: Outcome<ResponseHead>,
    failed: boolean,
    startedAt: number,
    context: CallContext,
  ): boolean {
    const evidence = this.#evidence;
    if (evidence === undefined) return false;
    const { candidate } = lease;
    const candidates = this.#candidatesOf(lease);
    const counted = this.#countsAsFailure(outcome, failed, context);
    if (counted !== undefined) evidence.record(candidate, candidates, counted, this.#isSlow(startedAt));
    if (!failed) return false;
    if (this.#options === undefined) return evidence.isBadAlone(candidate);
    const breaker = this.breaker!;
    if (evidence.allFailed && breaker.state === 'closed' && this.#isDown(lease))
      breaker.trip(outcome.ok ? undefined : outcome.error, 'all-instances-fail');
    return false;
  }

  /**
   * Lets an open breaker probe without waiting, once a second: an instance has joined, or is likely
   * to be well again.
   */
  allowProbe(): void {
    if (this.#options === undefined || this.breaker!.state !== 'open') return;
    const now = this.#clock.now();
    const since = now - this.#allowedAt;
    // Less than none if the clock was set back.
    if (since >= 0 && since < PROBE_INTERVAL) return;
    this.#allowedAt = now;
    this.breaker!.allowProbe();
  }

  /**
   * Whether the breaker's own predicates count the outcome as a failure; undefined if they ignore
   * it. A predicate that throws here throws again in the breaker.
   */
  #countsAsFailure(
    outcome: Outcome<ResponseHead>,
    failed: boolean,
    context: CallContext,
  ): boolean | undefined {
    const { isFailure, isIgnored } = this.#options ?? {};
    if (isFailure === undefined && isIgnored === undefined) return failed;
    try {
      if (decided(isIgnored?.(outcome, context), 'isIgnored')) return undefined;
      return isFailure === undefined ? failed : decided(isFailure(outcome, context), 'isFailure');
    } catch {
      return failed;
    }
  }

  #candidatesOf(lease: Lease): readonly Candidate[] {
    return this.#select === undefined ? lease.candidates : lease.candidatesOf(this.#select);
  }

  #isDown(lease: Lease): boolean {
    return this.#select === undefined ? lease.serviceDown : lease.isDown(this.#select);
  }

  #isSlow(startedAt: number): boolean {
    const { slowCallRatio, slowCallDuration = DEFAULT_SLOW_CALL } = this.#options ?? {};
    return slowCallRatio !== undefined && this.#clock.now() - startedAt >= slowCallDuration;
  }
}

/** Names the breaker of a service, or of some of its instances: `shop (version=2)`. */
function nameOf(serviceName: string, select: Selector | undefined): string {
  if (select === undefined) return serviceName;
  const pairs = Object.entries(select).map(([name, value]) => `${name}=${value}`);
  return `${serviceName} (${pairs.join(', ')})`;
}
