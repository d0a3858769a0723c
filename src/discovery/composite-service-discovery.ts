import { ClosedError, DiscoveryUnavailableError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { having } from '../internal/validate.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import type { InstanceChanges, InstanceRegistration, ServiceInstance } from './service-instance.ts';
import { Watchers } from './watchers.ts';

export interface CompositeServiceDiscoveryEvents {
  /** One of the discoveries did not answer, and is passed over until it does. */
  failure: [event: { discovery: ServiceDiscovery; serviceName: string; error: unknown }];
}

/** A service that is watched: what each discovery says of it, and what those who watch know. */
interface WatchedService {
  readonly sources: readonly Source[];
  /** Undefined until it is known what there was when the watching began. */
  current: readonly ServiceInstance[] | undefined;
}

/** The discovery whose instances are those of a service. */
interface Counting {
  readonly discovery: ServiceDiscovery;
  readonly instances: readonly ServiceInstance[];
}

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/** How long a discovery that failed is left alone, while the service is watched. */
const backoff = exponentialBackoff({ base: 1_000, max: 30_000, jitter: 'equal' });

const isDiscovery = having(
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
 * Several discoveries, tried in order: of each service the instances are those of the first discovery that knows any,
 * be they healthy or not. One that fails is passed over. While a service is watched, what each discovery last said of
 * it holds, also if it should fail later; one that has not answered yet is asked again until it does.
 *
 * What registers does so with the first discovery. The status of an instance is written to the discovery whose
 * instances count.
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

  /** With the first discovery. */
  async register(registration: InstanceRegistration): Promise<ServiceInstance> {
    const instance = await this.#first().register(registration);
    this.#registered.add(keyOf(instance.serviceName, instance.instanceId));
    return instance;
  }

  /** With the first discovery. */
  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    const first = this.#first();
    this.#registered.delete(keyOf(serviceName, instanceId));
    return first.deregister(serviceName, instanceId);
  }

  /**
   * With the discovery whose instances count, if the instance is one of them. What was registered here is updated
   * where it was registered, with the first discovery, which is also told of instances that are nowhere known.
   */
  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    const first = this.#first();
    const isOwn = this.#registered.has(keyOf(serviceName, instanceId));
    const holder = isOwn ? first : ((await this.#holderOf(serviceName, instanceId)) ?? first);
    this.#throwIfClosed();
    return holder.update(serviceName, instanceId, changes);
  }

  /** With the first discovery. */
  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    return this.#first().heartbeat(serviceName, instanceId);
  }

  /** @throws DiscoveryUnavailableError if none knows instances and at least one failed. */
  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    return (await this.#counting(serviceName))?.instances ?? NONE;
  }

  /** Those of `instances` that are not known to be unhealthy: maybe none, though a later discovery had some. */
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

  /** Passes the hint on to each discovery that takes one. What it throws is a `failure` event. */
  refresh(serviceName: string): void {
    if (this.#closing !== undefined) return;
    for (const discovery of this.#discoveries) {
      const hint = async () => discovery.refresh?.(serviceName);
      hint().catch((error: unknown) => this.emit('failure', { discovery, serviceName, error }));
    }
  }

  /** Closes all of the discoveries too: it stands for them. Rejects with what the first that fails rejects with. */
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

  /** Undefined if the instance is not one of those that count, or if that cannot be told. */
  async #holderOf(serviceName: string, instanceId: string): Promise<ServiceDiscovery | undefined> {
    const counting = await this.#counting(serviceName).catch(() => undefined);
    const isListed = counting?.instances.some((instance) => instance.instanceId === instanceId);
    return isListed ? counting?.discovery : undefined;
  }

  /** The first discovery that knows instances, and those; undefined if none knows any. */
  async #counting(serviceName: string): Promise<Counting | undefined> {
    this.#throwIfClosed();
    const errors: unknown[] = [];
    for (const source of this.#watched.get(serviceName)?.sources ?? this.#sourcesOf(serviceName)) {
      try {
        const instances = await source.instances();
        if (instances.length > 0) return { discovery: source.discovery, instances };
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 0) return undefined;
    throw new DiscoveryUnavailableError(
      `no instance of '${serviceName}' is known, and ${errors.length} of ${this.#discoveries.length} discoveries failed`,
      { cause: errors.length === 1 ? errors[0] : new AggregateError(errors) },
    );
  }

  #sourcesOf(serviceName: string): Source[] {
    return this.#discoveries.map(
      (discovery) =>
        new Source(discovery, serviceName, (error) =>
          this.emit('failure', { discovery, serviceName, error }),
        ),
    );
  }

  #follow(serviceName: string): void {
    const service: WatchedService = { sources: this.#sourcesOf(serviceName), current: undefined };
    this.#watched.set(serviceName, service);
    for (const source of service.sources) source.follow(() => this.#settle(serviceName, service));
  }

  #unfollow(serviceName: string): void {
    for (const source of this.#watched.get(serviceName)?.sources ?? []) source.stop();
    this.#watched.delete(serviceName);
  }

  /** Tells of the list that counts now if it is another; as long as a first answer could decide, nothing is told. */
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

/** Of an instance; a space is in no name. */
function keyOf(serviceName: string, instanceId: string): string {
  return `${serviceName} ${instanceId}`;
}

/** What one discovery says of one service. */
class Source {
  readonly discovery: ServiceDiscovery;
  readonly #serviceName: string;
  readonly #failed: (error: unknown) => void;
  /** Set while it is followed. */
  #onChange: (() => void) | undefined = undefined;
  #known: readonly ServiceInstance[] | undefined = undefined;
  #reading: Promise<readonly ServiceInstance[]> | undefined = undefined;
  #unwatch: Unsubscribe | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #failures = 0;
  /** Whether someone may have been told otherwise before: it told of a change, or answered after it had failed. */
  changed = false;

  constructor(discovery: ServiceDiscovery, serviceName: string, failed: (error: unknown) => void) {
    this.discovery = discovery;
    this.#serviceName = serviceName;
    this.#failed = failed;
  }

  /** Whether it has neither answered nor failed yet. */
  get pending(): boolean {
    return this.#known === undefined && this.#failures === 0;
  }

  /** Empty where nothing is known. */
  get list(): readonly ServiceInstance[] {
    return this.#known ?? NONE;
  }

  /** What is known; asks the discovery if that is nothing. */
  async instances(): Promise<readonly ServiceInstance[]> {
    if (this.#known !== undefined) return this.#known;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Calls `onChange` after the first answer or failure, and each time that it says something else. */
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

  /** Watches before it reads, so that no change falls between the two; what was pushed is newer than the read. */
  async #read(): Promise<readonly ServiceInstance[]> {
    clearTimeout(this.#timer);
    try {
      if (this.#onChange !== undefined) this.#unwatch ??= this.#watch();
      const instances = await this.discovery.instances(this.#serviceName);
      if (this.#known === undefined) {
        this.changed = this.#failures > 0;
        this.#learn(instances);
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
      this.#learn(instances);
    });
  }

  #learn(instances: readonly ServiceInstance[]): void {
    this.#known = instances;
    this.#onChange?.();
  }

  #fail(error: unknown): void {
    this.#failures++;
    this.#failed(error);
    if (this.#onChange === undefined) return;
    this.#timer = setTimeout(() => this.#ask(), backoff(this.#failures, 0)).unref();
    this.#onChange();
  }
}
