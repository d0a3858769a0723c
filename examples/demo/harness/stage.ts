import { randomBytes } from 'node:crypto';
import {
  type EventBus,
  InMemoryEventBus,
  InMemoryServiceDiscovery,
  type ServiceDiscovery,
} from '../../../src/index.ts';
import { launchPostgres } from '../../../test/support/local-postgres.ts';
import type { Events } from '../events.ts';
import { openGateway, type ShopGateway } from '../gateway/shop-gateway.ts';
import { type Instance, type News, startInstance } from '../service.ts';
import { SERVICES } from '../services.ts';
import { createDatabases, type Databases } from './databases.ts';
import { forkInstance } from './forked-instance.ts';
import { IdentityProvider } from './identity-provider.ts';
import type { Options } from './options.ts';
import { RedisRun, reach } from './redis-run.ts';
import { Visitor } from './visitor.ts';

/** Where the instances run, and what they share. */
export interface Stage {
  readonly discovery: ServiceDiscovery;
  readonly bus: EventBus<Events>;
  readonly databases: Databases;
  readonly gateway: ShopGateway;
  /** Makes requests from outside, through the gateway. */
  readonly visitor: Visitor;
  start(service: string, tell: (news: News) => void): Promise<Instance>;
  /** Stops the instances, and leaves nothing behind. */
  close(): Promise<void>;
}

interface Backend extends Pick<Stage, 'discovery' | 'bus' | 'close'> {
  start(service: string, gatewayKeys: string, tell: (news: News) => void): Promise<Instance>;
}

/** @throws saying where there is no Redis or PostgreSQL, and why */
export async function openStage({ redis, postgres }: Options): Promise<Stage> {
  if (redis !== undefined) await reach(redis).catch(fail('Redis', redis));
  const server = postgres === undefined ? await launchPostgres() : undefined;
  const serverUrl = server?.url ?? postgres!;
  const databases = await createDatabases(serverUrl, Object.keys(SERVICES)).catch(
    fail('PostgreSQL', serverUrl),
  );
  const backend = redis === undefined ? memoryBackend(databases) : redisBackend(redis, databases);
  const provider = await IdentityProvider.create();
  const gateway = await openGateway(backend.discovery, provider.jwt);
  const starting: Promise<Instance>[] = [];
  return {
    ...backend,
    databases,
    gateway,
    visitor: new Visitor(gateway.url, provider),
    start(service, tell) {
      const instance = backend.start(service, gateway.keys, tell);
      starting.push(instance);
      return instance;
    },
    async close() {
      const stopping = starting.map(async (instance) => (await instance).stop());
      await Promise.allSettled([gateway.close(), ...stopping]);
      await backend.close();
      await (server === undefined ? databases.drop() : server.stop());
    },
  };
}

/** All of them in this process. */
function memoryBackend(databases: Databases): Backend {
  const discovery = new InMemoryServiceDiscovery();
  const bus = new InMemoryEventBus<Events>({ source: 'demo' });
  return {
    discovery,
    bus,
    start: (service, gatewayKeys, tell) =>
      startInstance(service, { discovery, bus, databaseUrl: databases.urlOf(service), gatewayKeys, tell }),
    async close() {
      await bus.close();
      await discovery.close();
    },
  };
}

/** Each of them in a process of its own, which share the Redis. */
function redisBackend(url: string, databases: Databases): Backend {
  const prefix = `holdfast-demo:${randomBytes(6).toString('hex')}`;
  const run = new RedisRun(url, prefix, 'demo');
  return {
    discovery: run.discovery,
    bus: run.bus,
    start: (service, gatewayKeys, tell) =>
      forkInstance(service, [url, prefix, databases.urlOf(service), gatewayKeys], tell),
    close: () => run.close(),
  };
}

function fail(what: string, url: string) {
  return (error: Error & { code?: string }): never => {
    throw new Error(`No ${what} to run on at ${new URL(url).host}: ${error.message || error.code}`, {
      cause: error,
    });
  };
}
