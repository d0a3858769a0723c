import { setTimeout } from 'node:timers/promises';
import { ServiceClient, ServiceResponseError } from '../../src/index.ts';
import { redisOption } from './options.ts';
import type { Charge } from './payment-service.ts';
import { Phase } from './report.ts';
import type { Instance, News } from './service.ts';
import { SERVICES } from './services.ts';
import { memoryStage, redisStage } from './stage.ts';

const ORDERS_PER_SECOND = 50;
/** Milliseconds for which an order is asked for again. */
const MAX_WAIT = 30_000;

const redis = redisOption();
const startedAt = performance.now();
const stage = redis === undefined ? memoryStage() : await redisStage(redis).catch(noRedis);
const { discovery, database } = stage;
const shop = new ServiceClient({ discovery, callerName: 'shop' });

let phase = new Phase('');
const phases: Phase[] = [];
const accepted = new Set<string>();
const rejected = new Set<string>();
const askedAgain = new Set<string>();
const unanswered = new Set<string>();

narrate('Five services, two instances each, all on this machine. Every order goes through all five.');
if (redis !== undefined) narrate('Each instance is a process of its own. They find each other by Redis.');
const running = Object.fromEntries(
  await Promise.all(
    Object.keys(SERVICES).map(async (service) => {
      return [service, await Promise.all([start(service, 1), start(service, 2)])] as const;
    }),
  ),
);

// One after the other, until all code has run in each process.
for (let index = 0; index < 30; index++) await placeOrder(`first-${index}`);

narrate('1. Steady load, all is well.');
await during('steady', 2_500);

narrate('2. One instance of user-service and one of inventory-service crash. Nobody deregisters them.');
narrate(
  '   Their calls are tried again on the other instance; after five failures in a row they get no more.',
);
const crashed = [running['user-service']![0], running['inventory-service']![0]];
const load = during('two crashed', 3_000);
// In the middle of orders.
await setTimeout(200);
if (redis !== undefined) crashed.forEach(narrateExpiry);
await Promise.all(crashed.map((instance) => instance.kill()));
await load;

narrate(
  '3. One instance of notification-service takes 400 ms for each answer. Nothing fails, it is only slow.',
);
const [slow, quick] = running['notification-service']!;
await slow.set({ delay: 400 });
const before = [await slow.received(), await quick.received()] as const;
await during('one slow', 3_000);
narrate(
  `   The slow one got ${(await slow.received()) - before[0]} calls, the other ${(await quick.received()) - before[1]}: ` +
    'peak EWMA sends calls to where they are likely to be done first.',
);
await slow.set({ delay: 0 });

narrate('4. payment-service breaks altogether.');
const payments = running['payment-service']!;
const reachedBefore = await receivedBy(payments);
for (const payment of payments) await payment.set({ broken: true });
await during('no payments', 3_000);
narrate(
  `   Of ${phase.succeeded + phase.rejected} orders, ${(await receivedBy(payments)) - reachedBefore} ` +
    'calls reached it. The others were rejected at once, and their reservations released.',
);

narrate('5. payment-service is well again. The next probe finds out.');
for (const payment of payments) await payment.set({ broken: false });
const orderServices = running['order-service']!;
const ordersBefore = await receivedByEach(orderServices);
await during('recovery', 5_000);
const [first, second] = (await receivedByEach(orderServices)).map((count, i) => count - ordersBefore[i]!);
narrate(
  `   In these 5 s ${phase.row.succeeded} of the orders succeeded; one order-service got ${first} calls, ` +
    `the other ${second}.`,
);
await during('after', 1_500);

if (redis !== undefined) {
  narrate('6. Two new instances take the place of those that crashed. Redis tells everyone of them.');
  const fresh = await Promise.all(crashed.map(({ service }) => start(service, 1)));
  crashed.forEach(({ service }, index) => {
    running[service]![0] = fresh[index]!;
  });
  const replaced = during('replaced', 5_000);
  await setTimeout(2_000);
  const pairs = crashed.map(({ service }) => running[service]!);
  const receivedBefore = await Promise.all(pairs.map(receivedByEach));
  await replaced;
  for (const [index, pair] of pairs.entries()) {
    const [own, others] = (await receivedByEach(pair)).map((count, i) => count - receivedBefore[index]![i]!);
    narrate(
      `   From the third second on the new ${crashed[index]!.service} got ${own} calls, the other ${others}.`,
    );
  }
}

console.log();
console.table(phases.map(({ row }) => row));
await audit();
await shop.close();
await Promise.all(Object.values(running).flatMap((pair) => pair.map((instance) => instance.stop())));
await stage.close();

/** @param number tells it from the other instance of the service. */
function start(service: string, number: 1 | 2): Promise<Instance> {
  return stage.start(service, (news) => hear(`${service} ${number}`, news));
}

