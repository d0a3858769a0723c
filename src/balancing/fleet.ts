import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import { number } from '../internal/validate.ts';
import { UsualLatency } from './latency.ts';
import { Member } from './member.ts';
import { type EjectionReason, type OutlierDetection, outliersAmong } from './outlier-detection.ts';
import { Levels, panickingLevels } from './priorities.ts';
import { type Health, type Route, type RoutingRules, routeBy, usedAmong } from './routing.ts';
import { Selections } from './selections.ts';
import { matches, type Selector } from './selector.ts';
import { type SlowStart, WarmUp } from './slow-start.ts';
import type { Candidate, Picker, PickRequest } from './strategy.ts';

/** Why and for how long an instance is passed over. */
export interface Ejection {
  /** Milliseconds. */
  duration: number;
  /** How many ejections it has behind it, those that it was well for long enough to be forgiven left out. */
  ejections: number;
  /** The rule that ejected it; `probe` if it was ejected before and the call that was to bring it back failed. */
  reason: EjectionReason;
  /** How the last call failed; undefined where the rule compares instances over an interval. */
  error: unknown;
}

/** What a fleet tells about its instances. */
export interface FleetObserver {
  joined(candidate: Candidate): void;
  left(candidate: Candidate): void;
  ejected(candidate: Candidate, ejection: Ejection): void;
  returned(candidate: Candidate): void;
}

/** How a balancer chooses and judges, the same for each of its fleets. */
export interface FleetRules extends RoutingRules {
  readonly outlierDetection: OutlierDetection;
  readonly slowStart: SlowStart | undefined;
  /** What is selected where a call does not say. */
  readonly select?: Selector | undefined;
  /** What a selector that matches no instance stands for. Default `none`. */
  readonly selectFallback?: 'none' | 'any' | undefined;
}

/** How a call on a lease ended. With none of the fields: well. */
export interface CallResult {
  /** What went wrong on the side of the instance. Leave it out for an answer that blames the caller (4xx). */
  error?: unknown;
  /** Milliseconds. Default: since the lease was acquired. */
  latency?: number;
  /** The caller gave up: all that is learned of the instance is that it would have taken longer still. */
  cancelled?: boolean;
}

/** A place on an instance, held while a call is under way. */
export class Lease {
  readonly instance: ServiceInstance;
  /** What the balancer knows of the instance. */
  readonly candidate: Candidate;
  readonly #fleet: Fleet;
  readonly #member: Member;
  readonly #startedAt: number;
  readonly #era: number;
  readonly #probe: boolean;
  #released = false;

  constructor(fleet: Fleet, member: Member, now: number) {
    this.instance = member.instance;
    this.candidate = member;
    this.#fleet = fleet;
    this.#member = member;
    this.#startedAt = now;
    this.#era = member.era;
    this.#probe = member.begin(now);
    fleet.loadChanged(member);
  }

