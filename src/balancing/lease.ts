import type { ServiceInstance } from '../discovery/service-instance.ts';
import { number } from '../internal/validate.ts';
import type { Probe } from './instance-health.ts';
import type { Node } from './node.ts';
import type { AcquireOptions } from './pick.ts';
import type { Selector } from './selector.ts';
import type { Candidate } from './strategy.ts';

/** How a call on a lease ended. With none of the fields: well. */
export interface CallResult {
  /** What went wrong on the side of the instance. Leave it out for a response that blames the caller (4xx). */
  error?: unknown;
  /** Milliseconds. Default: since the lease was acquired. */
  latency?: number;
  /**
   * The caller gave up: all that is learned of the instance is that it would have taken longer still. But a probe that had
   * ten times the usual latency has failed; so has any call that had, where `error` says that it ran out of time.
   */
  cancelled?: boolean;
  /** The end of the call says nothing about the instance, as when it was rejected before it was sent. */
  inconclusive?: boolean;
}

/**
 * What became of the result of a call: it was `recorded`; it is `outdated`, since the instance was ejected, has returned,
 * has started anew or has left after the call began; it was `inconclusive` or cancelled; the lease was `released` before.
 */
export type ReleaseOutcome = 'recorded' | 'outdated' | 'inconclusive' | 'released';

/** What a lease needs of the fleet of its instance. */
export interface LeasingFleet {
  readonly eligible: readonly Candidate[];
  readonly picks: number;
  readonly probeTimeout: number;
  /** Milliseconds after which an instance that has not responded seems to hang. */
  readonly overdue: number;
  readonly down: boolean;
  hasWell(exclude: ReadonlySet<string> | undefined, select: Selector | undefined): boolean;
  loadChanged(node: Node): void;
  succeeded(node: Node, latency: number, now: number, exploring: boolean): void;
  failed(node: Node, latency: number, now: number, probe: boolean, error: unknown): void;
  passed(now: number): void;
}

/** A place on an instance, held while a call is under way. */
export class Lease {
  readonly instance: ServiceInstance;
  /** What the balancer knows of the instance. */
  readonly candidate: Candidate;
  /** Whether the call explores an instance that got none by its expected latency. */
  readonly exploring: boolean;
  readonly #fleet: LeasingFleet;
  readonly #node: Node;
  readonly #startedAt: number;
  readonly #generation: number;
  readonly #probe: Probe | undefined;
  /** Whether it explores an instance whose latest call failed. */
  readonly #suspect: boolean;
  #released = false;

  /** Made by a balancer. */
  constructor(fleet: LeasingFleet, node: Node, now: number, exploring: boolean) {
    this.instance = node.instance;
    this.candidate = node;
    this.exploring = exploring;
    this.#fleet = fleet;
    this.#node = node;
    this.#startedAt = now;
    this.#generation = node.health.generation;
    this.#probe = node.health.begin(now);
    this.#suspect = exploring && node.health.suspect;
    node.begin(fleet.picks);
    fleet.loadChanged(node);
  }

  /** Whether the call decides on the return of an ejected instance. */
  get probe(): boolean {
    return this.#probe !== undefined;
  }

  /**
   * Milliseconds after which the call should be made elsewhere, if it can be: should an instance hang that is not known to be
   * well, it costs no more. Undefined where the call is not there to find out.
   */
  get probeTimeout(): number | undefined {
    return this.probe || this.#suspect ? this.#fleet.probeTimeout : undefined;
  }

  /** All instances that calls go to while they are well. */
  get candidates(): readonly Candidate[] {
    return this.#fleet.eligible;
  }

  /** Whether a call with these options, which has tried the instance, could go on to one whose latest call did not fail. */
  hasWellOther({ exclude, select }: AcquireOptions): boolean {
    return this.#fleet.hasWell(exclude, select);
  }

  /**
   * The response has begun, and is a success. Its end decides on the health of the instance, which may take long; but a probe
   * has its result.
   */
  responded(latency: number = performance.now() - this.#startedAt): void {
    if (this.#released || this.#probe === undefined || this.#generation !== this.#node.health.generation)
      return;
    this.#fleet.succeeded(this.#node, latency, performance.now(), false);
  }

  /**
   * Gives the place back and tells how the call ended; only the first time counts.
   *
   * @throws RangeError if the latency is not a number of at least 0.
   */
  release(result: CallResult = {}): ReleaseOutcome {
    if (result.latency !== undefined) number(0)(result.latency, 'the latency of a call');
    if (this.#released) return 'released';
    this.#released = true;
    const node = this.#node;
    const fleet = this.#fleet;
    const now = performance.now();
    node.end();
    if (this.#probe !== undefined) node.health.abandon(this.#probe);
    fleet.loadChanged(node);
    const latency = result.latency ?? now - this.#startedAt;
    const outdated = this.#generation !== node.health.generation;
    if (result.cancelled) {
      node.recordCancelled(latency, now, this.exploring);
      const failed = (this.probe || result.error !== undefined) && latency >= fleet.overdue;
      if (failed && !outdated) fleet.failed(node, latency, now, this.probe, result.error);
    }
    if (result.cancelled || result.inconclusive) return 'inconclusive';
    if (outdated) return 'outdated';
    if (result.error === undefined) fleet.succeeded(node, latency, now, this.exploring);
    else fleet.failed(node, latency, now, this.probe, result.error);
    fleet.passed(now);
    return 'recorded';
  }

  /**
   * Whether every instance that calls go to is ejected because its calls failed one after the other. Those that
   * were ejected beside the others, as for being slow, still respond; so may one that was not tried again for long.
   */
  get serviceDown(): boolean {
    return this.#fleet.down;
  }
}