function hear(who: string, news: News): void {
  switch (news.kind) {
    case 'retry':
      phase.retries++;
      break;
    case 'open': {
      const { service, wait } = news;
      narrate(
        `  ✗ ${who}: the circuit of ${service} opened; calls fail at once, a probe follows in ${wait.toFixed(0)} ms`,
      );
      break;
    }
    case 'half-open':
      narrate(`  ? ${who}: the circuit of ${news.service} lets one probe through`);
      break;
    case 'close':
      narrate(`  ✓ ${who}: the circuit of ${news.service} closed; calls go on`);
      break;
  }
}

/** Says when the instance is gone from what is known of its service. */
function narrateExpiry({ service, instanceId }: Instance): void {
  const unwatch = discovery.watch(service, (instances) => {
    if (instances.some((instance) => instance.instanceId === instanceId)) return;
    unwatch();
    narrate(`   The ${service} that crashed sends no heartbeats: it is no longer in the registry.`);
  });
}

function receivedByEach(instances: Instance[]): Promise<number[]> {
  return Promise.all(instances.map((instance) => instance.received()));
}

async function receivedBy(instances: Instance[]): Promise<number> {
  return (await receivedByEach(instances)).reduce((sum, count) => sum + count);
}

function noRedis(error: Error & { code?: string }): never {
  const { host } = new URL(redis!);
  console.error(`No Redis to run on at ${host}: ${error.message || error.code}`);
  process.exit(1);
}

/** Places orders at a steady pace, and waits until each has its response. */
async function during(title: string, duration: number): Promise<void> {
  phase = new Phase(title);
  phases.push(phase);
  const pending: Promise<void>[] = [];
  const begun = performance.now();
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const elapsed = performance.now() - begun;
      while (pending.length < (Math.min(elapsed, duration) * ORDERS_PER_SECOND) / 1000) {
        pending.push(placeOrder(`${title.replace(' ', '-')}-${pending.length}`));
      }
      if (elapsed < duration) return;
      clearInterval(timer);
      resolve();
    }, 10);
  });
  await Promise.all(pending);
}

/** Places the order again and again until it is accepted or rejected. */
async function placeOrder(orderId: string): Promise<void> {
  const counted = phase;
  const begun = performance.now();
  const elapsed = () => performance.now() - begun;
  while (elapsed() < MAX_WAIT) {
    try {
      await shop.call({
        service: 'order-service',
        method: 'POST',
        path: '/orders',
        body: { orderId, userId: 'ada', quantity: 1, amount: 9.5 },
        idempotencyKey: orderId,
        timeout: 5_000,
      });
      accepted.add(orderId);
      counted.succeeded++;
      counted.latencies.push(elapsed());
      return;
    } catch (error) {
      if (error instanceof ServiceResponseError && error.status === 424) {
        rejected.add(orderId);
        counted.rejected++;
        counted.rejections.push(elapsed());
        return;
      }
      // Nobody knows what became of it, as after a timeout. Under its key it may be asked for again.
      narrate(`  ${orderId}: ${error}. It is asked for again.`);
      askedAgain.add(orderId);
      await setTimeout(200);
    }
  }
  unanswered.add(orderId);
}

/** Holds the books of the services against what the shop was told. */
async function audit(): Promise<void> {
  const faults: string[] = [];
  const orders = await database.table('orders').entries();
  const reservations = await database.table('reservations').entries();
  const charges = await database.table<Charge>('charges').entries();
  const chargesOf = new Map<string, number>();
  for (const { orderId } of charges.values()) chargesOf.set(orderId, (chargesOf.get(orderId) ?? 0) + 1);

  for (const orderId of accepted) {
    if (!orders.has(orderId)) faults.push(`${orderId} was lost`);
    if (chargesOf.get(orderId) !== 1)
      faults.push(`${orderId} was charged ${chargesOf.get(orderId) ?? 0} times`);
    if (!reservations.has(orderId)) faults.push(`${orderId} has no stock reserved`);
  }
  for (const orderId of rejected) {
    if (orders.has(orderId)) faults.push(`${orderId} was rejected and is stored`);
    if (chargesOf.has(orderId)) faults.push(`${orderId} was rejected and charged`);
    if (reservations.has(orderId)) faults.push(`${orderId} was rejected and keeps its stock`);
  }
  for (const orderId of unanswered) faults.push(`${orderId} got no response`);
  for (const { title, rejected: count } of phases) {
    if (count > 0 && !['no payments', 'recovery'].includes(title))
      faults.push(`${count} orders failed in '${title}'`);
  }

  if (redis !== undefined) {
    for (const { service, instanceId } of crashed) {
      const known = await discovery.instances(service);
      if (known.some((instance) => instance.instanceId === instanceId))
        faults.push(`the ${service} that crashed is still in the registry`);
    }
  }

  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  if (faults.length === 0) {
    console.log(
      `${accepted.size} orders accepted, each charged exactly once and none lost; ${rejected.size} rejected,`,
    );
    console.log(`none of them charged, all their stock released. It took ${seconds} s.`);
    if (askedAgain.size > 0) console.log(`${askedAgain.size} of them had to be asked for more than once.`);
  } else {
    console.error(faults.join('\n'));
    process.exitCode = 1;
  }
}

function narrate(text: string): void {
  console.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}
