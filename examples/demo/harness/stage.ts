import { randomBytes } from 'node:crypto';
import {
  type EventBus,
  InMemoryEventBus,
  InMemoryServiceDiscovery,
  type ServiceDiscovery,
} from '../../../src/index.ts';
import { launchPostgres } from '../../../test/support/local-postgres.ts';
import type { Events } from '../events.ts';
import { type Instance, type News, startInstance } from '../service.ts';
import { SERVICES } from '../services.ts';
import { createDatabases, type Databases } from './databases.ts';
import { forkInstance } from './forked-instance.ts';
import type { Options } from './options.ts';
import { RedisRun, reach } from './redis-run.ts';

/** Where the instances run, and what they share. */
export interface Stage {
  readonly discovery: ServiceDiscovery;
  readonly bus: EventBus<Events>;
  readonly databases: Databases;
  start(service: string, tell: (news: News) => void): Promise<Instance>;
  /** Stops the instances, and leaves nothing behind. */
  close(): Promise<void>;
}

type Backend = Pick<Stage, 'discovery' | 'bus' | 'start' | 'close'>;

/** @throws saying where there is no Redis or PostgreSQL, and why */
export async function openStage({ redis, postgres }: Options): Promise<Stage> {
  if (redis !== undefined) await reach(redis).catch(fail('Redis', redis));
  const server = postgres === undefined ? await launchPostgres() : undefined;
  const serverUrl = server?.url ?? postgres!;
  const databases = await createDatabases(serverUrl, Object.keys(SERVICES)).catch(
    fail('PostgreSQL', serverUrl),
  );
  const backend = redis === undefined ? memoryBackend(databases) : redisBackend(redis, databases);
  const starting: Promise<Instance>[] = [];
  return {
    ...backend,
    databases,
    start(service, tell) {
      const instance = backend.start(service, tell);
      starting.push(instance);
      return instance;
    },
    async close() {
      await Promise.allSettled(starting.map(async (instance) => (await instance).stop()));
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
    start: (service, tell) =>
      startInstance(service, { discovery, bus, databaseUrl: databases.urlOf(service), tell }),
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
    start: (service, tell) => forkInstance(service, [url, prefix, databases.urlOf(service)], tell),
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
