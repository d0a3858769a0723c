import {
  type InstanceChanges,
  originOf,
  type ServiceInstance,
  sameInstance,
  withChanges,
} from './service-instance.ts';

const NONE: readonly ServiceInstance[] = Object.freeze([]);

/**
 * Combines a list of instances that is written elsewhere, in a file or in DNS, with the changes
 * that this process made. The changes of an instance outlive every new list that has the instance
 * at the same origin with the same `registeredAt`, and are forgotten with the first list that does
 * not.
 */
export class OverlaidList {
  readonly #overlays = new Map<string, InstanceChanges>();
  #listed: readonly ServiceInstance[];
  #instances: readonly ServiceInstance[];

  constructor(listed: readonly ServiceInstance[] = NONE) {
    this.#listed = Object.freeze(listed);
    this.#instances = this.#listed;
  }

  /** The instances as they are written elsewhere. */
  get listed(): readonly ServiceInstance[] {
    return this.#listed;
  }

  /** The instances with the changes: a frozen list, and the same one until something changes. */
  get instances(): readonly ServiceInstance[] {
    return this.#instances;
  }

  /** Takes over a new list. */
  replace(listed: readonly ServiceInstance[]): void {
    const next = new Map(listed.map((instance) => [instance.instanceId, instance]));
    for (const before of this.#listed) {
      const instance = next.get(before.instanceId);
      if (instance === undefined || !isSameRegistration(instance, before)) {
        this.#overlays.delete(before.instanceId);
      }
    }
    this.#listed = Object.freeze(listed);
    this.#apply();
  }

  /**
   * Changes an instance. Gives false if the list does not have it.
   *
   * @throws InvalidInstanceError naming the field that is not what it must be, or may not change.
   */
  update(instanceId: string, changes: InstanceChanges): boolean {
    const instance = this.#instances.find((known) => known.instanceId === instanceId);
    if (instance === undefined) return false;
    const { weight, metadata, status } = withChanges(instance, changes);
    this.#overlays.set(instanceId, {
      ...this.#overlays.get(instanceId),
      ...(changes.weight !== undefined && { weight }),
      ...(changes.metadata !== undefined && { metadata }),
      ...(changes.status !== undefined && { status }),
    });
    this.#apply();
    return true;
  }

  #apply(): void {
    const before = this.#instances;
    const known = new Map(before.map((instance) => [instance.instanceId, instance]));
    const instances =
      this.#overlays.size === 0
        ? this.#listed
        : this.#listed.map((listed) => this.#applyOverlay(listed, known.get(listed.instanceId)));
    const unchanged =
      instances.length === before.length && instances.every((instance, index) => instance === before[index]);
    if (!unchanged) this.#instances = Object.freeze(instances);
  }

  /**
   * Applies the changes of an instance. Changes that equal the list are forgotten, so that the list
   * counts again.
   */
  #applyOverlay(listed: ServiceInstance, known: ServiceInstance | undefined): ServiceInstance {
    const overlay = this.#overlays.get(listed.instanceId);
    if (overlay === undefined) return listed;
    const changed = withChanges(listed, overlay);
    if (sameInstance(changed, listed)) {
      this.#overlays.delete(listed.instanceId);
      return listed;
    }
    return known !== undefined && sameInstance(known, changed) ? known : changed;
  }
}

function isSameRegistration(one: ServiceInstance, other: ServiceInstance): boolean {
  return originOf(one) === originOf(other) && one.registeredAt === other.registeredAt;
}
