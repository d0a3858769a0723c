import { type ServiceInstance, sameInstance, withChanges } from '../discovery/service-instance.ts';
import { type Change, parseEntry, type RegistryEntry } from './registry-format.ts';
import type { RegistryContent } from './service-registry.ts';

/** An instance as it is cached. */
interface CachedInstance {
  readonly instance: ServiceInstance;
  readonly epoch: string;
  /** The status that a health check found, which overrides the registered one. */
  readonly checked: ServiceInstance['status'] | undefined;
  /**
   * `performance.now()` when the registry was found to be silent about the instance, which is kept
   * all the same; Infinity while the registry cannot be reached; undefined if the registry has it.
   */
  missingSince: number | undefined;
}

/** An instance that was removed because the registry was silent about it. */
interface RemovedInstance {
  readonly cached: CachedInstance;
  /** `performance.now()`. */
  readonly at: number;
}

/** The largest share of the instances at the beginning of a grace period that may vanish in it. */
const MAX_LOSS_SHARE = 0.5;
/**
 * Grace periods for which the last instances are kept while the registry is silent about all of
 * them.
 */
const GRACES_FOR_ALL = 10;

/** The origin of the cached instances. */
type Origin =
  | { readonly kind: 'nowhere' | 'earlier process' }
  | { readonly kind: 'registry'; readonly version: number };

/**
 * Caches the instances of a service, and distrusts a registry that suddenly has fewer of them.
 *
 * An instance that deregisters is removed at once, and so is one that expires while most of the
 * others stay. But where more than half vanish without having deregistered within a grace period,
 * it is likelier that Redis lost them, or that they cannot reach it: the last of them are kept
 * until a grace period has passed without a sign of life, and then again no more than half are
 * removed in each grace period. Where the registry is silent about all instances, all are kept,
 * also those that vanished just before, until the registry could be read for ten grace periods
 * without a sign of any.
 * Source: Netflix Eureka, self-preservation.
 */
export class InstanceCache {
  readonly #serviceName: string;
  readonly #grace: number;
  readonly #onInvalid: (entry: RegistryEntry, error: unknown) => void;
  readonly #cached = new Map<string, CachedInstance>();
  /**
   * The instances that were removed within the last grace period and did not come back, the
   * earliest first.
   */
  readonly #removed = new Map<string, RemovedInstance>();
  #snapshot: readonly ServiceInstance[] | undefined = undefined;
  #origin: Origin = { kind: 'nowhere' };

  /** @param grace milliseconds. */
  constructor(serviceName: string, grace: number, onInvalid: (entry: RegistryEntry, error: unknown) => void) {
    this.#serviceName = serviceName;
    this.#grace = grace;
    this.#onInvalid = onInvalid;
  }

  /** The version of the registry; undefined before the first reading. */
  get version(): number | undefined {
    return this.#origin.kind === 'registry' ? this.#origin.version : undefined;
  }

  /**
   * Whether the cache was filled, by the registry or by an earlier process, be it with no
   * instances.
   */
  get filled(): boolean {
    return this.#origin.kind !== 'nowhere';
  }

  /** The instances: a frozen list, and the same one until something changes. */
  get snapshot(): readonly ServiceInstance[] {
    this.#snapshot ??= Object.freeze(Array.from(this.#cached.values(), ({ instance }) => instance));
    return this.#snapshot;
  }

  /** The ids of the instances that are kept although the registry is silent about them. */
  get missing(): string[] {
    return this.#missing().map(([instanceId]) => instanceId);
  }

  /** Milliseconds until the first missing instance may be removed; Infinity if none is missing. */
  get graceEnds(): number {
    const missing = this.#missing();
    const first = Math.min(...missing.map(([, { missingSince }]) => missingSince!));
    const over = first + this.#missingTimeout;
    const next = this.#mayRemove() ? over : Math.max(over, this.#firstRemovedAt + this.#grace);
    return next - performance.now();
  }

  /** Begins with the instances that an earlier process knew. */
  restore(instances: readonly ServiceInstance[]): void {
    this.#origin = { kind: 'earlier process' };
    for (const instance of instances) {
      this.#put({ instance, epoch: '0', checked: undefined, missingSince: undefined });
    }
  }

  /**
   * Takes over the whole registry of the service. Where Redis lost data, missing instances may only
   * have to register again, and are kept for a grace period, however few they are; so are instances
   * of which Redis lost a part.
   */
  load({ version, entries, damaged }: RegistryContent, dataLost: boolean): void {
    this.#origin = { kind: 'registry', version };
    const present = new Set(entries.map(({ instanceId }) => instanceId));
    for (const [instanceId, cached] of this.#cached) {
      if (present.has(instanceId)) cached.missingSince = undefined;
    }
    this.expireGrace();
    const maxPlausibleLoss = dataLost && this.#grace > 0 ? 0 : this.#maxPlausibleLoss;
    for (const entry of entries) this.#applyEntry(entry);
    this.#removeMissing((instanceId) => !present.has(instanceId), maxPlausibleLoss, new Set(damaged));
  }

  /** Applies a change that has the next version. */
  apply(change: Change): void {
    this.#origin = { kind: 'registry', version: change.version };
    switch (change.kind) {
      case 'registered':
        this.#applyEntry(change.entry, this.#cached.get(change.entry.instanceId));
        break;
      case 'expired': {
        this.expireGrace();
        const expired = new Set(change.instanceIds);
        this.#removeMissing((instanceId) => expired.has(instanceId), this.#maxPlausibleLoss);
        break;
      }
      case 'deregistered':
        for (const instanceId of change.instanceIds) {
          this.#remove(instanceId);
          this.#removed.delete(instanceId);
        }
        break;
      case 'status':
        this.setStatus(change.instanceId, change.status);
        break;
    }
  }

