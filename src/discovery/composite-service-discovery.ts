import { ClosedError, DiscoveryUnavailableError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import { hasMethods } from '../internal/validate.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import type { InstanceChanges, InstanceRegistration, ServiceInstance } from './service-instance.ts';
import { Watchers } from './watchers.ts';

export interface CompositeServiceDiscoveryEvents {
  /** A discovery failed, and is passed over until it responds. */
  failure: [event: { discovery: ServiceDiscovery; serviceName: string; error: unknown }];
}

/** A service that is watched. */
interface WatchedService {
  readonly sources: readonly Source[];
  /**
   * The list that the watchers know; undefined until the list from before the watching is known.
   */
  current: readonly ServiceInstance[] | undefined;
}

/** The discovery whose instances are those of a service. */
interface Resolved {
  readonly discovery: ServiceDiscovery;
  readonly instances: readonly ServiceInstance[];
}

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/** The wait before a discovery that failed is asked again while the service is watched. */
const backoff = exponentialBackoff({ base: 1_000, max: 30_000, jitter: 'equal' });

const isDiscovery = hasMethods(
  'register',
  'deregister',
  'update',
  'heartbeat',
  'instances',
  'healthyInstances',
  'watch',
  'close',
);

/**
 * Asks several discoveries in order: the instances of a service are those of the first discovery
 * that knows any, healthy or not. A discovery that fails is passed over. While a service is
 * watched, the last list of each discovery holds, also if the discovery fails later; a discovery
 * that has not responded yet is asked again until it does.
 *
 * Instances register with the first discovery. The status of an instance is written to the
 * discovery whose instances count.
 *
 * @example
 * new CompositeServiceDiscovery([redisDiscovery, await StaticServiceDiscovery.fromFile('services.json')]);
 */
export class CompositeServiceDiscovery
  extends Emitter<CompositeServiceDiscoveryEvents>
  implements ServiceDiscovery
{
  readonly #discoveries: readonly ServiceDiscovery[];
  readonly #watchers = new Watchers();
  readonly #watched = new Map<string, WatchedService>();
  /** The instances that were registered here. */
  readonly #registered = new Set<string>();
  #closing: Promise<void> | undefined = undefined;

  constructor(discoveries: readonly ServiceDiscovery[]) {
    super('composite-service-discovery');
    if (!Array.isArray(discoveries) || discoveries.length === 0) {
      throw new TypeError('CompositeServiceDiscovery takes a list of at least one discovery');
    }
    for (const [index, discovery] of discoveries.entries()) {
      isDiscovery(discovery, `CompositeServiceDiscovery: discovery ${index}`);
    }
    this.#discoveries = [...discoveries];
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    for (const discovery of this.#discoveries) observePart(discovery, observation, labels);
  }

  /** Registers with the first discovery. */
  async register(registration: InstanceRegistration): Promise<ServiceInstance> {
    const instance = await this.#first().register(registration);
    this.#registered.add(keyOf(instance.serviceName, instance.instanceId));
    return instance;
  }

  /** Gives that of the first discovery, with which instances are registered. */
  get instanceTtl(): number | undefined {
    return this.#discoveries[0]!.instanceTtl;
  }

  /** Deregisters with the first discovery. */
  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    const first = this.#first();
    this.#registered.delete(keyOf(serviceName, instanceId));
    return first.deregister(serviceName, instanceId);
  }

  /**
   * Updates the instance in the discovery whose instances count, if the instance is one of them. An
   * instance that was registered here is updated where it was registered, in the first discovery;
   * so is an instance that no discovery knows.
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    const first = this.#first();
    const isOwn = this.#registered.has(keyOf(serviceName, instanceId));
    const discovery = isOwn ? first : ((await this.#findOwner(serviceName, instanceId)) ?? first);
    this.#throwIfClosed();
    return discovery.update(serviceName, instanceId, changes);
  }

  /** Sends the heartbeat to the first discovery. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return this.#first().heartbeat(serviceName, instanceId);
  }

  /** @throws DiscoveryUnavailableError if no discovery knows instances and at least one failed. */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return (await this.#resolve(serviceName))?.instances ?? NONE;
  }

  /**
   * Gives the `instances` that are not known to be unhealthy: maybe none, though a later discovery
   * has some.
   */
  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return Object.freeze((await this.instances(serviceName)).filter(({ status }) => status !== 'unhealthy'));
  }

  knows(serviceName: string): boolean {
    return this.#discoveries.some((discovery) => discovery.knows?.(serviceName));
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    this.#throwIfClosed();
    const unsubscribe = this.#watchers.watch(serviceName, listener);
    if (!this.#watched.has(serviceName)) this.#follow(serviceName);
    return () => {
      unsubscribe();
      if (!this.#watchers.has(serviceName)) this.#unfollow(serviceName);
    };
  }

  /** Passes the hint on to each discovery that takes one. An error is a `failure` event. */
  refresh(serviceName: string): void {
    if (this.#closing !== undefined) return;
    for (const discovery of this.#discoveries) {
      const hint = async () => discovery.refresh?.(serviceName);
      hint().catch((error: unknown) => this.emit('failure', { discovery, serviceName, error }));
    }
  }

  /** Closes all discoveries. Rejects with the error of the first one that fails. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const serviceName of this.#watched.keys()) this.#unfollow(serviceName);
    this.#watchers.clear();
    const results = await Promise.allSettled(this.#discoveries.map(async (discovery) => discovery.close()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #throwIfClosed(): void {
    if (this.#closing !== undefined) throw new ClosedError('the CompositeServiceDiscovery');
  }

  #first(): ServiceDiscovery {
    this.#throwIfClosed();
    return this.#discoveries[0]!;
  }

  /**
   * Finds the discovery whose instances count; undefined if the instance is none of them, or if
   * that cannot be told.
   */
  async #findOwner(serviceName: string, instanceId: string): Promise<ServiceDiscovery | undefined> {
    const resolved = await this.#resolve(serviceName).catch(() => undefined);
    const isListed = resolved?.instances.some((instance) => instance.instanceId === instanceId);
    return isListed ? resolved?.discovery : undefined;
  }

  /**
   * Finds the first discovery that knows instances, and gives both; undefined if none knows any.
   */
  async #resolve(serviceName: string): Promise<Resolved | undefined> {
    this.#throwIfClosed();
    const errors: unknown[] = [];
    for (const source of this.#watched.get(serviceName)?.sources ?? this.#createSources(serviceName)) {
      try {
        const instances = await source.instances();
        if (instances.length > 0) return { discovery: source.discovery, instances };
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 0) return undefined;
    const [first] = errors;
    const reason = first instanceof Error ? first.message : String(first);
    throw new DiscoveryUnavailableError(
      `no instance of ${shown(serviceName)} is known, and ${errors.length} of ${this.#discoveries.length} discoveries failed: ${reason}`,
      { cause: errors.length === 1 ? errors[0] : new AggregateError(errors) },
    );
  }

  #createSources(serviceName: string): Source[] {
    return this.#discoveries.map(
      (discovery) =>
        new Source(discovery, serviceName, (error) =>
          this.emit('failure', { discovery, serviceName, error }),
        ),
    );
  }

  #follow(serviceName: string): void {
    const service: WatchedService = { sources: this.#createSources(serviceName), current: undefined };
    this.#watched.set(serviceName, service);
    for (const source of service.sources) source.follow(() => this.#settle(serviceName, service));
  }

  #unfollow(serviceName: string): void {
    for (const source of this.#watched.get(serviceName)?.sources ?? []) source.stop();
    this.#watched.delete(serviceName);
  }

  /**
   * Notifies the watchers if another list counts now, once no discovery whose first response could
   * decide is pending.
   */
  #settle(serviceName: string, service: WatchedService): void {
    const { sources, current } = service;
    const index = sources.findIndex(({ pending, list }) => pending || list.length > 0);
    const deciding = sources[index];
    if (deciding?.pending) return;
    const list = deciding?.list ?? NONE;
    service.current = list;
    const considered = deciding === undefined ? sources : sources.slice(0, index + 1);
    const changed = current === undefined ? considered.some((source) => source.changed) : current !== list;
    if (changed) this.#watchers.notify(serviceName, list);
  }
}

