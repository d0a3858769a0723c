import type { ServiceDiscovery, Unsubscribe } from '../discovery/service-discovery.ts';
import { isName, type ServiceInstance, toInstance } from '../discovery/service-instance.ts';
import { ClosedError, NoInstanceError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter, emitWarning } from '../internal/emitter.ts';
import {
  any,
  boolean,
  either,
  hasMethods,
  isFunction,
  oneOf,
  ratio,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type Ejection, Fleet, type FleetObserver, type FleetRules, type Renewal } from './fleet.ts';
import { UsualLatency } from './latency.ts';
import type { Lease } from './lease.ts';
import { Member } from './member.ts';
import { type OutlierDetectionOptions, outlierDetection } from './outlier-detection.ts';
import { type AcquireOptions, checkAcquireOptions, NO_OPTIONS } from './pick.ts';
import { priorityByMetadata, safely } from './priorities.ts';
import type { CanaryOptions } from './routing.ts';
import { checkSelector, type Selector } from './selector.ts';
import { type SlowStartOptions, slowStart } from './slow-start.ts';
import { consistentHash } from './strategies/consistent-hash.ts';
import { leastConnections } from './strategies/least-connections.ts';
import { peakEwma } from './strategies/peak-ewma.ts';
import { powerOfTwo } from './strategies/power-of-two.ts';
import { random } from './strategies/random.ts';
import { roundRobin } from './strategies/round-robin.ts';
import { weightedRoundRobin } from './strategies/weighted-round-robin.ts';
import type { BalancingStrategy, Candidate, Picker } from './strategy.ts';
import { type SubsetOptions, subsetting } from './subsetting.ts';
import { type ZoneOptions, zoneOptions } from './zones.ts';

/** Services without instances that are remembered at most: names may come from requests. */
const MAX_VACANT = 500;
/** Milliseconds after which a service without instances that nobody asks for is forgotten. */
const IDLE = 600_000;

const STRATEGIES = {
  'round-robin': roundRobin,
  random,
  'least-connections': leastConnections,
  'power-of-two': powerOfTwo,
  'peak-ewma': peakEwma,
  'weighted-round-robin': weightedRoundRobin(),
  'consistent-hash': consistentHash(),
} satisfies Record<string, BalancingStrategy>;

const STRATEGY_NAMES = Object.keys(STRATEGIES).join(', ');

export type StrategyName = keyof typeof STRATEGIES;

export interface LoadBalancerOptions {
  /** Who is out there. */
  discovery: ServiceDiscovery;
  /** How to choose. Default `peak-ewma`. */
  strategy?: StrategyName | BalancingStrategy;
  /** When an instance that fails, or does worse than the others, is passed over; false for never. */
  outlierDetection?: OutlierDetectionOptions | false;
  /**
   * Lets an instance that joins others, or is back from an ejection, come to its share of the calls bit by bit;
   * {} for its defaults. Default false: where calls are few it gets none for a while, and Peak EWMA holds back
   * from a cold instance with the first slow answer.
   */
  slowStart?: SlowStartOptions | false;
  /**
   * The zone of this client: calls stay there while its instances need bear no more than those of other zones.
   * With fewer than 6 instances (`minInstances`) zones make no difference.
   */
  zone?: string | ZoneOptions;
  /** Keeps this client to a few of the instances where there are very many. */
  subset?: SubsetOptions;
  /**
   * Calls go to the instances of the lowest number while enough of them are well, and then over to the next;
   * true for the number in `metadata.priority`. What says no number, or throws, is 0. Default false.
   */
  priorities?: boolean | ((instance: ServiceInstance) => number);
  /** Sends a share of the calls to the instances with some metadata, and the rest to the others. */
  canary?: CanaryOptions;
  /** Only the instances with this metadata are called, where a call does not say. */
  select?: Selector;
  /** Whether a selector that matches no instance stands for `any` of them, or for `none`. Default `none`. */
  selectFallback?: 'none' | 'any';
  /** Source of all chance, 0 to 1. Default `Math.random`. */
  random?: () => number;
}

