import { keyOf, matches, type Selector } from '../balancing/selector.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { Clock } from '../internal/clock.ts';
import { type Labels, OBSERVE, type Observation, Observations } from '../internal/observation.ts';
import type { ServicePolicies } from './service-policies.ts';

/** The number of variants from which on those that need not be kept are forgotten. */
const MANY = 20;
/** Milliseconds without a call after which a variant need not be kept. */
const IDLE = 600_000;

/**
 * Some instances of a service whose calls are judged by themselves, such as those of one version: a
 * version that fails must not open the breaker of the others, nor spend their retry budget.
 */
export interface Variant {
  /** The metadata that the instances have. */
  readonly select: Selector;
  /** Equal for variants with equal selectors. */
  readonly key: string;
}

export function createVariant(select: Selector): Variant {
  const own = Object.freeze({ ...select });
  return Object.freeze({ select: own, key: keyOf(own) });
}

/** Holds the policies of the variants of one service. */
export class ServiceVariants {
  readonly #create: (variant: Variant) => ServicePolicies;
  readonly #clock: Clock;
  readonly #known = new Map<string, { readonly select: Selector; readonly policies: ServicePolicies }>();

  readonly #observations = new Observations();

  constructor(create: (variant: Variant) => ServicePolicies, clock: Clock) {
    this.#create = create;
    this.#clock = clock;
  }

  /** Gives the policies of a variant; makes them for its first call. */
  get(variant: Variant): ServicePolicies {
    const known = this.#known.get(variant.key);
    if (known !== undefined) return known.policies;
    if (this.#known.size >= MANY) this.#forgetIdle();
    const policies = this.#create(variant);
    this.#observations.passTo(policies);
    this.#known.set(variant.key, { select: variant.select, policies });
    return policies;
  }

  /** @internal */
  [OBSERVE](observation: Observation, labels: Labels): void {
    this.#observations.add(observation, labels);
    for (const { policies } of this.#known.values()) policies[OBSERVE](observation, labels);
  }

  /** Lets the breakers of the variants that have this instance probe without waiting. */
  allowProbe(instance: ServiceInstance): void {
    for (const { select, policies } of this.#known.values())
      if (matches(select, instance)) policies.breakerRule.allowProbe();
  }

  /** Whether new policies would do as well, for every variant. */
  mayBeForgotten(now: number, idle: number): boolean {
    for (const { policies } of this.#known.values()) if (!policies.mayBeForgotten(now, idle)) return false;
    return true;
  }

  /** Forgets the variants of earlier configurations. */
  #forgetIdle(): void {
    const now = this.#clock.now();
    for (const [key, { policies }] of this.#known) {
      if (now - policies.calledAt >= IDLE && policies.mayBeForgotten(now, IDLE)) this.#known.delete(key);
    }
  }
}
