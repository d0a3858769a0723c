import { jitter } from '../internal/jitter.ts';
import type { EjectionTime, OutlierDetection } from './outlier-detection.ts';

/** No result yet. */
interface Unknown {
  readonly kind: 'unknown';
}
/** Its latest result was a success. */
interface Healthy {
  readonly kind: 'healthy';
}
/** Its latest results were failures, too few of them to eject the instance. */
interface Suspect {
  readonly kind: 'suspect';
}
/** The instance is passed over until `dueAt`; from then on it may get a probe. */
interface Ejected {
  readonly kind: 'ejected';
  /**
   * Whether its calls failed one after the other. If not, it did worse than other instances, and
   * may still respond.
   */
  readonly failing: boolean;
  /** Milliseconds from the ejection to the first probe. */
  readonly wait: number;
  readonly dueAt: number;
  /**
   * The time from which a call that cannot be repeated may be the probe, should no other call have
   * been.
   */
  readonly dueForAllAt: number;
}
/** A probe is under way. If it has not ended by `expiresAt`, another one may begin. */
interface Probing {
  readonly kind: 'probing';
  /** The state that the instance goes back to if the probe gives no result. */
  ejection: Ejected;
  readonly expiresAt: number;
}
type State = Unknown | Healthy | Suspect | Ejected | Probing;

const UNKNOWN: Unknown = { kind: 'unknown' };
const HEALTHY: Healthy = { kind: 'healthy' };
const SUSPECT: Suspect = { kind: 'suspect' };

/** Milliseconds for which a probe is reserved for calls that can be repeated, at most. */
const RESERVED = 1_000;

/**
 * Milliseconds for which a probe keeps others out, at most. Calls hardly ever take as long, unless
 * they never end.
 */
const MAX_PROBE = 30_000;

/** Identifies a probe, so that the end of an earlier one does not make room for a third. */
export type Probe = object;

/**
 * The health of one instance, learned from the results of calls alone.
 *
 *              success               failure            as many in a row as the rules say
 *   unknown ───────────▸ healthy ◂─────────────▸ suspect ────────────────────────────────┐
 *      │                    ▲        success        │                                    ▼
 *      └────────────────────┼───────────────────────┴── does worse than the others ─▸ ejected ◂─┐
 *                           │                                                          │        │
 *                           │                                             due: a probe │        │
 *                           │ success                                                  ▼ failure│
 *                           └────────────────────────────────────────────────────── probing ────┘
 *
 * A generation begins with each ejection, each return, each new start of the instance and each
 * renewal of an ejected one. The result of a call that began in an earlier generation has no effect
 * on this machine. If an ejected instance gets a call because there is no other, and the call
 * succeeds, the instance returns if it was ejected for failures in a row; one success does not
 * refute a comparison.
 *
 * Failures in a row eject for a base time, doubled by each failed probe, so that an instance is
 * found well soon. Comparing rules eject for one base time more with each ejection, since instances
 * that respond must stay away long enough for it to help. Each interval in which the instance is
 * well takes back one ejection of either kind.
 *
 * Sources: Finagle, `liveness/FailureAccrualFactory` (Alive, ProbeOpen, ProbeClosed, Dead), for the
 * probes; Envoy, 'Outlier detection', for the ejection times of the comparing rules.
 */
export class InstanceHealth {
  /** generation is increased whenever the results of earlier calls cease to count. */
  generation = 0;
  /** Whether the instance is ejected, with or without a probe under way. */
  ejected = false;
  #state: State = UNKNOWN;
  #failuresInARow = 0;
  /** The number of ejections by the same kind of rule, less those that were forgiven since. */
  #ejections = 0;
  #time: EjectionTime | undefined = undefined;
  #returnedAt = 0;

  get healthy(): boolean {
    return this.#state === HEALTHY;
  }

  get suspect(): boolean {
    return this.#state === SUSPECT;
  }

  /** Whether a probe is under way that keeps others out. */
  isProbing(now: number): boolean {
    const state = this.#state;
    return state.kind === 'probing' && now < state.expiresAt;
  }

  /**
   * Whether the instance is ejected because its calls failed one after the other: as far as is
   * known, it is down.
   */
  get failing(): boolean {
    return this.#ejection?.failing ?? false;
  }

  /**
   * The time from which the instance may get a probe, on the clock of the balancer; 0 unless
   * it is ejected.
   */
  get dueAt(): number {
    return this.#ejection?.dueAt ?? 0;
  }

  get ejections(): number {
    return this.#ejections;
  }

