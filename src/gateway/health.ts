import type { CallEngine } from '../client/call-engine.ts';
import { createVariant, type Variant } from '../client/service-variants.ts';
import type { LocalResponse } from '../middleware/server/guard/local-response.ts';
import type { CircuitState } from '../policies/circuit-breaker-options.ts';
import type { Principal } from './auth/principal.ts';
import { Networks } from './http/networks.ts';
import type { GatewayConfig } from './options.ts';

/**
 * `degraded`: some services, or versions of them, are not called since they failed. `unhealthy`: none is
 * called, or the gateway shuts down.
 */
export type GatewayHealthStatus = 'healthy' | 'degraded' | 'unhealthy';

/** The body of the response of `/health`. */
export interface GatewayHealth {
  readonly status: GatewayHealthStatus;
  /** An ISO date. */
  readonly timestamp: string;
  /** Only for callers with a token or a key, and internal addresses. */
  readonly services?: Readonly<Record<string, ServiceHealth>> | undefined;
}

/** How calls of one service went, as the circuit breaker knows from them. */
export interface ServiceHealth {
  readonly status: GatewayHealthStatus;
  /** Undefined for a service without one. */
  readonly circuitBreaker?: CircuitState | undefined;
  /** The breakers of the versions that requests are split over, by their selectors. */
  readonly versions?: Readonly<Record<string, CircuitState>> | undefined;
}

/** The parts of a gateway from which its health is read. */
export interface HealthSource {
  readonly engine: CallEngine;
  readonly draining: boolean;
}

/** The caller, who may not be told everything. */
export interface HealthRequest {
  readonly address: string;
  /** Gives the caller; undefined where there is none, or none that can be verified. */
  identify(): Promise<Principal | undefined>;
}

/** Responds to `/health`. It calls nobody: the traffic itself has told how services are. */
export type HealthResponder = (source: HealthSource, request: HealthRequest) => Promise<LocalResponse>;

export function createHealthResponder({ routes, internalAddresses = [] }: GatewayConfig): HealthResponder {
  const internal = new Networks(internalAddresses, 'internalAddresses');
  const variants = new Map<string, Map<string, Variant>>();
  for (const { service, split = [] } of routes) {
    const known = variants.get(service) ?? new Map<string, Variant>();
    for (const { select } of split) known.set(nameVersion(select), createVariant(select));
    variants.set(service, known);
  }
  return async (source, request) => {
    const isTrusted = internal.has(request.address) || (await request.identify()) !== undefined;
    const services = readServices(variants, source.engine);
    const status = source.draining ? 'unhealthy' : summarize(Object.values(services));
    const body: GatewayHealth = {
      status,
      timestamp: new Date().toISOString(),
      ...(isTrusted && { services }),
    };
    return {
      status: status === 'unhealthy' ? 503 : 200,
      headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
      body: JSON.stringify(body),
    };
  };
}

function nameVersion(select: Readonly<Record<string, string>>): string {
  return Object.entries(select)
    .map(([name, value]) => `${name}=${value}`)
    .sort()
    .join(',');
}

function readServices(
  variants: ReadonlyMap<string, ReadonlyMap<string, Variant>>,
  engine: CallEngine,
): Record<string, ServiceHealth> {
  const services = Array.from(variants, ([service, versions]) => [
    service,
    readService(engine, service, versions),
  ]);
  return Object.fromEntries(services);
}

/** A service whose requests are split has a breaker for each version, and none for all of them. */
function readService(
  engine: CallEngine,
  service: string,
  variants: ReadonlyMap<string, Variant>,
): ServiceHealth {
  const stateOf = (variant?: Variant) => engine.policiesOf(service, variant).circuitBreaker?.state;
  if (variants.size === 0) {
    const circuitBreaker = stateOf();
    return { status: toStatus([circuitBreaker]), circuitBreaker };
  }
  const versions = Object.fromEntries(Array.from(variants, ([name, variant]) => [name, stateOf(variant)]));
  return { status: toStatus(Object.values(versions)), versions } as ServiceHealth;
}

function toStatus(states: readonly (CircuitState | undefined)[]): GatewayHealthStatus {
  if (states.every((state) => state === 'open' || state === 'isolated')) return 'unhealthy';
  return states.every((state) => state === 'closed' || state === undefined) ? 'healthy' : 'degraded';
}

function summarize(services: readonly ServiceHealth[]): GatewayHealthStatus {
  if (services.every(({ status }) => status === 'unhealthy')) return 'unhealthy';
  return services.every(({ status }) => status === 'healthy') ? 'healthy' : 'degraded';
}
