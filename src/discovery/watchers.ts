import { guard } from '../internal/emitter.ts';
import type { InstanceListener, Unsubscribe } from './service-discovery.ts';
import { isName, type ServiceInstance } from './service-instance.ts';

/** The list of a service after a change. */
export interface InstancesUpdate {
  readonly serviceName: string;
  readonly instances: readonly ServiceInstance[];
}

/**
 * Notifies the watchers of a discovery of every change, once and in order, also of changes that a
 * listener makes.
 */
export class Watchers {
  readonly #listeners = new Map<string, Set<InstanceListener>>();
  readonly #pending: InstancesUpdate[] = [];
  #notifying = false;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(serviceName: string): boolean {
    return this.#listeners.has(serviceName);
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    const guarded = guard(listener);
    // No service has such a name, and names may come from requests.
    if (!isName(serviceName)) return () => {};
    // A new function for each call, so that the same listener can watch twice.
    const subscription: InstanceListener = (instances) => guarded(instances);
    const listeners = this.#listeners.get(serviceName) ?? new Set();
    this.#listeners.set(serviceName, listeners.add(subscription));
    this.#size++;
    return () => {
      if (!listeners.delete(subscription)) return;
      this.#size--;
      if (listeners.size === 0 && this.#listeners.get(serviceName) === listeners) {
        this.#listeners.delete(serviceName);
      }
    };
  }

  notify(serviceName: string, instances: readonly ServiceInstance[]): void {
    this.notifyAll([{ serviceName, instances }]);
  }

  /**
   * Notifies of changes that happened at once, before any change that a listener makes when it is
   * notified of the first.
   */
  notifyAll(changes: readonly InstancesUpdate[]): void {
    this.#pending.push(...changes);
    if (this.#notifying) return;
    this.#notifying = true;
    for (let update = this.#pending.shift(); update !== undefined; update = this.#pending.shift()) {
      const { serviceName, instances } = update;
      const listeners = this.#listeners.get(serviceName) ?? [];
      for (const listener of [...listeners]) {
        if (this.#listeners.get(serviceName)?.has(listener)) listener(instances);
      }
    }
    this.#notifying = false;
  }

  clear(): void {
    this.#listeners.clear();
    this.#pending.length = 0;
    this.#size = 0;
  }
}
