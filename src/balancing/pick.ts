import { type AcquireOptions, NO_OPTIONS } from './acquire-options.ts';
import type { ClusterHealth } from './cluster-health.ts';
import type { Node } from './node.ts';
import type { Candidate, PickRequest } from './strategy.ts';

// The passes of a pick, each of which accepts other nodes.
// They follow one another until a node is found.
/** The latest call to the node was a success, and this call has made no attempt on it. */
const HEALTHY = 0;
/**
 * The node is not ejected, its latest call was no failure, and this call has made no attempt on it.
 */
const WELL = 1;
/** The node is in rotation, and this call has made no attempt on it. */
const NEW_TO_CALL = 2;
const IN_ROTATION = 3;
/**
 * No node is in rotation: the one whose last call began longest ago, and first one that may
 * respond.
 */
const LAST_RESORT = 4;

/** The pick under way in a cluster. Picking is synchronous, so that one object serves all picks. */
export class Pick implements PickRequest {
  now = 0;
  hashKey: string | undefined = undefined;
  /** The number of picks for calls so far. */
  count = 0;
  /** Whether the call may be a probe, or explore a node that gets no calls. */
  mayProbe = false;
  /** The node that is picked so that the call explores it. */
  explored: Candidate | undefined = undefined;
  readonly #health: ClusterHealth;
  #options = NO_OPTIONS;
  #pass = IN_ROTATION;
  #lastPass = LAST_RESORT;
  #lastResort: Candidate | undefined = undefined;

  constructor(health: ClusterHealth) {
    this.#health = health;
  }

  /** Begins a pick with its first pass. `forCall` says whether the picked node will be called. */
  begin(now: number, options: AcquireOptions, forCall: boolean): void {
    const { exclude, onlyWell, inTurn } = options;
    if (forCall) this.count++;
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
      // If no node is healthy, a pass that asks for one would have a strategy look at all of them.
      this.#pass = this.#health.healthyCount > 0 ? HEALTHY : WELL;
    } else {
      this.mayProbe = forCall;
      this.#pass = IN_ROTATION;
    }
  }

  /** Drops the options of the call, which may be large, until the next pick. */
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

  /** Begins the next pass; false if there is none. */
  next(): boolean {
    this.mayProbe = false;
    this.#lastResort = undefined;
    return ++this.#pass <= this.#lastPass;
  }

  accepts(candidate: Candidate): boolean {
    const node = candidate as Node;
    switch (this.#pass) {
      case IN_ROTATION:
        return !node.ejected || this.#health.panics(node);
      case HEALTHY:
        return node.health.healthy && this.#isNewToCall(node);
      case WELL:
        return !node.health.suspect && !node.ejected && this.#isNewToCall(node);
      case NEW_TO_CALL:
        return (!node.ejected || this.#health.panics(node)) && this.#isNewToCall(node);
      default:
        return this.#lastResort === undefined || candidate === this.#lastResort;
    }
  }

  explores(candidate: Candidate): boolean {
    if (!this.mayProbe) return false;
    const { weight, minMissedPicks } = this.#health;
    // Most nodes are asked too early, and this comparison alone shows it.
    if (this.count - (candidate as Node).lastPick < minMissedPicks) return false;
    if (!(candidate as Node).wantsExploring(this.now, this.count, weight, this.repeatable)) return false;
    this.explored = candidate;
    return true;
  }

  /**
   * In the last pass, accepts one node alone from here on: the one whose last call began longest
   * ago, so that each gets its turn to be found well. It is for a group without a node in rotation,
   * where nodes that were ejected by comparison come first, since they respond; and for a call that
   * takes the nodes in turn.
   */
  resortTo(nodes: readonly Node[]): void {
    if (this.#pass !== LAST_RESORT) return;
    if (this.inTurn) this.#lastResort = this.#firstInTurn(nodes);
    else this.#lastResort = nodes.every(({ ejected }) => ejected) ? nodes.reduce(better) : undefined;
  }

  #firstInTurn(nodes: readonly Node[]): Node {
    const free = nodes.filter(({ health }) => !health.isProbing(this.now));
    return (free.length > 0 ? free : nodes).reduce(earlier);
  }

  #isNewToCall({ instance }: Node): boolean {
    return !this.#options.exclude?.has(instance.instanceId);
  }
}

/** The better of two nodes that are ejected. */
function better(one: Node, other: Node): Node {
  if (one.failing !== other.failing) return one.failing ? other : one;
  return earlier(one, other);
}

/** The node whose last call began longest ago. */
function earlier(one: Node, other: Node): Node {
  return other.lastPick < one.lastPick ? other : one;
}