  /** Whether a call may be the probe that decides on the return of the instance. */
  mayProbe(now: number, repeatable: boolean): boolean {
    const state = this.#state;
    if (state.kind === 'ejected') return now >= (repeatable ? state.dueAt : state.dueForAllAt);
    return state.kind === 'probing' && now >= state.expiresAt;
  }

  /** Takes in that a call begins. Gives its probe if the call is one. */
  beginCall(now: number): Probe | undefined {
    if (!this.ejected || !this.mayProbe(now, true)) return undefined;
    const probing: Probing = { kind: 'probing', ejection: this.#ejection!, expiresAt: now + MAX_PROBE };
    this.#state = probing;
    return probing;
  }

  /** Takes in that a probe ended without a result, so that the next call may be one. */
  abandonProbe(probe: Probe): void {
    if (this.#state === probe) this.#state = (probe as Probing).ejection;
  }

  /** Takes in a success. True if the instance was not healthy and is now. */
  recordSuccess(now: number): boolean {
    this.#failuresInARow = 0;
    const state = this.#state;
    if (state === HEALTHY) return false;
    if (state.kind === 'ejected' && !state.failing && now < state.dueAt) return false;
    this.#state = HEALTHY;
    if (this.ejected) {
      this.ejected = false;
      this.#returnedAt = now;
      this.generation++;
    }
    return true;
  }

  /** Takes in a failure. True if it calls for an ejection. */
  recordFailure(probe: boolean, { consecutiveFailures }: OutlierDetection): boolean {
    this.#failuresInARow++;
    if (!this.ejected && consecutiveFailures !== Infinity) this.#state = SUSPECT;
    return probe || this.#failuresInARow === consecutiveFailures;
  }

  /**
   * Ejects the instance, or ejects it again.
   *
   * @param reached whether the last call may have reached the instance. If not, a call that cannot
   * be repeated loses nothing by being the probe.
   * @returns the milliseconds until a probe, with up to a tenth of jitter, so that clients do not
   * probe in step.
   */
  eject(now: number, reached: boolean, rules: OutlierDetection, random: () => number): number {
    const failing = this.failing || this.#failuresInARow >= rules.consecutiveFailures;
    const time = failing ? rules.failingEjectionTime : rules.comparedEjectionTime;
    if (time !== this.#time) this.#ejections = 0;
    else if (!this.ejected) this.#forgive(now, rules.interval, time.maxCount);
    this.#time = time;
    this.#ejections++;
    const wait = Math.min(time.max, jitter(time.after(this.#ejections), 1, 1.1, random));
    const dueAt = now + wait;
    const reserved = reached ? Math.min(RESERVED, wait / 2) : 0;
    this.ejected = true;
    this.#state = { kind: 'ejected', failing, wait, dueAt, dueForAllAt: dueAt + reserved };
    this.generation++;
    return wait;
  }

  /**
   * Lets any call probe the ejected instance at once, because it is likely to be well. A probe that
   * is under way keeps other calls out until it ends; it began before the reason to expect so, and
   * its result has no effect.
   */
  allowProbe(now: number): void {
    const ejection = this.#ejection;
    if (ejection === undefined) return;
    const due = makeDue(ejection, now);
    if (this.#state.kind === 'probing') this.#state.ejection = due;
    else this.#state = due;
    this.generation++;
  }

  /**
   * Takes in that the instance has left. The calls under way say nothing about it, should it return;
   * a probe among them keeps others out until it ends.
   */
  leave(): void {
    this.generation++;
  }

  /**
   * Takes in that the instance has started anew. Earlier calls say nothing about it, and an earlier
   * probe keeps no call out.
   */
  startAnew(now: number): void {
    this.#failuresInARow = 0;
    this.#ejections = 0;
    const ejection = this.#ejection;
    this.#state = ejection === undefined ? UNKNOWN : makeDue(ejection, now);
    this.generation++;
  }

  get #ejection(): Ejected | undefined {
    const state = this.#state;
    if (state.kind === 'ejected') return state;
    return state.kind === 'probing' ? state.ejection : undefined;
  }

  /**
   * Takes back one ejection for each interval in which the instance was well. However many
   * ejections an outage took, only those that made the time longer count.
   */
  #forgive(now: number, interval: number, maxCount: number): void {
    const wellIntervals = Math.floor((now - this.#returnedAt) / interval);
    if (wellIntervals > 0) this.#ejections = Math.max(0, Math.min(this.#ejections, maxCount) - wellIntervals);
  }
}

function makeDue(ejection: Ejected, now: number): Ejected {
  return { ...ejection, dueAt: now, dueForAllAt: now };
}
