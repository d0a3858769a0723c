import type { Member } from './member.ts';
import type { Selector } from './selector.ts';
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
}

/** Which instances are asked for, from one pass to the next until one is found. */
type Pass =
  /** The latest call to it was a success, and this call has not tried it. */
  | 'healthy'
  /** The latest call to it was not a failure, and this call has not tried it. */
  | 'well'
  | 'untried'
  | 'in-rotation'
  /** None is in rotation: the one whose last call began longest ago, rather one that may respond. */
  | 'last-resort';

const FIRST_ATTEMPT: readonly Pass[] = ['in-rotation', 'last-resort'];
const RETRY: readonly Pass[] = ['healthy', 'well', 'untried', 'in-rotation', 'last-resort'];
/** Where none is healthy, a pass that asks for one would have a strategy look at all of them. */
const RETRY_IN_COLD: readonly Pass[] = RETRY.slice(1);
const ONLY_WELL: readonly Pass[] = ['well'];

/** What a pick goes by besides the members themselves. */
export interface PickedFleet {
  /** Whether ejected members like this one get calls as the others do. */
  panics(member: Member): boolean;
  /** The weights of the instances that calls go to, summed up. */
  readonly weight: number;
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
  repeatable = true;
  /** The member that is picked since a call is to explore it. */
  explored: Candidate | undefined = undefined;
  readonly #fleet: PickedFleet;
  #exclude: ReadonlySet<string> | undefined = undefined;
  #passes = FIRST_ATTEMPT;
  #index = 0;
  #pass: Pass = 'in-rotation';
  #lastResort: Candidate | undefined = undefined;

  constructor(fleet: PickedFleet) {
    this.#fleet = fleet;
  }

  /** Begins a pick with its first pass. `forCall` says whether what is picked will be called. */
  begin(now: number, options: AcquireOptions, forCall: boolean): void {
    const { hashKey, exclude, repeatable = true, onlyWell = false } = options;
    const retry = exclude !== undefined && exclude.size > 0;
    this.now = now;
    this.hashKey = hashKey;
    this.#exclude = exclude;
    this.mayProbe = forCall && !retry && !onlyWell;
    this.repeatable = repeatable;
    this.explored = undefined;
    this.#lastResort = undefined;
    if (onlyWell) this.#passes = ONLY_WELL;
    else if (!retry) this.#passes = FIRST_ATTEMPT;
    else this.#passes = this.#fleet.healthy > 0 ? RETRY : RETRY_IN_COLD;
    this.#index = 0;
    this.#pass = this.#passes[0]!;
  }

  /** Goes on to the next pass; false if there is none. */
  next(): boolean {
    this.mayProbe = false;
    this.#lastResort = undefined;
    if (++this.#index >= this.#passes.length) return false;
    this.#pass = this.#passes[this.#index]!;
    return true;
  }

  accepts(candidate: Candidate): boolean {
    const member = candidate as Member;
    switch (this.#pass) {
      case 'in-rotation':
        return !member.ejected || this.#fleet.panics(member);
      case 'healthy':
        return member.health.healthy && this.#isUntried(member);
      case 'well':
        return !member.health.suspect && !member.ejected && this.#isUntried(member);
      case 'untried':
        return (!member.ejected || this.#fleet.panics(member)) && this.#isUntried(member);
      case 'last-resort':
        return this.#lastResort === undefined || candidate === this.#lastResort;
    }
  }

  explores(candidate: Candidate): boolean {
    if (!this.mayProbe) return false;
    const { picks, weight } = this.#fleet;
    if (!(candidate as Member).wantsExploring(this.now, picks, weight, this.repeatable)) return false;
    this.explored = candidate;
    return true;
  }

  /**
   * For a group that has none in rotation: from here on one member alone is accepted, that whose last call began longest
   * ago, so that each gets its turn to be found well. Those that were ejected by comparison come first: they respond.
   */
  resortTo(members: readonly Member[]): void {
    if (this.#pass !== 'last-resort') return;
    this.#lastResort = members.every(({ ejected }) => ejected) ? members.reduce(better) : undefined;
  }

  #isUntried({ instance }: Member): boolean {
    return !this.#exclude?.has(instance.instanceId);
  }
}

/** The better of two members that are ejected. */
function better(one: Member, other: Member): Member {
  if (one.failing !== other.failing) return one.failing ? other : one;
  return other.lastPick < one.lastPick ? other : one;
}
