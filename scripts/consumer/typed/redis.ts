import { RedisError, ServiceClient, type ServiceDiscovery } from 'holdfast';
import { RedisServiceDiscovery } from 'holdfast/redis';
import type { Redis } from 'ioredis';

export async function servicesAt(redis: string | Redis): Promise<string[]> {
  const discovery = new RedisServiceDiscovery({ redis, keyPrefix: 'typed' });
  discovery.on('stale', ({ serviceName }) => console.warn(serviceName));
  try {
    return await discovery.services();
  } catch (error) {
    if (error instanceof RedisError) return [];
    throw error;
  } finally {
    await discovery.close();
  }
}

export const clientOf = (discovery: ServiceDiscovery) => new ServiceClient({ discovery });
export const client = clientOf(new RedisServiceDiscovery({ redis: { host: '127.0.0.1', port: 6379 } }));

// @ts-expect-error the options are typed, not any
new RedisServiceDiscovery({ redis: 6379 });
