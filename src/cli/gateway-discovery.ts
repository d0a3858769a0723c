import { DnsServiceDiscovery } from '../discovery/dns-service-discovery.ts';
import type { ServiceDiscovery } from '../discovery/service-discovery.ts';
import { StaticServiceDiscovery } from '../discovery/static-service-discovery.ts';
import type { DiscoveryFileOptions, RedisFileOptions } from '../gateway/config/file-options.ts';
import type { GatewayLog } from './gateway-log.ts';
import { load } from './load.ts';
import { redactPassword } from './redact.ts';

/** Makes the discovery that a file describes, and tells when it is away. */
export async function createDiscovery(
  options: DiscoveryFileOptions,
  log: GatewayLog,
): Promise<ServiceDiscovery> {
  if (options.static !== undefined) return new StaticServiceDiscovery(options.static);
  if (options.redis !== undefined) return createRedisDiscovery(options.redis, log);
  const discovery = new DnsServiceDiscovery({ services: options.dns! });
  discovery.on('failure', ({ serviceName, error }) => {
    log.warn(`the instances of '${serviceName}' cannot be looked up: ${error.message}`);
  });
  return discovery;
}

async function createRedisDiscovery(
  { url, ...redis }: RedisFileOptions,
  log: GatewayLog,
): Promise<ServiceDiscovery> {
  const { RedisServiceDiscovery } = await load(
    'discovery in Redis',
    'ioredis',
    () => import('../redis/redis-service-discovery.ts'),
  );
  const discovery = new RedisServiceDiscovery({ redis: url, ...redis });
  discovery.on('stale', ({ serviceName, error, known }) => {
    const reason = redactPassword((error as Error).message, url);
    log.warn(
      `the instances of '${serviceName}' ${known ? 'may be out of date' : 'are not known'}: ${reason}`,
    );
  });
  discovery.on('fresh', ({ serviceName }) => {
    log.info(`the instances of '${serviceName}' are up to date again`);
  });
  return discovery;
}

/**
 * Looks the services of a gateway up before the first request does, so that a discovery that is away is
 * told at the start.
 */
export function lookUp(discovery: ServiceDiscovery, services: Iterable<string>): void {
  for (const service of new Set(services)) {
    // The events of the discovery tell why, and each request looks again.
    discovery.instances(service).catch(() => {});
  }
}
