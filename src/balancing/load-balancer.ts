import { isAbsence } from '../discovery/dns-lookup.ts';
import type { ServiceDiscovery, Unsubscribe } from '../discovery/service-discovery.ts';
import { isName, type ServiceInstance } from '../discovery/service-instance.ts';
import { ClosedError, DiscoveryUnavailableError, type HoldfastError, NoInstanceError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter, emitWarning } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { type AcquireOptions, checkAcquireOptions, NO_OPTIONS } from './acquire-options.ts';
import type { BalancerConfig } from './balancer-config.ts';
import { Cluster } from './cluster.ts';
import type { ClusterObserver, Ejection, Renewal } from './cluster-observer.ts';
import type { Lease } from './lease.ts';
import { type LoadBalancerOptions, readLoadBalancerOptions } from './load-balancer-options.ts';
import type { Selector } from './selector.ts';
import type { Candidate } from './strategy.ts';
import { VacantServices } from './vacant-services.ts';

export interface LoadBalancerEvents {
  join: [event: { instance: ServiceInstance; candidate: Candidate }];
  /**
   * The discovery shows that an instance is likely to be well: another process has `restarted` in
   * its place (its `registeredAt` changed), or its status turned `healthy`. If it is ejected, a
   * call may probe it at once.
   */
  renew: [event: { instance: ServiceInstance; candidate: Candidate; reason: Renewal }];
  leave: [event: { instance: ServiceInstance; candidate: Candidate }];
  /** The instance is passed over from now on. */
  eject: [event: { instance: ServiceInstance } & Ejection];
  /** The instance was ejected, and is well again. */
  return: [event: { instance: ServiceInstance }];
}

/** Holds a cluster, or the failure of the lookup; or neither, where there is no instance. */
interface Resolution {
  readonly cluster?: Cluster | undefined;
  readonly failure?: { readonly error: unknown } | undefined;
}

