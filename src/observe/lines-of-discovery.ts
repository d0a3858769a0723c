import type { CompositeServiceDiscoveryEvents } from '../discovery/composite-service-discovery.ts';
import type { DnsServiceDiscoveryEvents } from '../discovery/dns-service-discovery.ts';
import type { HealthCheckerEvents } from '../discovery/health-checker.ts';
import type { HealthChange } from '../discovery/health-checks.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { ServiceRegistrarEvents } from '../discovery/service-registrar.ts';
import type { StaticServiceDiscoveryEvents } from '../discovery/static-service-discovery.ts';
import { counted, ending, errorFields, type Lines, line } from './line.ts';
import { instanceFields } from './lines-of-calls.ts';

interface FailedLookup {
  serviceName: string;
  error: unknown;
}

const lookupFields = ({ serviceName, error }: FailedLookup) => ({
  service: serviceName,
  ...errorFields(error),
});
const serviceOf = ({ serviceName }: { serviceName: string }) => serviceName;
const instanceOf = ({ instance }: { instance: ServiceInstance }) => instanceFields(instance);
const errorOf = ({ error }: { error: unknown }) => errorFields(error);

/**
 * The events of RedisServiceDiscovery, whose room this one does not import. A registry that is away
 * makes all services stale at once.
 */
interface RedisDiscoveryEvents {
  stale: [FailedLookup & { known: boolean }];
  fresh: [{ serviceName: string }];
  're-registered': [{ instance: ServiceInstance }];
  loopback: [{ instance: ServiceInstance }];
  'invalid-entry': [FailedLookup & { instanceId: string }];
  healed: [{ serviceName: string; keys: readonly string[] }];
  'snapshot-error': [{ error: unknown }];
}

export const REDIS_SERVICE_DISCOVERY: Lines<RedisDiscoveryEvents> = {
  stale: ending(
    'fresh',
    counted(
      ({ known }) => (known ? 'warn' : 'error'),
      'discovery not up to date',
      (event) => ({ ...lookupFields(event), known: event.known }),
      serviceOf,
    ),
  ),
  fresh: ending(
    'stale',
    counted('info', 'discovery up to date again', ({ serviceName }) => ({ service: serviceName }), serviceOf),
  ),
  're-registered': line('warn', 'instance registered again: Redis had forgotten it', instanceOf),
  loopback: line('warn', 'instance registered at a loopback address', instanceOf),
  'invalid-entry': counted(
    'warn',
    'registry entry ignored: not valid',
    (event) => ({ ...lookupFields(event), instanceId: JSON.stringify(event.instanceId).slice(1, 200) }),
    serviceOf,
  ),
  healed: line('warn', 'registry keys begun anew', ({ serviceName, keys }) => ({
    service: serviceName,
    keys,
  })),
  'snapshot-error': counted('warn', 'discovery snapshot not read or written', errorOf),
};

export const DNS_SERVICE_DISCOVERY: Lines<DnsServiceDiscoveryEvents> = {
  failure: counted('warn', 'DNS lookup failed', lookupFields, serviceOf),
};

export const STATIC_SERVICE_DISCOVERY: Lines<StaticServiceDiscoveryEvents> = {
  failure: line('error', 'discovery file not used: the last good list stays', errorOf),
};

export const COMPOSITE_SERVICE_DISCOVERY: Lines<CompositeServiceDiscoveryEvents> = {
  failure: counted('warn', 'discovery passed over: it failed', lookupFields, serviceOf),
};

export const SERVICE_REGISTRAR: Lines<ServiceRegistrarEvents> = {
  registered: ending('failure', line('info', 'instance registered', instanceOf)),
  're-registered': ending(
    'failure',
    line('warn', 'instance registered again: the registry had forgotten it', instanceOf),
  ),
  replaced: line('error', 'instance replaced by another process with its id', errorOf),
  recovered: ending(
    'failure',
    line('info', 'registration recovered', ({ instance, failures }) => ({
      ...instanceFields(instance),
      failures,
    })),
  ),
  failure: counted('error', 'registration failed', errorOf),
};

const changeFields = ({ instance, reason, cause }: HealthChange) => ({
  ...instanceFields(instance),
  reason,
  ...errorFields(cause),
});

export const HEALTH_CHECKER: Lines<HealthCheckerEvents> = {
  healthy: line('info', 'instance healthy', changeFields),
  unhealthy: line('warn', 'instance unhealthy', changeFields),
  failure: counted('warn', 'health check not carried out', errorOf),
};