export interface LoadBalancerEvents {
  join: [event: { instance: ServiceInstance; candidate: Candidate }];
  /**
   * What the discovery says of an instance makes it likely to be well: another process has `restarted` in its place (its
   * `registeredAt` changed), or its status turned `healthy`. If it is ejected, a call may probe it at once.
   */
  renew: [event: { instance: ServiceInstance; candidate: Candidate; reason: Renewal }];
  leave: [event: { instance: ServiceInstance; candidate: Candidate }];
  /** Passed over from now on. */
  eject: [event: { instance: ServiceInstance } & Ejection];
  /** Ejected before, and well again. */
  return: [event: { instance: ServiceInstance }];
}

/**
 * Chooses which instance of a service to call. Of the services that have no instances it follows the 500 that were asked
 * for last, each for ten minutes after that, since names may come from requests. It keeps the instances of each service that it was asked for
 * in memory, told of changes by the discovery, so that a choice waits for nothing but the first resolution.
 *
 * An instance that fails several times in a row, or far more often than the others, is ejected for a while, alone, and comes
 * back through a probe, which is a call that a first attempt makes. While one instance is well, the ejected ones get no other.
 *
 * @example
 * const lease = await balancer.acquire('user-service');
 * try {
 *   await callIt(lease.instance);
 *   lease.release();
 * } catch (error) {
 *   lease.release({ error });
 *   throw error;
 * }
 */
export class LoadBalancer extends Emitter<LoadBalancerEvents> {
  readonly #discovery: ServiceDiscovery;
  readonly #rules: FleetRules;
  readonly #services = new Map<string, Fleet>();
  readonly #watches = new Map<Fleet, Unsubscribe>();
  readonly #resolving = new Map<string, Promise<Fleet>>();
  /** Services without instances, by `performance.now()` when they were last asked for; the earliest first. */
  readonly #vacant = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #closed = false;
  /** What a function of the options gave that makes no sense. It is thrown with every choice from then on. */
  #fault: unknown = undefined;