  /** Sets the status that a health check found. Gives false if the instance is not known. */
  setStatus(instanceId: string, status: ServiceInstance['status']): boolean {
    const cached = this.#cached.get(instanceId);
    if (cached === undefined) return false;
    const instance = withChanges(cached.instance, { status });
    this.#put({ ...cached, instance, checked: status });
    return true;
  }

  /**
   * Removes the instances that were missing for long enough, the earliest first. To be called while
   * the registry is in reach.
   */
  expireGrace(): void {
    const now = performance.now();
    for (const [instanceId, { at }] of this.#removed) {
      if (now - at >= this.#grace) this.#removed.delete(instanceId);
    }
    const missing = this.#missing();
    for (const [, cached] of missing) if (cached.missingSince === Infinity) cached.missingSince = now;
    missing.sort(([, one], [, other]) => one.missingSince! - other.missingSince!);
    const timeout = this.#missingTimeout;
    for (const [instanceId, cached] of missing) {
      if (now - cached.missingSince! < timeout || !this.#mayRemove()) return;
      this.#remove(instanceId);
      this.#removed.set(instanceId, { cached, at: now });
    }
  }

  /**
   * Pauses the grace of missing instances while the registry is out of reach, since they can give
   * no sign of life. They get a new grace period when it is back.
   */
  pauseGrace(): void {
    for (const [, cached] of this.#missing()) cached.missingSince = Infinity;
  }

  #applyEntry(entry: RegistryEntry, before?: CachedInstance): void {
    try {
      const { epoch, instance } = parseEntry(this.#serviceName, entry);
      // The registry forgets what a check found with the instance: at a new start, or if the
      // instance was gone meanwhile.
      const checked =
        before?.epoch === epoch && before.missingSince === undefined ? before.checked : undefined;
      this.#put({
        instance: checked === undefined ? instance : withChanges(instance, { status: checked }),
        epoch,
        checked: entry.status === undefined ? checked : instance.status,
        missingSince: undefined,
      });
    } catch (error) {
      this.#onInvalid(entry, error);
    }
  }

  #put(cached: CachedInstance): void {
    const { instanceId } = cached.instance;
    const before = this.#cached.get(instanceId)?.instance;
    const same = before !== undefined && sameInstance(before, cached.instance);
    this.#cached.set(instanceId, same ? { ...cached, instance: before } : cached);
    this.#removed.delete(instanceId);
    if (!same) this.#snapshot = undefined;
  }

  #missing(): [string, CachedInstance][] {
    const missing: [string, CachedInstance][] = [];
    for (const entry of this.#cached) if (entry[1].missingSince !== undefined) missing.push(entry);
    return missing;
  }

  /** Milliseconds for which an instance is missing before it is removed. */
  get #missingTimeout(): number {
    const allMissing = this.#missing().length === this.#cached.size;
    return allMissing ? GRACES_FOR_ALL * this.#grace : this.#grace;
  }

  /** The most instances that may vanish at once without having deregistered. */
  get #maxPlausibleLoss(): number {
    return this.#grace === 0 ? Infinity : MAX_LOSS_SHARE * (this.#removed.size + this.#cached.size);
  }

  /**
   * Tells whether an instance that was missing for long enough may be removed now. The last one of
   * all may.
   */
  #mayRemove(): boolean {
    return this.#removed.size + 1 <= Math.max(this.#maxPlausibleLoss, this.#cached.size === 1 ? 1 : 0);
  }

  get #firstRemovedAt(): number {
    for (const { at } of this.#removed.values()) return at;
    return -Infinity;
  }

  #remove(instanceId: string): void {
    if (this.#cached.delete(instanceId)) this.#snapshot = undefined;
  }

  /**
   * Removes the instances that vanished from the registry without having deregistered, or keeps
   * them as missing if they are implausibly many.
   *
   * @param kept the ids that are kept as missing in any case.
   */
  #removeMissing(
    isGone: (instanceId: string) => boolean,
    maxPlausibleLoss: number,
    kept?: ReadonlySet<string>,
  ): void {
    const now = performance.now();
    const present = [...this.#cached].filter(([, { missingSince }]) => missingSince === undefined);
    const found = present.filter(([instanceId]) => isGone(instanceId));
    const gone = this.#removed.size + this.#cached.size - present.length + found.length;
    const plausible = gone <= maxPlausibleLoss;
    for (const [instanceId, cached] of found) {
      if (!plausible || (this.#grace > 0 && kept?.has(instanceId))) {
        cached.missingSince = now;
      } else {
        this.#remove(instanceId);
        this.#removed.set(instanceId, { cached, at: now });
      }
    }
    if (found.length > 0 && found.length === present.length && !plausible) this.#restoreRemoved();
  }

  /**
   * Restores what was removed within the grace period: a registry that is silent about all may be
   * wrong about those too.
   */
  #restoreRemoved(): void {
    for (const [instanceId, { cached, at }] of this.#removed) {
      this.#cached.set(instanceId, { ...cached, missingSince: at });
      this.#snapshot = undefined;
    }
    this.#removed.clear();
  }
}
