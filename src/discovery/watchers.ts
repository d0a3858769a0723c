import { guard } from '../internal/emitter.ts';
import type { InstanceListener, Unsubscribe } from './service-discovery.ts';
import { isName, type ServiceInstance } from './service-instance.ts';

export interface ServiceChange {
  readonly serviceName: string;
  readonly instances: readonly ServiceInstance[];
}

/** Those who watch a discovery. Each is told of every change once, in order, those included that a listener makes. */
export class Watchers {
  readonly #listeners = new Map<string, Set<InstanceListener>>();
  readonly #news: ServiceChange[] = [];
  #telling = false;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(serviceName: string): boolean {
    return this.#listeners.has(serviceName);
  }

  watch(serviceName: string, listener: InstanceListener): Unsubscribe {
    const guarded = guard(listener);
    // There is never anything to tell of it, and names may come from requests.
    if (!isName(serviceName)) return () => {};
    // A function of its own, so that the same listener can watch twice.
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

  tell(serviceName: string, instances: readonly ServiceInstance[]): void {
    this.tellAll([{ serviceName, instances }]);
  }

  /** Tells of changes that happened at once: before any that a listener makes when it is told of the first. */
  tellAll(changes: readonly ServiceChange[]): void {
    this.#news.push(...changes);
    if (this.#telling) return;
    this.#telling = true;
    for (let news = this.#news.shift(); news !== undefined; news = this.#news.shift()) {
      const listeners = this.#listeners.get(news.serviceName) ?? [];
      for (const listener of [...listeners]) {
        if (this.#listeners.get(news.serviceName)?.has(listener)) listener(news.instances);
      }
    }
    this.#telling = false;
  }

  clear(): void {
    this.#listeners.clear();
    this.#news.length = 0;
    this.#size = 0;
  }
}
