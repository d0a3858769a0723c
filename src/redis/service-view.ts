import { type ServiceInstance, sameInstance, withChanges } from '../discovery/service-instance.ts';
import { type Change, type RegistryEntry, trust } from './registry-format.ts';
import type { RegistryContent } from './service-registry.ts';

/** What is known of one instance. */
interface Known {
  readonly instance: ServiceInstance;
  readonly epoch: string;
  /** What a health check found, which stands above what was registered. */
  readonly checked: ServiceInstance['status'] | undefined;
  /**
   * `performance.now()` when it was found gone without a word, if it is kept all the same; Infinity while the registry
   * cannot be reached.
   */
  missingSince: number | undefined;
}

/** An instance that was dropped since the registry was silent about it. */
interface Vanished {
  readonly known: Known;
  /** `performance.now()`. */
  readonly at: number;
}

/** Of the instances known at the beginning of a grace period, no larger share may just vanish in it. */
const MAX_VANISHING = 0.5;
/** Grace periods for which the last instances are kept while the registry is silent about all of them. */
const PATIENT_GRACES = 10;

/**
 * What a client knows of a service: the registry as it was last told, and the distrust of a registry that suddenly
 * knows less.
 *
 * An instance that says that it leaves is gone at once, and so is one that expires while most of the others stay.
 * But where more than half are gone without a word within a grace period, it is likelier that Redis lost them, or
 * that they cannot reach it: the last of them are kept until a grace period has passed without a sign of them, and
 * then again no more than half go in each grace period. Where the registry is silent about all, all are kept, those
 * included that vanished just before, until it could be read for ten grace periods without a sign of any.
 * Source: Netflix Eureka, self-preservation.
 */
export class ServiceView {
  readonly #serviceName: string;
  readonly #grace: number;
  readonly #onInvalid: (entry: RegistryEntry, error: unknown) => void;
  readonly #known = new Map<string, Known>();
  /** Those that were dropped within the last grace period, and did not come back; the first ones first. */
  readonly #vanished = new Map<string, Vanished>();
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

  /** The ids of those that are kept although the registry is silent about them. */
  get missing(): string[] {
    return this.#missing().map(([instanceId]) => instanceId);
  }

  /** Milliseconds until the first of those that are missing is to be dropped; Infinity if none is. */
  get graceEnds(): number {
    const missing = this.#missing();
    const first = Math.min(...missing.map(([, { missingSince }]) => missingSince!));
    const over = first + this.#patience;
    const next = this.#mayDrop() ? over : Math.max(over, this.#firstVanishedAt + this.#grace);
    return next - performance.now();
  }

  /** Begins with instances that were known to an earlier process. */
  recall(instances: readonly ServiceInstance[]): void {
    for (const instance of instances) {
      this.#put({ instance, epoch: '0', checked: undefined, missingSince: undefined });
    }
  }

  /**
   * Takes in the whole registry of the service. Where that has forgotten something, all who are missing may only have
   * to register again, and are kept for a grace period, however few they are; so are those of which it has lost a part.
   */
  load({ version, entries, damaged }: RegistryContent, forgetful: boolean): void {
    this.#version = version;
    const there = new Set(entries.map(({ instanceId }) => instanceId));
    for (const [instanceId, known] of this.#known) {
      if (there.has(instanceId)) known.missingSince = undefined;
    }
    this.settle();
    const believable = forgetful && this.#grace > 0 ? 0 : this.#believable;
    for (const entry of entries) this.#take(entry);
    this.#vanish((instanceId) => !there.has(instanceId), believable, new Set(damaged));
  }

  /** Takes in a change that follows on what is known. */
  apply(change: Change): void {
    this.#version = change.version;
    switch (change.kind) {
      case 'registered':
        this.#take(change.entry, this.#known.get(change.entry.instanceId));
        break;
      case 'expired': {
        this.settle();
        const expired = new Set(change.instanceIds);
        this.#vanish((instanceId) => expired.has(instanceId), this.#believable);
        break;
      }
      case 'deregistered':
        for (const instanceId of change.instanceIds) {
          this.#drop(instanceId);
          this.#vanished.delete(instanceId);
        }
        break;
      case 'status':
        this.setStatus(change.instanceId, change.status);
        break;
    }
  }

