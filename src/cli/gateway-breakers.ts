import { engineOf } from '../client/call-engine.ts';
import type { ServiceClient } from '../client/service-client.ts';
import { createVariant, type Variant } from '../client/service-variants.ts';
import type { RouteOptions } from '../gateway/options.ts';
import type { CircuitBreaker } from '../policies/circuit-breaker.ts';
import type { GatewayLog } from './gateway-log.ts';

/** Tells when the breaker of a service of a gateway, or of a version of it, opens and closes. */
export class GatewayBreakers {
  readonly #client: ServiceClient;
  readonly #log: GatewayLog;
  readonly #followed = new WeakSet<CircuitBreaker>();

  constructor(client: ServiceClient, log: GatewayLog) {
    this.#client = client;
    this.#log = log;
  }

  /** Follows the breakers that requests of these routes come to, besides those followed before. */
  follow(routes: readonly RouteOptions[]): void {
    for (const { service, split } of routes) {
      if (split === undefined) this.#follow(service);
      else for (const { select } of split) this.#follow(service, createVariant(select));
    }
  }

  #follow(service: string, variant?: Variant): void {
    const { circuitBreaker } = engineOf(this.#client).policiesOf(service, variant).handOut();
    if (circuitBreaker === undefined || this.#followed.has(circuitBreaker)) return;
    this.#followed.add(circuitBreaker);
    const { name } = circuitBreaker;
    // It opens again after each probe that fails, which would fill the log of a service that is away.
    circuitBreaker.on('open', ({ openings }) => {
      if (openings === 1) this.#log.warn(`the circuit breaker '${name}' is open: too many calls failed`);
    });
    circuitBreaker.on('close', () => this.#log.info(`the circuit breaker '${name}' is closed again`));
  }
}