/** Gives the key of an instance: no name has a space. */
function keyOf(serviceName: string, instanceId: string): string {
  return `${serviceName} ${instanceId}`;
}

/** The list of one service in one discovery. */
class Source {
  readonly discovery: ServiceDiscovery;
  readonly #serviceName: string;
  readonly #onFailure: (error: unknown) => void;
  /** Set while the source is followed. */
  #onChange: (() => void) | undefined = undefined;
  #known: readonly ServiceInstance[] | undefined = undefined;
  #reading: Promise<readonly ServiceInstance[]> | undefined = undefined;
  #unwatch: Unsubscribe | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #failures = 0;
  /**
   * Whether callers may have got another list before: the discovery reported a change, or responded
   * after a failure.
   */
  changed = false;

  constructor(discovery: ServiceDiscovery, serviceName: string, onFailure: (error: unknown) => void) {
    this.discovery = discovery;
    this.#serviceName = serviceName;
    this.#onFailure = onFailure;
  }

  /** Whether the discovery has neither responded nor failed yet. */
  get pending(): boolean {
    return this.#known === undefined && this.#failures === 0;
  }

  /** The known list; empty while none is known. */
  get list(): readonly ServiceInstance[] {
    return this.#known ?? NONE;
  }

  /** Gives the known list, or asks the discovery for it. */
  async instances(): Promise<readonly ServiceInstance[]> {
    if (this.#known !== undefined) return this.#known;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Calls `onChange` after the first response or failure, and after each change of the list. */
  follow(onChange: () => void): void {
    this.#onChange = onChange;
    this.#ask();
  }

  stop(): void {
    this.#onChange = undefined;
    this.#unwatch?.();
    clearTimeout(this.#timer);
  }

  #ask(): void {
    this.instances().catch(() => {});
  }

  /**
   * Watches before it reads, so that no change falls between the two. A pushed list is newer than
   * the one that is read.
   */
  async #read(): Promise<readonly ServiceInstance[]> {
    clearTimeout(this.#timer);
    try {
      if (this.#onChange !== undefined) this.#unwatch ??= this.#watch();
      const instances = await this.discovery.instances(this.#serviceName);
      if (this.#known === undefined) {
        this.changed = this.#failures > 0;
        this.#setList(instances);
      }
    } catch (error) {
      if (this.#known === undefined) {
        this.#fail(error);
        throw error;
      }
    }
    return this.list;
  }

  #watch(): Unsubscribe {
    return this.discovery.watch(this.#serviceName, (instances) => {
      this.changed = true;
      clearTimeout(this.#timer);
      this.#setList(instances);
    });
  }

  #setList(instances: readonly ServiceInstance[]): void {
    this.#known = instances;
    this.#onChange?.();
  }

  #fail(error: unknown): void {
    this.#failures++;
    this.#onFailure(error);
    if (this.#onChange === undefined) return;
    this.#timer = setTimeout(() => this.#ask(), backoff(this.#failures, 0)).unref();
    this.#onChange();
  }
}
