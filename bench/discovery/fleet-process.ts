/** Keeps 10,000 instances registered, each process of the fleet over connections of its own. */
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { ServiceRegistrar } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { play } from '../support/part.ts';
import type { FleetOptions } from './fleet.ts';
import { brokerOf, serviceOf } from './moleculer.ts';
import { instancesOf, PATIENCE, serviceName } from './registry.ts';
import { heartbeat, register } from './textbook.ts';

/** Registrations under way at once. */
const BATCH = 100;
const failures: unknown[] = [];
const failed = (error: unknown) => void failures.push(String(error));

const FLEETS = { holdfast, textbook, moleculer };

async function holdfast({ redis, processes, interval }: FleetOptions): Promise<void> {
  for (let process = 0; process < processes; process++) {
    const discovery = new RedisServiceDiscovery({ redis, ttl: 3 * interval, timeout: PATIENCE });
    discovery.on('re-registered', ({ instance }) => failed(`${instance.instanceId} was forgotten`));
    const registrars = instancesOf(process, processes).map(
      (instance) => new ServiceRegistrar({ discovery, instance, heartbeatInterval: interval }),
    );
    for (const registrar of registrars) registrar.on('failure', ({ error }) => failed(error));
    for (let first = 0; first < registrars.length; first += BATCH) {
      await Promise.all(registrars.slice(first, first + BATCH).map((registrar) => registrar.register()));
    }
  }
}

async function textbook({ redis: url, processes, interval }: FleetOptions): Promise<void> {
  for (let process = 0; process < processes; process++) {
    const redis = new Redis(url);
    const instances = instancesOf(process, processes);
    await Promise.all(instances.map((instance) => register(redis, instance)));
    for (const instance of instances) setInterval(() => heartbeat(redis, instance).catch(failed), interval);
  }
}

/** A node has one service here: what its heartbeats cost does not depend on how many it has. */
async function moleculer({ redis, processes, interval }: FleetOptions): Promise<void> {
  const brokers = Array.from({ length: processes }, (_, index) =>
    brokerOf(redis, `node-${index}`, { heartbeatInterval: interval / 1_000 }),
  );
  for (const broker of brokers) {
    broker.createService(serviceOf(serviceName(0)));
    broker.localBus.on('$discoverer.error', ({ error }) => failed(error));
  }
  await Promise.all(brokers.map((broker) => broker.start()));
  const knowsAll = (broker: (typeof brokers)[number]) => broker.registry.nodes.onlineCount() === processes;
  while (!brokers.every(knowsAll)) await setTimeout(100);
}

await play<FleetOptions>(async (fleet) => {
  await FLEETS[fleet.contender](fleet);
  return { failures: () => failures.splice(0) };
});
