import { type Clock, systemClock, unref } from '../internal/clock.ts';
import { type Labels, OBSERVE, type Observation, Observations } from '../internal/observation.ts';
import type { ServicePolicies } from './service-policies.ts';

/**
 * The most services that are remembered besides the ones that must be kept: names may come from
 * requests.
 */
const MAX_OTHER_SERVICES = 500;
/** Milliseconds without a call after which a service is forgotten. */
const IDLE = 600_000;

/**
 * Holds the policies of each service by its name. It keeps those of the configured services, and
 * for ten minutes those of each service that has responded to a call. Policies that somebody
 * listens to stay, as does a breaker that is isolated, and an open one until it is due. Of the
 * other services it remembers the latest. A caller that still holds forgotten policies holds the
 * same ones that a later call gets.
 */
export class PoliciesByName {
  readonly #configured: ReadonlySet<string>;
  readonly #create: (service: string) => ServicePolicies;
  readonly #clock: Clock;
  readonly #known = new Map<string, ServicePolicies>();
  /** #handedOut refers to forgotten policies, which a caller may still hold. */
  readonly #handedOut = new Map<string, WeakRef<ServicePolicies>>();
  readonly #collected = new FinalizationRegistry<string>((service) => {
    if (this.#handedOut.get(service)?.deref() === undefined) this.#handedOut.delete(service);
  });
  readonly #observations = new Observations();
  #sweepAt: number;
  #timer: unknown = undefined;

  constructor(
    configured: Iterable<string>,
    create: (service: string) => ServicePolicies,
    clock: Clock = systemClock,
  ) {
    this.#configured = new Set(configured);
    this.#create = create;
    this.#clock = clock;
    for (const service of this.#configured) this.#known.set(service, create(service));
    this.#sweepAt = this.#known.size + MAX_OTHER_SERVICES;
  }

  /** Whether the service is configured. */
  isConfigured(service: string): boolean {
    return this.#configured.has(service);
  }

  /** Gives the policies of a service; undefined if they are not remembered. */
  peek(service: string): ServicePolicies | undefined {
    return this.#known.get(service);
  }

  /** Gives the policies of a service that are remembered, or new ones. */
  get(service: string): ServicePolicies {
    return this.#known.get(service) ?? this.#add(service);
  }

  close(): void {
    if (this.#timer !== undefined) this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** @internal */
  [OBSERVE](observation: Observation, labels: Labels): void {
    this.#observations.add(observation, labels);
    for (const policies of this.#known.values()) policies[OBSERVE](observation, labels);
  }

  #add(service: string): ServicePolicies {
    const policies = this.#handedOut.get(service)?.deref() ?? this.#create(service);
    this.#observations.passTo(policies);
    if (this.#known.size >= this.#sweepAt) this.#forgetOldest();
    this.#known.set(service, policies);
    this.#timer ??= this.#startTimer();
    return policies;
  }

  /**
   * Forgets the older half of the services that need not be kept. The more services must be kept,
   * the longer it is until the next time.
   */
  #forgetOldest(): void {
    const others = this.#findForgettable(this.#clock.now());
    for (const service of others.slice(0, -MAX_OTHER_SERVICES / 2)) this.#forget(service);
    this.#sweepAt = this.#known.size + MAX_OTHER_SERVICES / 2;
  }

  #forgetIdle(): void {
    const now = this.#clock.now();
    for (const service of this.#findForgettable(now)) {
      if (now - this.#known.get(service)!.calledAt >= IDLE) this.#forget(service);
    }
    this.#sweepAt = Math.max(this.#known.size, this.#configured.size) + MAX_OTHER_SERVICES;
    const left = this.#known.size > this.#configured.size;
    this.#timer = left ? this.#startTimer() : undefined;
  }

  #startTimer(): unknown {
    const timer = this.#clock.setTimeout(() => this.#forgetIdle(), IDLE);
    unref(timer);
    return timer;
  }

  /** Finds the services that need not be kept, the oldest first. */
  #findForgettable(now: number): string[] {
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
