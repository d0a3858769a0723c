import type { Redis } from 'ioredis';
import { LoadBalancer, type StrategyName } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { median, now, table } from '../support/measure.ts';
import { commandsSent, workOf } from '../support/redis-work.ts';
import { infosOf, knowing, tell } from './moleculer.ts';
import { instancesOf, PROCESSES, serviceName } from './registry.ts';
import { instancesOneByOne, instancesPipelined, register } from './textbook.ts';

/** The textbook's calls take milliseconds each. */
const FAST = { warmUp: 10_000, calls: 10_000 };
const SLOW = { warmUp: 50, calls: 200 };
/** Calls between two looks at the clock. */
const ROUND = 10;
const SERVICE = serviceName(0);

export async function calls(redis: Redis, url: string): Promise<void> {
  const rows = [
    ["**holdfast** LoadBalancer, 'peak-ewma'", await ofHoldfast(redis, url, 'peak-ewma')],
    ["holdfast LoadBalancer, 'round-robin'", await ofHoldfast(redis, url, 'round-robin')],
    ['moleculer, round-robin, without an account of calls under way', await ofMoleculer(redis, url)],
    ['textbook, pipelined, a random one', await ofTextbook(redis, instancesPipelined)],
    ['textbook, one command after the other', await ofTextbook(redis, instancesOneByOne)],
  ] as const;
  const own = rows[0][1].microseconds;
  table(
    'A call chooses one of the 100 instances of a service',
    ['', 'Redis commands a call', 'µs a call', 'to ours'],
    rows.map(([name, { commands, microseconds }]) => [
      name,
      commands.toFixed(2),
      microseconds.toFixed(1),
      (microseconds / own).toFixed(1),
    ]),
  );
}

/** Of a call. */
interface Cost {
  commands: number;
  microseconds: number;
}

async function ofHoldfast(redis: Redis, url: string, strategy: StrategyName): Promise<Cost> {
  const discovery = new RedisServiceDiscovery({ redis: url });
  await Promise.all(instances().map((instance) => discovery.register(instance)));
  const balancer = new LoadBalancer({ discovery, strategy });
  const cost = await costOf(redis, FAST, async () => (await balancer.acquire(SERVICE)).release());
  balancer.close();
  await discovery.close();
  await redis.flushall();
  return cost;
}

async function ofMoleculer(redis: Redis, url: string): Promise<Cost> {
  const broker = await knowing(url);
  tell(broker, await infosOf(PROCESSES, [SERVICE]));
  const cost = await costOf(redis, FAST, () => {
    const endpoint = broker.findNextActionEndpoint(`${SERVICE}.get`);
    if (endpoint instanceof Error) throw endpoint;
  });
  await broker.stop();
  await redis.flushall();
  return cost;
}

async function ofTextbook(redis: Redis, read: typeof instancesPipelined): Promise<Cost> {
  await Promise.all(instances().map((instance) => register(redis, instance)));
  const cost = await costOf(redis, SLOW, async () => {
    const found = await read(redis, SERVICE);
    if (found.length !== PROCESSES) throw new Error(`${found.length} instances`);
    return found[Math.floor(Math.random() * found.length)];
  });
  await redis.flushall();
  return cost;
}

/** One of each process. */
function instances() {
  return Array.from({ length: PROCESSES }, (_, process) => instancesOf(process, PROCESSES)[0]!);
}

async function costOf(redis: Redis, { warmUp, calls }: typeof FAST, choose: () => unknown): Promise<Cost> {
  for (let call = 0; call < warmUp; call++) await choose();
  const before = await workOf(redis);
  const rounds: number[] = [];
  for (let call = 0; call < calls; call += ROUND) {
    const startedAt = now();
    for (let index = 0; index < ROUND; index++) await choose();
    rounds.push((1_000 * (now() - startedAt)) / ROUND);
  }
  const after = await workOf(redis);
  return { commands: commandsSent(before, after) / calls, microseconds: median(rounds) };
}
