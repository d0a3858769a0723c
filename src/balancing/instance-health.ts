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
/** Its latest results were failures, too few of them to eject it. */
interface Suspect {
  readonly kind: 'suspect';
}
/** Passed over until `dueAt`; from then on it may get a probe. */
interface Ejected {
  readonly kind: 'ejected';
  /** Whether its calls failed one after the other. If not, it did worse than the others, and may respond nevertheless. */
  readonly failing: boolean;
  /** Milliseconds from the ejection to the first probe. */
  readonly wait: number;
  readonly dueAt: number;
  /** When a call that cannot be repeated may be the probe, should no other call have been. */
  readonly dueForAllAt: number;
}
/** A probe is under way. One that has not ended by `expiresAt` keeps no other out. */
interface Probing {
  readonly kind: 'probing';
  /** What the instance goes back to if the probe gives no result. */
  ejection: Ejected;
  readonly expiresAt: number;
}
type State = Unknown | Healthy | Suspect | Ejected | Probing;

const UNKNOWN: Unknown = { kind: 'unknown' };
const HEALTHY: Healthy = { kind: 'healthy' };
const SUSPECT: Suspect = { kind: 'suspect' };

/** The longest that a probe is kept for calls that can be repeated, in milliseconds. */
const RESERVED = 1_000;

/** Milliseconds for which a probe keeps others out, at most: longer than calls take as a rule, for one that never ends. */
const MAX_PROBE = 30_000;

/** Shows which probe a call is, so that the end of an earlier one does not make room for a third. */
export type Probe = object;

/**
 * What a balancer knows of the health of one instance, from the results of calls alone.
 *
 *                 success                 failure               as many in a row as the rules say
 *      unknown ───────────▸ healthy ◂───────────────▸ suspect ──────────────────────────────────┐
 *         │                    ▲         success         │                                       ▼
 *         └────────────────────┼─────────────────────────┴── does worse than the others ────▸ ejected ◂─┐
 *                              │                                                                 │      │ failure
 *                              │ success                                            due: a probe │      │
 *                              └─────────────────────────────────────────────────────────────probing ──┘
 *
 * Each ejection, each return, each new start of the instance and each news of an ejected one begins a generation. What
 * began in an earlier one has no effect on this machine. A call that reached an ejected instance for want of another returns
 * it by a success if the instance was ejected for failures in a row; one success does not refute a comparison.
 *
 * Failures in a row eject for a base, doubled by each failed probe, so that an instance is found well soon; comparing
 * rules eject for a base more each time, since instances that respond must stay away long enough for it to help. Each
 * interval that the instance is well takes back one of either.
 *
 * Sources: Finagle, `liveness/FailureAccrualFactory` (Alive, ProbeOpen, ProbeClosed, Dead), whose probes this machine
 * has; Envoy, 'Outlier detection', whose ejection times it takes for the comparing rules.
 */
export class InstanceHealth {
  /** Another number in each generation. */
  generation = 0;
  /** Whether it is ejected, a probe under way or not. */
  ejected = false;
  #state: State = UNKNOWN;
  #failuresInARow = 0;
  /** Ejections by the same kind of rule, without those that were forgiven since. */
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

  /** Whether it is ejected because its calls failed one after the other: as far as is known, it is down. */
  get failing(): boolean {
    return this.#ejection?.failing ?? false;
  }

  /** From when on it may get a probe, on the clock of `performance.now()`. Only while it is ejected. */
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

  /** A call begins; gives the probe that it is, if it is one. */
  begin(now: number): Probe | undefined {
    if (!this.ejected || !this.mayProbe(now, true)) return undefined;
    const probing: Probing = { kind: 'probing', ejection: this.#ejection!, expiresAt: now + MAX_PROBE };
    this.#state = probing;
    return probing;
  }

  /** A probe ended without a result: the next call may be one. */
  abandon(probe: Probe): void {
    if (this.#state === probe) this.#state = (probe as Probing).ejection;
  }

  /** Takes in a success. True if the instance was not healthy and is now. */
  succeed(now: number): boolean {
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
  fail(probe: boolean, { consecutiveFailures }: OutlierDetection): boolean {
    this.#failuresInARow++;
    if (!this.ejected && consecutiveFailures !== Infinity) this.#state = SUSPECT;
    return probe || this.#failuresInARow === consecutiveFailures;
  }

  /**
   * Ejects it, or ejects it again.
   *
   * @param reached whether its last call may have reached it. If not, a call that cannot be repeated loses nothing as a probe.
   * @returns the milliseconds until a probe, with up to a tenth of jitter so that clients do not probe in step.
   */
  eject(now: number, reached: boolean, rules: OutlierDetection, random: () => number): number {
    const failing = this.failing || this.#failuresInARow >= rules.consecutiveFailures;
    const time = failing ? rules.failingEjectionTime : rules.comparedEjectionTime;
    if (time !== this.#time) this.#ejections = 0;
    else if (!this.ejected) this.#forgive(now, rules.interval, time.most);
    this.#time = time;
    this.#ejections++;
    const wait = Math.min(time.max, jitter(time.of(this.#ejections), 1, 1.1, random));
    const dueAt = now + wait;
    const reserved = reached ? Math.min(RESERVED, wait / 2) : 0;
    this.ejected = true;
    this.#state = { kind: 'ejected', failing, wait, dueAt, dueForAllAt: dueAt + reserved };
    this.generation++;
    return wait;
  }

  /**
   * There is news of it, or of others like it, which makes it likely to be well: it may be probed at once, by any call. A
   * probe that is under way keeps other calls out until it ends; its result is older than the news, and has no effect.
   */
  expectWell(now: number): void {
    const ejection = this.#ejection;
    if (ejection === undefined) return;
    const due = dueSince(now, ejection);
    if (this.#state.kind === 'probing') this.#state.ejection = due;
    else this.#state = due;
    this.generation++;
  }

  /** It has started anew, or has left: what began before says nothing about it, and keeps no call out. */
  startAnew(now: number): void {
    this.#failuresInARow = 0;
    this.#ejections = 0;
    const ejection = this.#ejection;
    this.#state = ejection === undefined ? UNKNOWN : dueSince(now, ejection);
    this.generation++;
  }

  get #ejection(): Ejected | undefined {
    const state = this.#state;
    if (state.kind === 'ejected') return state;
    return state.kind === 'probing' ? state.ejection : undefined;
  }

  /** However many ejections an outage took, those count that made the time longer. */
  #forgive(now: number, interval: number, most: number): void {
    const well = Math.floor((now - this.#returnedAt) / interval);
    if (well > 0) this.#ejections = Math.max(0, Math.min(this.#ejections, most) - well);
  }
}

function dueSince(now: number, ejection: Ejected): Ejected {
  return { ...ejection, dueAt: now, dueForAllAt: now };
}