  /**
   * Gives the place back and tells how the call ended; only the first time counts.
   *
   * @returns whether the result says something about the service as a whole. It does not if the instance
   * is ejected, alone among others that are well: that is then known, and no reason to stop calling them.
   * Nor does a call that began before its instance was ejected, or left, however many such there are.
   * @throws RangeError if the latency is not a number of at least 0.
   */
  release(result: CallResult = {}): boolean {
    if (result.latency !== undefined) number(0)(result.latency, 'the latency of a call');
    if (this.#released) return false;
    this.#released = true;
    const member = this.#member;
    member.end(this.#probe, this.#startedAt);
    this.#fleet.loadChanged(member);
    const now = performance.now();
    const latency = result.latency ?? now - this.#startedAt;
    if (result.cancelled) member.giveUp(latency, now);
    if (result.cancelled || this.#era !== member.era) return false;
    const aboutService = !member.ejected || this.#fleet.panics(member);
    if (result.error === undefined) this.#fleet.succeeded(member, latency, now);
    else this.#fleet.failed(member, latency, now, this.#probe, result.error);
    this.#fleet.passed(now);
    return aboutService;
  }

  /**
   * Whether every instance that calls go to is ejected because its calls failed one after the other. Those that
   * were ejected beside the others, as for being slow, still answer; so may one that was not tried again for long.
   */
  get serviceDown(): boolean {
    return this.#fleet.down;
  }
}

/** The instances of one service, and the choice among them. */
export class Fleet implements PickRequest, Health {
  readonly #rules: FleetRules;
  readonly #observer: FleetObserver;
  readonly #usualLatency = new UsualLatency();
  #members = new Map<string, Member>();
  /**
   * Those that calls go to which select nothing themselves: the `select` and the subset of the balancer, without the
   * unhealthy ones and those without weight while there are others.
   */
  #eligible: readonly Member[] = [];
  // Of the eligible ones, kept as they change, so that no pick has to count.
  #ejected = 0;
  #failing = 0;
  #intervalEnds: number;
  changes = 0;
  // Where there are priorities, each level panics for itself.
  #levels: Levels<Member> | undefined = undefined;
  #panicking: ReadonlySet<Member> | undefined = undefined;
  readonly #route: Route;
  #picker: Picker | undefined;
  #selections: Selections | undefined = undefined;
  // The pick under way: picking is synchronous, so that one set of fields serves all.
  now = 0;
  hashKey: string | undefined = undefined;
  #exclude: ReadonlySet<string> | undefined = undefined;
  #strictness: 'untried' | 'available' | 'any' = 'any';

  constructor(rules: FleetRules, observer: FleetObserver) {
    this.#rules = rules;
    this.#observer = observer;
    this.#route = routeBy(rules, this);
    this.#intervalEnds = performance.now() + rules.outlierDetection.interval;
  }

  /** Whether so many are ejected that passing them over would do more harm than good. */
  get panicking(): boolean {
    return this.#ejected > this.#rules.outlierDetection.panicThreshold * this.#eligible.length;
  }

  panics(member: Member): boolean {
    return this.#panicking === undefined ? this.panicking : this.#panicking.has(member);
  }

  /**
   * Whether all have failed as many calls in a row as the rules say, the last ones that they got. One that got none
   * for long after the time of its ejection, as it is of a level held in reserve, may be well again.
   */
  get down(): boolean {
    if (this.#failing === 0 || this.#failing !== this.#eligible.length) return false;
    const recently = performance.now() - this.#rules.outlierDetection.interval;
    return this.#eligible.every(({ ejectedUntil }) => ejectedUntil > recently);
  }

  /** How many are registered. */
  get size(): number {
    return this.#members.size;
  }

  /** Takes in who is there now, and keeps what is known of those who stay. */
  update(instances: readonly ServiceInstance[]): void {
    const before = this.#members;
    const after = new Map<string, Member>();
    for (const instance of instances) {
      const key = `${instance.instanceId} ${originOf(instance)}`;
      const member = before.get(key) ?? new Member(instance, this.#usualLatency);
      member.instance = instance;
      after.set(key, member);
    }
    this.#members = after;
    const registered = this.#registered();
    this.#makeEligible(this.#usedAmong(registered), registered);
    this.#picker = this.#eligible.length === 0 ? undefined : this.#route(this.#eligible, registered);
    this.#selections = undefined;
    for (const [key, member] of after) if (!before.has(key)) this.#observer.joined(member);
    for (const [key, member] of before) {
      if (after.has(key)) continue;
      member.leave();
      this.#observer.left(member);
    }
  }

  /** An instance that is well and not excluded; failing that, one that is well; failing that, any. */
  pick(
    hashKey: string | undefined,
    exclude: ReadonlySet<string> | undefined,
    select?: Selector,
  ): Member | undefined {
    const picker = select === undefined ? this.#picker : this.#pickerFor(select);
    if (picker === undefined) return undefined;
    this.now = performance.now();
    this.hashKey = hashKey;
    this.#exclude = exclude;
    this.#strictness = 'untried';
    let picked = picker(this);
    if (picked === undefined) {
      this.#strictness = 'available';
      picked = picker(this);
    }
    if (picked === undefined) {
      this.#strictness = 'any';
      picked = picker(this);
    }
    return picked as Member | undefined;
  }

  lease(
    hashKey: string | undefined,
    exclude: ReadonlySet<string> | undefined,
    select?: Selector,
  ): Lease | undefined {
    const member = this.pick(hashKey, exclude, select);
    return member && new Lease(this, member, this.now);
  }

  accepts(candidate: Candidate): boolean {
    const member = candidate as Member;
    if (this.#strictness === 'any') return true;
    if (member.ejected && !this.panics(member) && !member.availableAt(this.now)) return false;
    return this.#strictness === 'available' || !this.#exclude?.has(member.instance.instanceId);
  }

  /** To be called after every begin and end of a call. */
  loadChanged(member: Member): void {
    this.#picker?.loadChanged?.(member);
    this.#selections?.loadChanged(member);
  }

  succeeded(member: Member, latency: number, now: number): void {
    this.#usualLatency.observe(latency);
    if (this.#rules.outlierDetection.latency) member.conduct.took(latency);
    const { ejected, failing } = member;
    if (!member.succeed(latency, now)) return;
    this.#count(member, ejected, failing);
    this.#warmUp(member, now);
    this.#observer.returned(member);
  }

  failed(member: Member, latency: number, now: number, probe: boolean, error: unknown): void {
    if (!member.fail(latency, now, probe, this.#rules.outlierDetection)) return;
    this.#eject(member, now, probe ? 'probe' : 'consecutive-failures', error);
  }

  /** A call has passed: the first one after the end of an interval has the interval judged, which takes no timer. */
  passed(now: number): void {
    if (now >= this.#intervalEnds) this.#judge(now);
  }

  /** If no call came for long, what the interval holds says nothing of now. */
  #judge(now: number): void {
    const { outlierDetection } = this.#rules;
    const recent = now < this.#intervalEnds + outlierDetection.interval;
    this.#intervalEnds = now + outlierDetection.interval;
    const found = recent ? outliersAmong(this.#eligible, outlierDetection) : [];
    for (const member of this.#members.values()) member.conduct.reset();
    for (const { outlier, reason } of found) {
      if (this.#ejected >= outlierDetection.maxEjectionRatio * this.#eligible.length) return;
      if (outlier.eligible && !outlier.ejected) this.#eject(outlier, now, reason, undefined);
    }
  }

  #eject(member: Member, now: number, reason: EjectionReason, error: unknown): void {
    const { ejected, failing } = member;
    const duration = member.eject(now, this.#rules.outlierDetection, this.#rules.random);
    this.#count(member, ejected, failing);
    this.#observer.ejected(member, { duration, ejections: member.ejections, reason, error });
  }

  /** Takes in that a member has been ejected or has come back. */
  #count(member: Member, wasEjected: boolean, wasFailing: boolean): void {
    if (member.eligible) {
      this.#ejected += Number(member.ejected) - Number(wasEjected);
      this.#failing += Number(member.failing) - Number(wasFailing);
    }
    this.#healthChanged();
  }

  /** Those that come to where others already bear the load take it over bit by bit. */
  #makeEligible(members: readonly Member[], registered: readonly Member[]): void {
    const before = this.#eligible;
    const now = performance.now();
    if (before.length > 0) for (const member of members) if (!member.eligible) this.#warmUp(member, now);
    for (const member of before) member.eligible = false;
    for (const member of members) member.eligible = true;
    this.#eligible = members;
    this.#ejected = members.filter(({ ejected }) => ejected).length;
    this.#failing = members.filter(({ failing }) => failing).length;
    const { priorityOf } = this.#rules;
    if (priorityOf !== undefined) this.#levels = new Levels(members, registered, priorityOf);
    this.#healthChanged();
  }

  #healthChanged(): void {
    this.changes++;
    if (this.#levels === undefined) return;
    const available = this.#levels.available(({ ejected }) => !ejected);
    const panics = panickingLevels(available, this.#rules.outlierDetection.panicThreshold);
    this.#panicking = new Set(this.#levels.members.filter((_, level) => panics[level]).flat());
  }

  #pickerFor(select: Selector): Picker {
    this.#selections ??= new Selections((selector) => this.#pickerOf(selector));
    return this.#selections.pickerFor(select);
  }

  /** Selectors that match nothing and stand for any instance share one picker, however many they are. */
  #pickerOf(selector: Selector): Picker {
    const selected = this.#selected(selector);
    if (selected.length === 0) return this.#fallsBack ? this.#pickerFor({}) : () => undefined;
    const registered = weightedAmong(selected);
    return this.#route(this.#usedAmong(registered), registered);
  }

  /** Those that are selected where a call does not say, and have weight, the unhealthy ones included. */
  #registered(): Member[] {
    const selected = this.#selected(this.#rules.select ?? {});
    return weightedAmong(selected.length === 0 && this.#fallsBack ? this.#selected({}) : selected);
  }

  #selected(selector: Selector): Member[] {
    return [...this.#members.values()].filter(({ instance }) => matches(selector, instance));
  }

  /** Whether there is anything that a selector which matches nothing may stand for, and it may. */
  get #fallsBack(): boolean {
    return this.#rules.selectFallback === 'any' && this.#members.size > 0;
  }

  #usedAmong(registered: Member[]): readonly Member[] {
    return usedAmong(healthyAmong(registered), this.#rules);
  }

  #warmUp(member: Member, now: number): void {
    const { slowStart } = this.#rules;
    if (slowStart) member.warmUp = new WarmUp(slowStart, now, this);
  }
}

/** Those that have weight; failing that all. */
function weightedAmong(members: Member[]): Member[] {
  const weighted = members.filter(({ instance }) => instance.weight > 0);
  return weighted.length > 0 ? weighted : members;
}

/** Those that are healthy; failing that all. */
function healthyAmong(members: Member[]): Member[] {
  const healthy = members.filter(({ instance }) => instance.status !== 'unhealthy');
  return healthy.length > 0 ? healthy : members;
}
