import { type ServiceInstance, sameInstance, withChanges } from '../discovery/service-instance.ts';
import { type Change, type RegistryContent, type RegistryEntry, trust } from './service-registry.ts';

/** What is known of one instance. */
interface Known {
  readonly instance: ServiceInstance;
  readonly epoch: string;
  /** What a health check found, which stands above what was registered. */
  readonly checked: string | undefined;
  /** `performance.now()` when it was found gone without a word, if it is kept all the same. */
  missingSince: number | undefined;
}

/** Of the instances known at the beginning of a grace period, no larger share may just vanish in it. */
const MAX_VANISHING = 0.5;

/**
 * What a client knows of a service: the registry as it was last told, and the distrust of a registry that suddenly
 * knows less.
 *
 * An instance that says that it leaves is gone at once, and so is one that expires while most of the others stay.
 * But where more than half are gone without a word within a grace period, it is likelier that Redis lost them, or
 * that they cannot reach it: the last of them are kept until the grace period has passed without a sign of them.
 * Source: Netflix Eureka, self-preservation.
 */
export class ServiceView {
  readonly #serviceName: string;
  readonly #grace: number;
  readonly #onInvalid: (entry: RegistryEntry, error: unknown) => void;
  readonly #known = new Map<string, Known>();
  /** When those were dropped that vanished, within the last grace period. */
  #vanished: number[] = [];
  #snapshot: readonly ServiceInstance[] | undefined = undefined;
  #version: number | undefined = undefined;

  /** @param grace milliseconds. */
  constructor(serviceName: string, grace: number, onInvalid: (entry: RegistryEntry, error: unknown) => void) {
    this.#serviceName = serviceName;
    this.#grace = grace;
    this.#onInvalid = onInvalid;
  }

  /** That of the registry; undefined before the first reading. */
  get version(): number | undefined {
    return this.#version;
  }

  /** Frozen, and the same list until something changes. */
  get snapshot(): readonly ServiceInstance[] {
    this.#snapshot ??= Object.freeze(Array.from(this.#known.values(), ({ instance }) => instance));
    return this.#snapshot;
  }

  /** Milliseconds until the first of those that are missing is to be dropped; Infinity if none is. */
  get graceEnds(): number {
    const since = [...this.#known.values()].map(({ missingSince }) => missingSince ?? Infinity);
    return Math.min(Infinity, ...since) + this.#grace - performance.now();
  }

  /** Begins with instances that were known to an earlier process. */
  recall(instances: readonly ServiceInstance[]): void {
    for (const instance of instances) this.#put({ instance, epoch: '0', checked: undefined });
  }

  /** Takes in the whole registry of the service. */
  load({ version, entries }: RegistryContent): void {
    this.#version = version;
    const there = new Set<string>();
    for (const entry of entries) {
      this.#take(entry, undefined);
      there.add(entry.instanceId);
    }
    this.#vanish(
      [...this.#known.keys()].filter((instanceId) => !there.has(instanceId)),
      0,
    );
  }

  /** Takes in a change that follows on what is known. */
  apply(change: Change): void {
    this.#version = change.version;
    switch (change.kind) {
      case 'registered':
        this.#take(change.entry, this.#known.get(change.entry.instanceId));
        break;
      case 'expired':
        this.#vanish(
          change.instanceIds.filter((instanceId) => this.#known.has(instanceId)),
          1,
        );
        break;
      case 'deregistered':
        for (const instanceId of change.instanceIds) this.#drop(instanceId);
        break;
      case 'status':
        this.setStatus(change.instanceId, change.status);
        break;
    }
  }

  /** False if the instance is not known. */
  setStatus(instanceId: string, status: string): boolean {
    const known = this.#known.get(instanceId);
    if (known === undefined) return false;
    try {
      const instance = withChanges(known.instance, { status: status as ServiceInstance['status'] });
      this.#put({ ...known, instance, checked: status });
    } catch (error) {
      this.#onInvalid({ instanceId, record: '', status, expiresAt: 0 }, error);
    }
    return true;
  }

  /** To be called while the registry can be reached: drops those that were missing for the whole grace period. */
  settle(): void {
    const until = performance.now() - this.#grace;
    this.#vanished = this.#vanished.filter((at) => at > until);
    for (const [instanceId, { missingSince }] of this.#known) {
      if (missingSince !== undefined && missingSince <= until) this.#drop(instanceId);
    }
  }

  /** The registry cannot be reached: who is missing can give no sign, and gets a new grace period when it is back. */
  suspend(): void {
    this.#vanished = [];
    for (const known of this.#known.values()) known.missingSince = undefined;
  }

  #take(entry: RegistryEntry, before: Known | undefined): void {
    try {
      const { epoch, instance } = trust(this.#serviceName, entry);
      const checked = entry.status ?? (before?.epoch === epoch ? before.checked : undefined);
      const status = checked as ServiceInstance['status'] | undefined;
      this.#put({ epoch, checked, instance: status ? withChanges(instance, { status }) : instance });
    } catch (error) {
      this.#onInvalid(entry, error);
    }
  }

  #put(known: Omit<Known, 'missingSince'>): void {
    const { instanceId } = known.instance;
    const before = this.#known.get(instanceId);
    const same = before !== undefined && sameInstance(before.instance, known.instance);
    const instance = same ? before.instance : known.instance;
    this.#known.set(instanceId, { ...known, instance, missingSince: undefined });
    if (!same) this.#snapshot = undefined;
  }

  #drop(instanceId: string): void {
    if (this.#known.delete(instanceId)) this.#snapshot = undefined;
  }

  /**
   * They are gone from the registry without having said so.
   *
   * @param believable how many may be, however few there are: a registry that tells of an expiry did not lose all.
   */
  #vanish(instanceIds: readonly string[], believable: number): void {
    this.settle();
    const now = performance.now();
    const found = instanceIds.filter((instanceId) => this.#known.get(instanceId)?.missingSince === undefined);
    const known = [...this.#known.values()];
    const missing = known.filter(({ missingSince }) => missingSince !== undefined).length;
    const gone = this.#vanished.length + missing + found.length;
    const suspicious = gone > Math.max(believable, MAX_VANISHING * (this.#vanished.length + known.length));
    for (const instanceId of found) {
      if (suspicious) {
        this.#known.get(instanceId)!.missingSince = now;
      } else {
        this.#drop(instanceId);
        this.#vanished.push(now);
      }
    }
  }
}