  /** False if the instance is not known. */
  setStatus(instanceId: string, status: ServiceInstance['status']): boolean {
    const known = this.#known.get(instanceId);
    if (known === undefined) return false;
    this.#put({ ...known, instance: withChanges(known.instance, { status }), checked: status });
    return true;
  }

  /** To be called while the registry can be reached: drops those that were missing for long enough, the first ones first. */
  settle(): void {
    const now = performance.now();
    for (const [instanceId, { at }] of this.#vanished) {
      if (now - at >= this.#grace) this.#vanished.delete(instanceId);
    }
    const missing = this.#missing();
    for (const [, known] of missing) if (known.missingSince === Infinity) known.missingSince = now;
    missing.sort(([, one], [, other]) => one.missingSince! - other.missingSince!);
    const patience = this.#patience;
    for (const [instanceId, known] of missing) {
      if (now - known.missingSince! < patience || !this.#mayDrop()) return;
      this.#drop(instanceId);
      this.#vanished.set(instanceId, { known, at: now });
    }
  }

  /** The registry cannot be reached: who is missing can give no sign, and gets a new grace period when it is back. */
  suspend(): void {
    for (const [, known] of this.#missing()) known.missingSince = Infinity;
  }

  #take(entry: RegistryEntry, before?: Known): void {
    try {
      const { epoch, instance } = trust(this.#serviceName, entry);
      // What a check found is forgotten by the registry with the instance: at a new start, or if it was gone meanwhile.
      const stands =
        before?.epoch === epoch && before.missingSince === undefined ? before.checked : undefined;
      this.#put({
        instance: stands === undefined ? instance : withChanges(instance, { status: stands }),
        epoch,
        checked: entry.status === undefined ? stands : instance.status,
        missingSince: undefined,
      });
    } catch (error) {
      this.#onInvalid(entry, error);
    }
  }

  #put(known: Known): void {
    const { instanceId } = known.instance;
    const before = this.#known.get(instanceId)?.instance;
    const same = before !== undefined && sameInstance(before, known.instance);
    this.#known.set(instanceId, same ? { ...known, instance: before } : known);
    this.#vanished.delete(instanceId);
    if (!same) this.#snapshot = undefined;
  }

  #missing(): [string, Known][] {
    const missing: [string, Known][] = [];
    for (const entry of this.#known) if (entry[1].missingSince !== undefined) missing.push(entry);
    return missing;
  }

  /** Milliseconds that one is missing before it is dropped. */
  get #patience(): number {
    const allMissing = this.#missing().length === this.#known.size;
    return allMissing ? PATIENT_GRACES * this.#grace : this.#grace;
  }

  /** How many may be gone at once without having said so. */
  get #believable(): number {
    return this.#grace === 0 ? Infinity : MAX_VANISHING * (this.#vanished.size + this.#known.size);
  }

  /** Whether one that was missing for long enough may be dropped now. The last of all is half of no list. */
  #mayDrop(): boolean {
    return this.#vanished.size + 1 <= Math.max(this.#believable, this.#known.size === 1 ? 1 : 0);
  }

  get #firstVanishedAt(): number {
    for (const { at } of this.#vanished.values()) return at;
    return -Infinity;
  }

  #drop(instanceId: string): void {
    if (this.#known.delete(instanceId)) this.#snapshot = undefined;
  }

  /**
   * Instances are gone from the registry without having said so.
   *
   * @param kept those of them that are not dropped at once in any case.
   */
  #vanish(isGone: (instanceId: string) => boolean, believable: number, kept?: ReadonlySet<string>): void {
    const now = performance.now();
    const present = [...this.#known].filter(([, { missingSince }]) => missingSince === undefined);
    const found = present.filter(([instanceId]) => isGone(instanceId));
    const gone = this.#vanished.size + this.#known.size - present.length + found.length;
    for (const [instanceId, known] of found) {
      if (gone > believable || (this.#grace > 0 && kept?.has(instanceId))) {
        known.missingSince = now;
      } else {
        this.#drop(instanceId);
        this.#vanished.set(instanceId, { known, at: now });
      }
    }
    if (found.length > 0 && found.length === present.length && gone > believable) this.#restore();
  }

  /** The registry is silent about all: those that vanished within the grace period are as likely to be there. */
  #restore(): void {
    for (const [instanceId, { known, at }] of this.#vanished) {
      this.#known.set(instanceId, { ...known, missingSince: at });
      this.#snapshot = undefined;
    }
    this.#vanished.clear();
  }
}
