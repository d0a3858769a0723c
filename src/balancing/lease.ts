import type { ServiceInstance } from '../discovery/service-instance.ts';
import { number } from '../internal/validate.ts';
import type { AcquireOptions } from './acquire-options.ts';
import type { ClusterHealth } from './cluster-health.ts';
import type { ClusterPicker } from './cluster-picker.ts';
import type { Probe } from './instance-health.ts';
import type { Node } from './node.ts';
import type { Selector } from './selector.ts';
import type { Candidate } from './strategy.ts';

/** How a call on a lease ended. A call without any of the fields ended well. */
export interface CallResult {
  /** The fault of the instance. Leave it out for a response that blames the caller (4xx). */
  error?: unknown;
  /** Milliseconds. Default: the time since the lease was acquired. */
  latency?: number | undefined;
  /**
   * The caller cancelled the call: the instance would have taken longer still, and nothing else is
   * known of it. A cancelled probe that took ten times the mean latency has failed nevertheless; so
   * has any call that took as long, where `error` says that it ran out of time.
   */
  cancelled?: boolean | undefined;
  /**
   * The end of the call says nothing about the instance, for example because it was rejected before
   * it was sent.
   */
  inconclusive?: boolean | undefined;
}

/**
 * Tells what became of the result of a call:
 *
 * - `recorded`: it counts for the health of the instance.
 * - `outdated`: the instance was ejected, returned, was restarted or left after the call began.
 * - `inconclusive`: the result was inconclusive or cancelled.
 * - `released`: the lease was released before.
 */
export type ReleaseOutcome = 'recorded' | 'outdated' | 'inconclusive' | 'released';

/** A place on an instance, held while a call is under way. */
export class Lease {
  readonly instance: ServiceInstance;
  /** The instance as the balancer knows it. */
  readonly candidate: Candidate;
  /** Whether the call explores an instance that got no calls because of its expected latency. */
  readonly exploring: boolean;
  readonly #health: ClusterHealth;
  readonly #picker: ClusterPicker;
  readonly #node: Node;
  readonly #startedAt: number;
  /** The generation of the instance's health in which the call began. */
  readonly #generation: number;
  readonly #probe: Probe | undefined;
  /** Whether the call explores an instance whose latest call failed. */
  readonly #suspect: boolean;
  #released = false;

  /**
   * Only a balancer makes leases, each for the node that its latest pick gave.
   *
   * @internal
   */
  constructor(health: ClusterHealth, picker: ClusterPicker, node: Node) {
    const { now, explored, count } = picker.latest;
    this.instance = node.instance;
    this.candidate = node;
    this.exploring = explored === node;
    this.#health = health;
    this.#picker = picker;
    this.#node = node;
    this.#startedAt = now;
    this.#generation = node.health.generation;
    this.#probe = node.health.beginCall(now);
    this.#suspect = this.exploring && node.health.suspect;
    node.beginCall(count);
    picker.loadChanged(node);
  }

  /** Whether the call decides on the return of an ejected instance. */
  get probe(): boolean {
    return this.#probe !== undefined;
  }

  /**
   * Milliseconds after which the call should be made elsewhere, if it can be, so that an instance
   * that hangs costs it no more. Undefined unless the call is to find out whether the instance is
   * well.
   */
  get probeTimeout(): number | undefined {
    return this.probe || this.#suspect ? this.#health.probeTimeout : undefined;
  }

  /** All instances that calls go to while they are well. */
  get candidates(): readonly Candidate[] {
    return this.#health.eligible;
  }

  /**
   * The candidates of the calls that give this selector; all of them if it matches none. Give the
   * same object each time, since the list is kept for it.
   */
  candidatesOf(selector: Selector): readonly Candidate[] {
    return this.#selectedBy(selector);
  }

  /**
   * Whether a call with these options could go to another instance, whose latest call did not fail.
   */
  hasWellOther({ exclude, select }: AcquireOptions): boolean {
    return this.#health.hasWell(exclude, select);
  }

  /**
   * Tells that the response has begun and is a success. A probe has its result with it. For any
   * other call the end of the response decides, which may come much later.
   *
   * @param latency milliseconds. Default: the time since the lease was acquired.
   */
  responded(latency?: number): void {
    const node = this.#node;
    const outdated = this.#generation !== node.health.generation;
    if (this.#released || this.#probe === undefined || outdated) return;
    const now = this.#health.clock.now();
    this.#health.recordSuccess(node, latency ?? Math.max(0, now - this.#startedAt), now, false);
  }

  /**
   * Gives the place back and tells how the call ended. Only the first release counts.
   *
   * @throws RangeError if the latency is not a number of at least 0.
   */
  release(result: CallResult = {}): ReleaseOutcome {
    if (result.latency !== undefined) number(0)(result.latency, 'the latency of a call');
    if (this.#released) return 'released';
    this.#released = true;
    const node = this.#node;
    const health = this.#health;
    const now = this.#health.clock.now();
    if (this.#probe !== undefined) node.health.abandonProbe(this.#probe);
    node.endCall();
    this.#picker.loadChanged(node);
    const latency = result.latency ?? Math.max(0, now - this.#startedAt);
    const outdated = this.#generation !== node.health.generation;
    if (result.cancelled) {
      node.recordCancelled(latency, now, this.exploring);
      const failed = (this.probe || result.error !== undefined) && latency >= health.overdue;
      if (failed && !outdated) health.recordFailure(node, latency, now, this.probe, result.error);
    }
    if (result.cancelled || result.inconclusive) return 'inconclusive';
    if (outdated) return 'outdated';
    if (result.error === undefined) health.recordSuccess(node, latency, now, this.exploring);
    else health.recordFailure(node, latency, now, this.probe, result.error);
    health.checkInterval(now);
    return 'recorded';
  }

  /**
   * Whether every instance that calls go to is ejected because its calls failed one after the
   * other. An instance that was ejected in comparison with others still responds; so may one that
   * got no call for long.
   */
  get serviceDown(): boolean {
    return this.#health.down;
  }

  /** Whether the same holds for the candidates of the calls that give this selector. */
  isDown(selector: Selector): boolean {
    return this.#health.areDown(this.#selectedBy(selector));
  }

  #selectedBy(selector: Selector): readonly Node[] {
    const selected = this.#picker.selectedBy(selector);
    return selected.length > 0 ? selected : this.#health.eligible;
  }
}
