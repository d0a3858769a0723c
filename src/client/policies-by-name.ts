import type { ServicePolicies } from './service-policies.ts';

/** Services besides those that are kept, at most, since names may come from requests. */
const MAX_OTHERS = 500;
/** Milliseconds since its last call after which a service is forgotten. */
const IDLE = 600_000;

/**
 * The policies of each service by its name. It keeps those of the services that are configured, and for ten minutes those
 * of each service that has answered a call. Policies that somebody listens to stay, as does a breaker that is isolated, and
 * an open one until it is due. Of the others it remembers the latest; whoever still holds those that it has
 * forgotten, holds the ones that a later call finds.
 */
export class PoliciesByName {
  readonly #configured: ReadonlySet<string>;
  readonly #make: (service: string) => ServicePolicies;
  readonly #known = new Map<string, ServicePolicies>();
  /** Forgotten here, and perhaps not by whoever asked for them. */
  readonly #handedOut = new Map<string, WeakRef<ServicePolicies>>();
  readonly #collected = new FinalizationRegistry<string>((service) => {
    if (this.#handedOut.get(service)?.deref() === undefined) this.#handedOut.delete(service);
  });
  #sweepAt: number;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(configured: Iterable<string>, make: (service: string) => ServicePolicies) {
    this.#configured = new Set(configured);
    this.#make = make;
    for (const service of this.#configured) this.#known.set(service, make(service));
    this.#sweepAt = this.#known.size + MAX_OTHERS;
  }

  /** Whether the service is one of those that are configured. */
  isConfigured(service: string): boolean {
    return this.#configured.has(service);
  }

  /** Undefined if they are not remembered. */
  peek(service: string): ServicePolicies | undefined {
    return this.#known.get(service);
  }

  /** Those that are remembered, or new ones. */
  get(service: string): ServicePolicies {
    return this.#known.get(service) ?? this.#add(service);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #add(service: string): ServicePolicies {
    const policies = this.#handedOut.get(service)?.deref() ?? this.#make(service);
    if (this.#known.size >= this.#sweepAt) this.#makeRoom();
    this.#known.set(service, policies);
    this.#timer ??= setTimeout(() => this.#forgetIdle(), IDLE).unref();
    return policies;
  }

  /** Forgets the older half of those that need not be kept. Where most must be, it looks the less often. */
  #makeRoom(): void {
    const others = this.#others(performance.now());
    for (const service of others.slice(0, -MAX_OTHERS / 2)) this.#forget(service);
    this.#sweepAt = this.#known.size + MAX_OTHERS / 2;
  }

  #forgetIdle(): void {
    const now = performance.now();
    for (const service of this.#others(now)) {
      if (now - this.#known.get(service)!.calledAt >= IDLE) this.#forget(service);
    }
    this.#sweepAt = Math.max(this.#known.size, this.#configured.size) + MAX_OTHERS;
    const left = this.#known.size > this.#configured.size;
    this.#timer = left ? setTimeout(() => this.#forgetIdle(), IDLE).unref() : undefined;
  }

  /** Those that need not be kept, the oldest first. */
  #others(now: number): string[] {
    const others: string[] = [];
    for (const [service, policies] of this.#known) {
      if (!this.#configured.has(service) && policies.mayBeForgotten(now, IDLE)) others.push(service);
    }
    return others;
  }

  #forget(service: string): void {
    const policies = this.#known.get(service)!;
    this.#known.delete(service);
    if (!policies.handedOut) return;
    this.#handedOut.set(service, new WeakRef(policies));
    this.#collected.register(policies, service);
  }
}