  constructor(options: LoadBalancerOptions) {
    super('load-balancer');
    validateOptions('LoadBalancer', options, {
      discovery: hasMethods('instances', 'watch'),
      strategy: either(
        `${STRATEGY_NAMES} or a strategy function`,
        oneOf(...Object.keys(STRATEGIES)),
        isFunction,
      ),
      outlierDetection: any,
      slowStart: any,
      zone: any,
      subset: any,
      priorities: either('true, false or a function', boolean, isFunction),
      canary: any,
      select: checkSelector,
      selectFallback: oneOf('none', 'any'),
      random: isFunction,
    });
    requireOption('LoadBalancer', options, 'discovery');
    const { strategy = 'peak-ewma', zone, subset, select } = options;
    this.#discovery = options.discovery;
    this.#rules = {
      strategy: typeof strategy === 'function' ? checkedStrategy(strategy) : STRATEGIES[strategy],
      outlierDetection: outlierDetection(options.outlierDetection),
      slowStart: slowStart(options.slowStart),
      zone: zone === undefined ? undefined : zoneOptions(zone),
      subset: subset === undefined ? undefined : subsetting(subset),
      priorityOf: this.#priorityOf(options.priorities),
      canary: canary(options.canary),
      select: select && { ...select },
      selectFallback: options.selectFallback,
      random: options.random === undefined ? Math.random : this.#checkedRandom(options.random),
    };
  }

  /**
   * A place on an instance; release it when the call is over.
   *
   * @throws NoInstanceError if none is registered, with the discovery's error as its cause if that failed, and
   * one that names the selector if there are instances but it matches none; TypeError naming the option that makes no sense.
   */
  async acquire(serviceName: string, options: AcquireOptions = NO_OPTIONS): Promise<Lease> {
    checkAcquireOptions('acquire()', options);
    const fleet = await this.#fleetOf(serviceName);
    const lease = this.#lease(fleet, options);
    if (lease !== undefined) return lease;
    this.#refresh(serviceName);
    const selector = options.select ?? this.#rules.select;
    if (fleet.registered === 0 || selector === undefined) throw new NoInstanceError(serviceName);
    const shown = JSON.stringify(selector).slice(0, 200);
    const cause = new Error(`of ${fleet.registered} instances none matches ${shown}`);
    throw new NoInstanceError(serviceName, { cause });
  }

  /** As `acquire`, at once; undefined if there is no instance or the service has not been resolved yet. */
  tryAcquire(serviceName: string, options: AcquireOptions = NO_OPTIONS): Lease | undefined {
    checkAcquireOptions('tryAcquire()', options);
    const fleet = this.#services.get(serviceName);
    return fleet && this.#lease(fleet, options);
  }

  /** A pick without tracking, or undefined if there is no instance. */
  async getInstance(
    serviceName: string,
    options: AcquireOptions = NO_OPTIONS,
  ): Promise<ServiceInstance | undefined> {
    checkAcquireOptions('getInstance()', options);
    const picked = (await this.#fleetOf(serviceName)).pick(options);
    if (this.#fault !== undefined) throw this.#fault;
    return picked?.instance;
  }

  #lease(fleet: Fleet, options: AcquireOptions): Lease | undefined {
    const lease = fleet.lease(options);
    if (this.#fault === undefined) return lease;
    lease?.release({ inconclusive: true });
    throw this.#fault;
  }

  /**
   * Lets every ejected instance of a service be probed by the next calls, without further waiting: for who learns that the
   * service is likely to be well again. A ServiceClient does so when the circuit breaker of the service closes.
   */
  allowProbes(serviceName: string): void {
    this.#services.get(serviceName)?.allowProbes();
  }

  /** Whether the service is known without a lookup: instances of it are in memory here, or the discovery knows it. */
  knows(serviceName: string): boolean {
    if ((this.#services.get(serviceName)?.registered ?? 0) > 0) return true;
    return this.#ask('knows', () => this.#discovery.knows?.(serviceName)) === true;
  }

  /** Stops watching the discovery, which stays open: it is its owner's. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const unwatch of this.#watches.values()) unwatch();
    this.#watches.clear();
    this.#services.clear();
    this.#vacant.clear();
  }

  async #fleetOf(serviceName: string): Promise<Fleet> {
    if (this.#closed) throw new ClosedError('the LoadBalancer');
    const known = this.#services.get(serviceName);
    if (known !== undefined) {
      if (known.registered === 0) this.#keepVacant(serviceName);
      return known;
    }
    if (!isName(serviceName)) throw new NoInstanceError(serviceName);
    let resolving = this.#resolving.get(serviceName);
    if (resolving === undefined) {
      resolving = this.#resolve(serviceName).finally(() => this.#resolving.delete(serviceName));
      this.#resolving.set(serviceName, resolving);
    }
    return resolving;
  }

  /** With as many resolutions under way as may be, a name that nobody has registered is not watched at all. */
  async #resolve(serviceName: string): Promise<Fleet> {
    if (!this.#makeRoom() && (await this.#read(serviceName)).length === 0) {
      throw new NoInstanceError(serviceName);
    }
    return this.#watch(serviceName);
  }

  async #read(serviceName: string): Promise<readonly ServiceInstance[]> {
    try {
      return await this.#discovery.instances(serviceName);
    } catch (error) {
      throw new NoInstanceError(serviceName, { cause: error });
    }
  }

  /** Watches before it reads, so that no change falls between the two; what was pushed is newer than the read. */
  async #watch(serviceName: string): Promise<Fleet> {
    const fleet = new Fleet(this.#rules, this.#observerOf(serviceName));
    let pushed = false;
    let unwatch: Unsubscribe | undefined;
    try {
      unwatch = this.#discovery.watch(serviceName, (instances) => {
        pushed = true;
        fleet.update(instances);
        if (this.#services.get(serviceName) === fleet) this.#noteVacancy(serviceName, fleet);
      });
      this.#watches.set(fleet, unwatch);
      const instances = await this.#discovery.instances(serviceName);
      if (!pushed) fleet.update(instances);
    } catch (error) {
      if (!pushed) {
        unwatch?.();
        this.#watches.delete(fleet);
        throw new NoInstanceError(serviceName, { cause: error });
      }
    }
    if (this.#closed) throw new ClosedError('the LoadBalancer');
    this.#services.set(serviceName, fleet);
    this.#noteVacancy(serviceName, fleet);
    return fleet;
  }

  #noteVacancy(serviceName: string, fleet: Fleet): void {
    if (fleet.registered === 0) {
      this.#keepVacant(serviceName);
      return;
    }
    this.#vacant.delete(serviceName);
    if (this.#vacant.size > 0) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #keepVacant(serviceName: string): void {
    this.#vacant.delete(serviceName);
    this.#vacant.set(serviceName, performance.now());
    this.#timer ??= setTimeout(() => this.#forgetIdle(), IDLE).unref();
  }

  /** Forgets services without instances, those asked for last the last; false if there is no room for another one. */
  #makeRoom(): boolean {
    for (const serviceName of this.#vacant.keys()) {
      if (this.#vacant.size + this.#resolving.size < MAX_VACANT) break;
      this.#forget(serviceName);
    }
    return this.#vacant.size + this.#resolving.size < MAX_VACANT;
  }

  #forgetIdle(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const [serviceName, askedAt] of this.#vacant) {
      const left = askedAt + IDLE - now;
      if (left > 0) {
        this.#timer = setTimeout(() => this.#forgetIdle(), Math.ceil(left)).unref();
        return;
      }
      this.#forget(serviceName);
    }
  }

  #forget(serviceName: string): void {
    const fleet = this.#services.get(serviceName)!;
    this.#vacant.delete(serviceName);
    this.#services.delete(serviceName);
    this.#watches.get(fleet)?.();
    this.#watches.delete(fleet);
  }

  #observerOf(serviceName: string): FleetObserver {
    return {
      joined: (candidate) => this.emit('join', { instance: candidate.instance, candidate }),
      renewed: (candidate, reason) => this.emit('renew', { instance: candidate.instance, candidate, reason }),
      left: (candidate) => this.emit('leave', { instance: candidate.instance, candidate }),
      ejected: ({ instance }, ejection) => this.emit('eject', { instance, ...ejection }),
      returned: ({ instance }) => this.emit('return', { instance }),
      gotNoResponse: () => this.#refresh(serviceName),
    };
  }

  /**
   * What a function of the options decided. A promise is kept to be thrown by the next choice, since not all that asks can
   * fail: an update of the instances, or the end of a call.
   */
  #decided<T>(value: T, option: string, otherwise: T): T {
    try {
      return decided(value, `LoadBalancer option '${option}'`);
    } catch (error) {
      this.#fault = error;
      return otherwise;
    }
  }

  #checkedRandom(random: () => number): () => number {
    return () => this.#decided(random(), 'random', 0);
  }

  #priorityOf(priorities: LoadBalancerOptions['priorities']) {
    if (priorities === undefined || priorities === false) return undefined;
    if (priorities === true) return safely(priorityByMetadata);
    return safely((instance) => this.#decided(priorities(instance), 'priorities', 0));
  }

  /** Lets the discovery look again, as often as it sees fit. */
  #refresh(serviceName: string): void {
    if (!this.#closed) this.#ask('refresh', () => this.#discovery.refresh?.(serviceName));
  }

  /** Calls a method of the discovery that must not throw; undefined if it does. */
  #ask(method: string, call: () => unknown): unknown {
    const report = (error: unknown) =>
      emitWarning(error, `The ${method}() of a discovery threw, which it must not.`);
    try {
      const result = call();
      if (result instanceof Promise) result.catch(report);
      return result;
    } catch (error) {
      report(error);
      return undefined;
    }
  }
}