/**
 * Chooses which instance of a service to call. The balancer keeps the instances of each service
 * that it was asked for in memory, and the discovery tells it of changes, so that a pick waits for
 * nothing but the first resolution. Service names may come from requests: of the services without
 * instances it follows the 500 used last, each for ten minutes.
 *
 * An instance that fails several times in a row, or far more often than the others, is ejected for
 * a while, alone, and returns through a probe, which is a call that a first attempt makes. While
 * one instance is well, the ejected ones get no other calls.
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
  readonly #config: BalancerConfig;
  readonly #clusters = new Map<string, Cluster>();
  readonly #watches = new Map<Cluster, Unsubscribe>();
  readonly #resolving = new Map<string, Promise<Resolution>>();
  readonly #vacant: VacantServices;
  #closed = false;
  /**
   * The error of a function of the options that decided nothing. Every pick throws it from then on.
   */
  #fault: unknown = undefined;

  constructor(options: LoadBalancerOptions) {
    super('load-balancer');
    this.#config = readLoadBalancerOptions(options, (value, option, otherwise) =>
      this.#decide(value, option, otherwise),
    );
    this.#vacant = new VacantServices((serviceName) => this.#forget(serviceName), this.#config.clock);
    this.#discovery = options.discovery;
  }

  /**
   * Picks an instance and takes a place on it. Release the lease when the call is over.
   *
   * @throws NoInstanceError if no instance is registered; if there are instances but none matches the
   * selector, the cause names that. DiscoveryUnavailableError if the discovery fails and knows nothing
   * from earlier. TypeError naming an option that has a wrong value.
   */
  async acquire(serviceName: string, options: AcquireOptions = NO_OPTIONS): Promise<Lease> {
    checkAcquireOptions('acquire()', options);
    const cluster = await this.#resolveCluster(serviceName);
    const lease = this.#lease(cluster, options);
    if (lease !== undefined) return lease;
    this.#refresh(serviceName);
    const selector = options.select ?? this.#config.select;
    if (cluster.registered === 0 || selector === undefined) throw new NoInstanceError(serviceName);
    const shown = JSON.stringify(selector).slice(0, 200);
    const cause = new Error(`of ${cluster.registered} instances none matches ${shown}`);
    throw new NoInstanceError(serviceName, { cause });
  }

  /**
   * Acquires at once; undefined if there is no instance, or if the service has not been resolved
   * yet.
   */
  tryAcquire(serviceName: string, options: AcquireOptions = NO_OPTIONS): Lease | undefined {
    checkAcquireOptions('tryAcquire()', options);
    const cluster = this.#clusters.get(serviceName);
    return cluster && this.#lease(cluster, options);
  }

  /** Picks an instance without a lease on it; undefined if there is none. */
  async getInstance(
    serviceName: string,
    options: AcquireOptions = NO_OPTIONS,
  ): Promise<ServiceInstance | undefined> {
    checkAcquireOptions('getInstance()', options);
    const picked = (await this.#resolveCluster(serviceName)).pick(options);
    if (this.#fault !== undefined) throw this.#fault;
    return picked?.instance;
  }

  #lease(cluster: Cluster, options: AcquireOptions): Lease | undefined {
    const lease = cluster.lease(options);
    if (this.#fault === undefined) return lease;
    lease?.release({ inconclusive: true });
    throw this.#fault;
  }

  /**
   * Lets the next calls probe every ejected instance of a service, without further waiting, because
   * the service is likely to be well again. A ServiceClient does so when the circuit breaker of the
   * service closes.
   */
  allowProbes(serviceName: string): void {
    this.#clusters.get(serviceName)?.health.allowProbes();
  }

  /**
   * Whether the service is known without a lookup: the balancer has instances of it, or the
   * discovery knows it.
   */
  knows(serviceName: string): boolean {
    if ((this.#clusters.get(serviceName)?.registered ?? 0) > 0) return true;
    return this.#tryDiscovery('knows', () => this.#discovery.knows?.(serviceName)) === true;
  }

  /**
   * Whether the service has an instance that the selector matches; undefined while the instances are
   * not known. It asks nobody. Give the same object each time, since what was found is kept for it.
   */
  hasInstance(serviceName: string, selector: Selector): boolean | undefined {
    return this.#clusters.get(serviceName)?.has(selector);
  }

  /** Stops watching the discovery. The discovery stays open, since it belongs to its owner. */
  close(): void {
    this.#closed = true;
    for (const unwatch of this.#watches.values()) unwatch();
    this.#watches.clear();
    this.#clusters.clear();
    this.#vacant.clear();
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    observePart(this.#discovery, observation, labels);
  }

  async #resolveCluster(serviceName: string): Promise<Cluster> {
    if (this.#closed) throw new ClosedError('the LoadBalancer');
    const known = this.#clusters.get(serviceName);
    if (known !== undefined) {
      if (known.registered === 0) this.#vacant.use(serviceName);
      return known;
    }
    if (!isName(serviceName)) throw new NoInstanceError(serviceName);
    let resolving = this.#resolving.get(serviceName);
    if (resolving === undefined) {
      resolving = this.#resolve(serviceName).finally(() => this.#resolving.delete(serviceName));
      this.#resolving.set(serviceName, resolving);
    }
    // Each caller gets an error of its own, which will say what was called.
    const { cluster, failure } = await resolving;
    if (this.#closed) throw new ClosedError('the LoadBalancer');
    if (cluster !== undefined) return cluster;
    throw failure === undefined
      ? new NoInstanceError(serviceName)
      : toLookupError(serviceName, failure.error);
  }

  /**
   * Resolves a service. With too many services that have no instances, or may have none, one
   * without is not watched.
   */
  async #resolve(serviceName: string): Promise<Resolution> {
    try {
      const room = this.#vacant.makeRoom(this.#resolving.size);
      if (!room && (await this.#discovery.instances(serviceName)).length === 0) return {};
      return { cluster: await this.#watch(serviceName) };
    } catch (error) {
      return { failure: { error } };
    }
  }

  /**
   * Watches before it reads, so that no change falls between the two; a pushed list is newer than
   * the read.
   */
  async #watch(serviceName: string): Promise<Cluster> {
    const cluster = new Cluster(this.#config, this.#buildObserver(serviceName));
    let pushed = false;
    let unwatch: Unsubscribe | undefined;
    try {
      unwatch = this.#discovery.watch(serviceName, (instances) => {
        pushed = true;
        cluster.update(instances);
        if (this.#clusters.get(serviceName) === cluster) this.#updateVacancy(serviceName, cluster);
      });
      this.#watches.set(cluster, unwatch);
      const instances = await this.#discovery.instances(serviceName);
      if (!pushed) cluster.update(instances);
    } catch (error) {
      if (!pushed) {
        unwatch?.();
        this.#watches.delete(cluster);
        throw error;
      }
    }
    if (this.#closed) return cluster;
    this.#clusters.set(serviceName, cluster);
    this.#updateVacancy(serviceName, cluster);
    return cluster;
  }

  #updateVacancy(serviceName: string, cluster: Cluster): void {
    if (cluster.registered === 0) this.#vacant.use(serviceName);
    else this.#vacant.remove(serviceName);
  }

  #forget(serviceName: string): void {
    const cluster = this.#clusters.get(serviceName)!;
    this.#clusters.delete(serviceName);
    this.#watches.get(cluster)?.();
    this.#watches.delete(cluster);
  }

  #buildObserver(serviceName: string): ClusterObserver {
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
   * Passes on what a function of the options decided. If it gave a promise, the next pick throws,
   * since an update of the instances, or the end of a call, must not fail.
   */
  #decide<T>(value: T, option: string, otherwise: T): T {
    try {
      return decided(value, `LoadBalancer option '${option}'`);
    } catch (error) {
      this.#fault = error;
      return otherwise;
    }
  }

  /** Hints to the discovery that its list may be out of date. */
  #refresh(serviceName: string): void {
    if (!this.#closed) this.#tryDiscovery('refresh', () => this.#discovery.refresh?.(serviceName));
  }

  /** Calls a method of the discovery that must not throw; undefined if it does. */
  #tryDiscovery(method: string, call: () => unknown): unknown {
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

/** Makes the error of a lookup that failed: there is no such service, or nobody could tell. */
function toLookupError(serviceName: string, error: unknown): HoldfastError {
  if (isAbsence(error)) return new NoInstanceError(serviceName, { cause: error });
  if (error instanceof DiscoveryUnavailableError)
    return new DiscoveryUnavailableError(error.message, { cause: error.cause });
  const reason = error instanceof Error ? error.message : String(error);
  return new DiscoveryUnavailableError(`the instances of '${serviceName}' cannot be looked up: ${reason}`, {
    cause: error,
  });
}
