/** Clients that are told of changes, each over connections of its own. They note when they hear of each. */
import { Redis } from 'ioredis';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { now } from '../support/measure.ts';
import { play } from '../support/part.ts';
import type { ClientsOptions } from './clients.ts';
import { brokerOf } from './moleculer.ts';
import { CHANGING, MAX_WAIT, serviceName, TURNS } from './registry.ts';

interface Task extends ClientsOptions {
  /** Which of the processes of clients it is. */
  index: number;
}

/** Of a client: when it heard of each change, by its number. */
type Heard = number[];

const failures: string[] = [];

const CONTENDERS = { holdfast, publish, moleculer };

async function holdfast({ redis, refreshInterval }: Task, heard: Heard): Promise<void> {
  const discovery = new RedisServiceDiscovery({ redis, refreshInterval, timeout: MAX_WAIT });
  discovery.on('stale', ({ error }) => void failures.push(String(error)));
  await discovery.instances(serviceName(0));
  discovery.watch(serviceName(0), (instances) => {
    const change = instances.find(({ instanceId }) => instanceId === CHANGING)?.metadata.change;
    // A client that asks just then hears of several at once.
    const known = change === undefined ? Math.ceil(heard.length / TURNS) * TURNS : Number(change) + 1;
    while (heard.length < known) heard.push(now());
  });
}

async function publish({ redis: url }: Task, heard: Heard): Promise<void> {
  const redis = new Redis(url);
  redis.on('message', () => void heard.push(now()));
  await redis.subscribe('changes');
}

/** A change is a service `change-<number>`, or the end of a node `change-<number>`. */
async function moleculer({ redis, index }: Task, heard: Heard, client: number): Promise<void> {
  const broker = brokerOf(redis, `watcher-${index}-${client}`);
  const hear = (name: string) => {
    const change = /^change-(\d+)$/.exec(name)?.[1];
    if (change !== undefined) heard[Number(change)] ??= now();
  };
  const hearServices = ({ node }: { node: { services: { name: string }[] } }) => {
    for (const { name } of node.services) hear(name);
  };
  broker.localBus.on('$node.connected', hearServices);
  broker.localBus.on('$node.updated', hearServices);
  broker.localBus.on('$node.disconnected', ({ node }: { node: { id: string } }) => hear(node.id));
  broker.localBus.on('$discoverer.error', ({ error }) => void failures.push(String(error)));
  await broker.start();
}

await play<Task>(async (task) => {
  const heard: Heard[] = Array.from({ length: task.clients }, () => []);
  await Promise.all(heard.map((own, client) => CONTENDERS[task.contender](task, own, client)));
  return { heard: () => heard, failures: () => failures.splice(0) };
});