/** A strategy of the user's, whose every picker is checked. */
function checkedStrategy(strategy: BalancingStrategy): BalancingStrategy {
  checkStrategy(strategy);
  return (candidates, context) => {
    const picker = strategy(candidates, context);
    try {
      return checkPicker(picker);
    } catch (error) {
      // Each choice among these instances fails; those of other services do not.
      return () => {
        throw error;
      };
    }
  };
}

/** Has the strategy make a picker of a sample: what it throws may lie in that, but what it gives has to be a picker. */
function checkStrategy(strategy: BalancingStrategy): void {
  const sample = new Member(
    toInstance({ serviceName: 'sample', host: 'localhost', port: 1 }),
    new UsualLatency(),
  );
  let picker: Picker;
  try {
    picker = strategy([sample], { random: () => 0 });
  } catch {
    return;
  }
  checkPicker(picker);
}

function checkPicker(picker: Picker): Picker {
  const option = "LoadBalancer option 'strategy'";
  if (typeof decided(picker, option) === 'function') return picker;
  throw new TypeError(
    `${option} must be ${STRATEGY_NAMES} or a function that makes a picker, (request) => candidate, of candidates; it gave a value of type ${typeof picker}`,
  );
}

function canary(options: CanaryOptions | undefined): CanaryOptions | undefined {
  if (options === undefined) return undefined;
  const owner = 'LoadBalancer canary';
  validateOptions(owner, options, { select: checkSelector, share: ratio });
  requireOption(owner, options, 'select');
  requireOption(owner, options, 'share');
  return { select: { ...options.select }, share: options.share };
}
