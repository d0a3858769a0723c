import { ClosedError } from '../errors.ts';
import { OBSERVE } from '../internal/observation.ts';
import { either, MAX_DELAY, number, oneOf, validateOptions } from '../internal/validate.ts';
import type { InstanceListener, ServiceDiscovery, Unsubscribe } from './service-discovery.ts';
import {
  checkServiceName,
  type InstanceChanges,
  type InstanceRegistration,
  type ServiceInstance,
  sameInstance,
  toRegisteredInstance,
  withChanges,
} from './service-instance.ts';
import { Watchers } from './watchers.ts';

export interface InMemoryServiceDiscoveryOptions {
  /**
   * Milliseconds that an instance stays without a heartbeat; Infinity keeps it for ever. Default
   * 90,000.
   */
  ttl?: number | undefined;
}

interface Entry {
  instance: ServiceInstance;
  /** `performance.now()` at the last heartbeat: the wall clock may jump. */
  lastBeat: number;
  /** Epoch milliseconds of the last heartbeat, to be shown. */
  lastHeartbeat: number;
}

interface Service {
  readonly entries: Map<string, Entry>;
  /** The list, made at the first use and kept until something changes. */
  snapshot: readonly ServiceInstance[] | undefined;
}

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/**
 * Discovers services within one process: for tests, for demos, and for services that share a
 * process.
 *
 * An instance without a heartbeat for `ttl` is left out of every list at once, and watchers are
 * notified in time.
 */
export class InMemoryServiceDiscovery implements ServiceDiscovery {
  readonly instanceTtl: number;
  readonly #services = new Map<string, Service>();
  readonly #watchers = new Watchers();
  #timer: NodeJS.Timeout | undefined = undefined;
  #closed = false;

  constructor(options: InMemoryServiceDiscoveryOptions = {}) {
    validateOptions('InMemoryServiceDiscovery', options, {
      ttl: either('milliseconds from 1 to 2^31 − 1, or Infinity', number(1, MAX_DELAY), oneOf(Infinity)),
    });
    this.instanceTtl = options.ttl ?? 90_000;
  }

  /**
   * There is nothing to see, but a program that is made for another discovery may observe this one.
   *
   * @internal
   */
  [OBSERVE](): void {}

  async register(registration: InstanceRegistration): Promise<ServiceInstance> {
    this.#throwIfClosed();
    const instance = toRegisteredInstance(registration);
    const { serviceName, instanceId } = instance;
    checkServiceName(serviceName);
    this.#findLive(serviceName);
    const service = this.#services.get(serviceName) ?? { entries: new Map(), snapshot: undefined };
    this.#services.set(serviceName, service);
    const before = service.entries.get(instanceId);
    const unchanged = before !== undefined && sameInstance(before.instance, instance);
    service.entries.set(instanceId, {
      instance: unchanged ? before.instance : instance,
      lastBeat: performance.now(),
      lastHeartbeat: instance.lastHeartbeat,
    });
    if (!unchanged) this.#changed(serviceName, service);
    this.#scheduleExpiry();
    return instance;
  }

  async deregister(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    const service = this.#findLive(serviceName);
    if (service === undefined || !service.entries.delete(instanceId)) return false;
    this.#changed(serviceName, service);
    return true;
  }

  async update(serviceName: string, instanceId: string, changes: InstanceChanges): Promise<boolean> {
    this.#throwIfClosed();
    const service = this.#findLive(serviceName);
    const entry = service?.entries.get(instanceId);
    if (service === undefined || entry === undefined) return false;
    const changed = withChanges(entry.instance, changes);
    if (sameInstance(entry.instance, changed)) return true;
    entry.instance = changed;
    this.#changed(serviceName, service);
    return true;
  }

  async heartbeat(serviceName: string, instanceId: string): Promise<boolean> {
    this.#throwIfClosed();
    const entry = this.#services.get(serviceName)?.entries.get(instanceId);
    if (entry === undefined || this.#isExpired(entry, performance.now())) return false;
    entry.lastBeat = performance.now();
    entry.lastHeartbeat = Date.now();
    return true;
  }

  async instances(serviceName: string): Promise<readonly ServiceInstance[]> {
    this.#throwIfClosed();
    const service = this.#findLive(serviceName);
    return service === undefined ? NONE : snapshotOf(service);
  }

  async healthyInstances(serviceName: string): Promise<readonly ServiceInstance[]> {
    const instances = await this.instances(serviceName);
    return Object.freeze(instances.filter(({ status }) => status !== 'unhealthy'));
  }

  knows(serviceName: string): boolean {
    return (this.#findLive(serviceName)?.entries.size ?? 0) > 0;
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    this.#throwIfClosed();
    const unsubscribe = this.#watchers.watch(serviceName, listener);
    this.#scheduleExpiry();
    return () => {
      unsubscribe();
      if (this.#watchers.size === 0) this.#stopTimer();
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stopTimer();
    this.#watchers.clear();
    this.#services.clear();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new ClosedError('the InMemoryServiceDiscovery');
  }

  #findLive(serviceName: string): Service | undefined {
    const service = this.#services.get(serviceName);
    if (service !== undefined) this.#expire(serviceName, service);
    return service;
  }

  #isExpired(entry: Entry, now: number): boolean {
    return now - entry.lastBeat >= this.instanceTtl;
  }

  #expire(serviceName: string, service: Service): void {
    const now = performance.now();
    let expired = false;
    for (const [instanceId, entry] of service.entries) {
      if (!this.#isExpired(entry, now)) continue;
      service.entries.delete(instanceId);
      expired = true;
    }
    if (expired) this.#changed(serviceName, service);
  }

  #changed(serviceName: string, service: Service): void {
    service.snapshot = undefined;
    if (service.entries.size === 0) this.#services.delete(serviceName);
    if (this.#watchers.has(serviceName)) this.#watchers.notify(serviceName, snapshotOf(service));
  }

  /**
   * Arms one timer for the first expiry of all, while there are watchers. A heartbeat does not
   * touch the timer.
   */
  #scheduleExpiry(): void {
    if (this.#timer !== undefined || this.#watchers.size === 0 || this.instanceTtl === Infinity) return;
    let first = Infinity;
    for (const { entries } of this.#services.values()) {
      for (const { lastBeat } of entries.values()) first = Math.min(first, lastBeat);
    }
    if (first === Infinity) return;
    const wait = Math.max(1, Math.ceil(first + this.instanceTtl - performance.now()));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      for (const [serviceName, service] of [...this.#services]) this.#expire(serviceName, service);
      this.#scheduleExpiry();
    }, wait).unref();
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

function snapshotOf(service: Service): readonly ServiceInstance[] {
  service.snapshot ??= Object.freeze(
    Array.from(service.entries.values(), ({ instance, lastHeartbeat }) =>
      instance.lastHeartbeat === lastHeartbeat ? instance : Object.freeze({ ...instance, lastHeartbeat }),
    ),
  );
  return service.snapshot;
}
