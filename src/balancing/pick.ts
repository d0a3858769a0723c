import { boolean, type Check, hasMethods, matching, validateOptions } from '../internal/validate.ts';
import type { Member } from './member.ts';
import { checkSelector, type Selector } from './selector.ts';
import type { Candidate, PickRequest } from './strategy.ts';

export interface AcquireOptions {
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  hashKey?: string | undefined;
  /**
   * Ids of instances to avoid while there are others: those that the same call has tried. With any of them the call is a
   * retry, which finds nothing out of other instances.
   */
  exclude?: ReadonlySet<string> | undefined;
  /** Only instances with this metadata: `{ version: '2' }`. Default: the `select` of the balancer. */
  select?: Selector | undefined;
  /**
   * Whether the call can be made again on another instance, should this one fail. First attempts of such calls find out
   * whether an ejected instance is well again; others do so if there is no such call for a while. Default true.
   */
  repeatable?: boolean | undefined;
  /** Only an instance that is neither ejected, nor has failed its latest call, nor is in `exclude`. Default false. */
  onlyWell?: boolean | undefined;
  /**
   * The instance whose last call began longest ago, ejected or not, in place of the strategy's choice: for a call that is to
   * find out whether the service is well again, so that none waits for ever. One with a probe under way comes last. Default
   * false.
   */
  inTurn?: boolean | undefined;
}

export const NO_OPTIONS: AcquireOptions = {};

const CHECKS: Readonly<Record<keyof AcquireOptions, Check>> = {
  hashKey: matching(/^/, 'a string'),
  exclude: hasMethods('has'),
  select: checkSelector,
  repeatable: boolean,
  onlyWell: boolean,
  inTurn: boolean,
};

/**
 * Checks the options that a caller has written for `method`. Each choice of an instance asks for it: what makes sense is not
 * looked up in the table. The state of a client's call, which is no plain object and always has `exclude`, holds more, and
 * was checked.
 *
 * @throws TypeError naming the option that is not what it must be, or that there is not.
 */
export function checkAcquireOptions(method: string, options: AcquireOptions): void {
  if (options === NO_OPTIONS || areSound(options)) return;
  validateOptions(`${method} of LoadBalancer`, options, CHECKS);
}

function areSound(options: AcquireOptions): boolean {
  if (typeof options !== 'object' || options === null) return false;
  if (Object.getPrototypeOf(options) !== Object.prototype) return 'exclude' in options;
  for (const name in options) if (name !== 'hashKey') return false;
  const { hashKey } = options;
  return hashKey === undefined || typeof hashKey === 'string';
}

// Which instances are asked for, from one pass to the next until one is found.
/** The latest call to it was a success, and this call has not tried it. */
const HEALTHY = 0;
/** The latest call to it was not a failure, and this call has not tried it. */
const WELL = 1;
const UNTRIED = 2;
const IN_ROTATION = 3;
/** None is in rotation: the one whose last call began longest ago, rather one that may respond. */
const LAST_RESORT = 4;

/** What a pick goes by besides the members themselves. */
export interface PickedFleet {
  /** Whether ejected members like this one get calls as the others do. */
  panics(member: Member): boolean;
  /** The weights of the instances that calls go to, summed up. */
  readonly weight: number;
  /** Picks that must have passed over any of them, at least, before a call explores it. */
  readonly fewestMissed: number;
  /** How many of them are healthy. */
  readonly healthy: number;
  /** How many picks for calls were made so far. */
  readonly picks: number;
}

/** The pick under way in a fleet. Picking is synchronous, so that one object serves all. */
export class Pick implements PickRequest {
  now = 0;
  hashKey: string | undefined = undefined;
  /** Whether the call may find out of an instance without calls what has become of it. */
  mayProbe = false;
  /** The member that is picked since a call is to explore it. */
  explored: Candidate | undefined = undefined;
  readonly #fleet: PickedFleet;
  #options = NO_OPTIONS;
  #pass = IN_ROTATION;
  #lastPass = LAST_RESORT;
  #lastResort: Candidate | undefined = undefined;

  constructor(fleet: PickedFleet) {
    this.#fleet = fleet;
  }

  /** Begins a pick with its first pass. `forCall` says whether what is picked will be called. */
  begin(now: number, options: AcquireOptions, forCall: boolean): void {
    const { exclude, onlyWell, inTurn } = options;
    this.now = now;
    this.hashKey = options.hashKey;
    this.#options = options;
    this.explored = undefined;
    this.mayProbe = false;
    this.#lastPass = LAST_RESORT;
    if (onlyWell) {
      this.#pass = this.#lastPass = WELL;
    } else if (inTurn) {
      this.#pass = LAST_RESORT;
    } else if (exclude !== undefined && exclude.size > 0) {
      // Where none is healthy, a pass that asks for one would have a strategy look at all of them.
      this.#pass = this.#fleet.healthy > 0 ? HEALTHY : WELL;
    } else {
      this.mayProbe = forCall;
      this.#pass = IN_ROTATION;
    }
  }

  /** Lets go of the call, which may be large, until the next pick. */
  end(): void {
    this.#options = NO_OPTIONS;
    this.#lastResort = undefined;
  }

  get repeatable(): boolean {
    return this.#options.repeatable ?? true;
  }

  get inTurn(): boolean {
    return this.#options.inTurn ?? false;
  }

  /** Goes on to the next pass; false if there is none. */
  next(): boolean {
    this.mayProbe = false;
    this.#lastResort = undefined;
    return ++this.#pass <= this.#lastPass;
  }

  accepts(candidate: Candidate): boolean {
    const member = candidate as Member;
    switch (this.#pass) {
      case IN_ROTATION:
        return !member.ejected || this.#fleet.panics(member);
      case HEALTHY:
        return member.health.healthy && this.#isUntried(member);
      case WELL:
        return !member.health.suspect && !member.ejected && this.#isUntried(member);
      case UNTRIED:
        return (!member.ejected || this.#fleet.panics(member)) && this.#isUntried(member);
      default:
        return this.#lastResort === undefined || candidate === this.#lastResort;
    }
  }

  explores(candidate: Candidate): boolean {
    if (!this.mayProbe) return false;
    const { picks, weight, fewestMissed } = this.#fleet;
    // Most are asked too early, which one look at them tells.
    if (picks - (candidate as Member).lastPick < fewestMissed) return false;
    if (!(candidate as Member).wantsExploring(this.now, picks, weight, this.repeatable)) return false;
    this.explored = candidate;
    return true;
  }

  /**
   * For a group that has none in rotation, or a call that takes them in turn: from here on one member alone is accepted, that
   * whose last call began longest ago, so that each gets its turn to be found well. In the former case those that were
   * ejected by comparison come first: they respond.
   */
  resortTo(members: readonly Member[]): void {
    if (this.#pass !== LAST_RESORT) return;
    if (this.inTurn) this.#lastResort = this.#firstInTurn(members);
    else this.#lastResort = members.every(({ ejected }) => ejected) ? members.reduce(better) : undefined;
  }

  #firstInTurn(members: readonly Member[]): Member {
    const free = members.filter(({ health }) => !health.isProbing(this.now));
    return (free.length > 0 ? free : members).reduce(earlier);
  }

  #isUntried({ instance }: Member): boolean {
    return !this.#options.exclude?.has(instance.instanceId);
  }
}

/** The better of two members that are ejected. */
function better(one: Member, other: Member): Member {
  if (one.failing !== other.failing) return one.failing ? other : one;
  return earlier(one, other);
}

/** The one whose last call began longest ago. */
function earlier(one: Member, other: Member): Member {
  return other.lastPick < one.lastPick ? other : one;
}
