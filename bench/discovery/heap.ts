/** Tells what a client's knowledge of one service, and then of all, adds to the heap. Run with --expose-gc. */
import { setTimeout } from 'node:timers/promises';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { play } from '../support/part.ts';
import { infosOf, knowing, tell } from './moleculer.ts';
import { PROCESSES, SERVICES, serviceName } from './registry.ts';

export interface Heap {
  contender: 'holdfast' | 'moleculer';
  redis: string;
}

/** Bytes. */
export interface Heaps {
  one: number;
  all: number;
}

const services = Array.from({ length: SERVICES }, (_, service) => serviceName(service));

const FEW = 20;

async function heapUsed(): Promise<number> {
  // What was under way is done, and its garbage gone.
  await setTimeout(200);
  globalThis.gc!();
  globalThis.gc!();
  return process.memoryUsage().heapUsed;
}

async function holdfast(redis: string): Promise<Heaps> {
  const discovery = new RedisServiceDiscovery({ redis });
  // It connects.
  await discovery.instances('unknown-service');
  const before = await heapUsed();
  // One by itself is little beside what else comes and goes on the heap.
  for (const service of services.slice(0, FEW)) await discovery.instances(service);
  const one = ((await heapUsed()) - before) / FEW;
  for (const service of services) await discovery.instances(service);
  const all = (await heapUsed()) - before;
  await discovery.close();
  return { one, all };
}

async function moleculer(redis: string): Promise<Heaps> {
  const broker = await knowing(redis);
  const learn = async (names: string[]) => tell(broker, await infosOf(PROCESSES, names));
  const before = await heapUsed();
  await learn(services.slice(0, 1));
  const one = (await heapUsed()) - before;
  await learn(services);
  const all = (await heapUsed()) - before;
  await broker.stop();
  return { one, all };
}

await play<Heap>(async ({ contender, redis }) => {
  const measure = { holdfast, moleculer }[contender];
  // At first there is code to be compiled, too.
  await measure(redis);
  const heaps = await measure(redis);
  return { heaps: () => heaps };
});
