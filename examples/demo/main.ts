import { EventEmitter } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import type { DomainEvent } from '../../src/index.ts';
import { findDeadLetters, findFaults, findMissingEvents } from './harness/audit.ts';
import { readBooks } from './harness/books.ts';
import { GatewayScene } from './harness/gateway-scene.ts';
import { KilledOrchestrator } from './harness/killed-orchestrator.ts';
import { readOptions } from './harness/options.ts';
import { SagaScenes } from './harness/saga-scenes.ts';
import { byClerk, orderRequest, Shop } from './harness/shop.ts';
import { openStage } from './harness/stage.ts';
import { type Instance, type News, tellOf } from './service.ts';
import { SERVICES } from './services.ts';

/** Milliseconds within which the events of the last orders are handled. */
const EVENTS_TIMEOUT = 10_000;

const options = readOptions();
const startedAt = performance.now();
let leaving = false;
const opening = openStage(options).catch(giveUp);
process.once('SIGINT', () => void leave(130));
process.once('SIGTERM', () => void leave(143));
process.on('uncaughtException', (error) => {
  if (!leaving) console.error(error);
  void leave(1);
});
const stage = await opening;
const { discovery, bus, databases, gateway, visitor } = stage;
const shop = new Shop(visitor, narrate);
/** Emits the kind of each news. */
const heard = new EventEmitter();
tellOf(gateway.client, (news) => hear('gateway', news));

narrate(
  'A gateway, and five services, two instances each, all on this machine. Every order goes through all of them.',
);
narrate(
  'Each service has a PostgreSQL database of its own, and they tell each other by events what has happened.',
);
if (options.redis !== undefined)
  narrate('Each instance is a process of its own. They find each other by Redis.');
const running = Object.fromEntries(
  await Promise.all(
    Object.keys(SERVICES).map(async (service) => {
      return [service, await Promise.all([start(service, 1), start(service, 2)])] as const;
    }),
  ),
);

await shop.deliver('lamp', 10_000);
for (const user of ['ada', 'grace', 'edsger']) await shop.register(user);
// One after the other, until all code has run in each process.
for (let index = 0; index < 20; index++) await shop.placeOrder(`first-${index}`);

narrate('1. Customers and clerks come through the gateway, with tokens. It says no where it has to.');
await new GatewayScene(gateway, visitor, narrate).play();

narrate('2. Steady load, all is well.');
await shop.during('steady', 2_000);

narrate('3. One instance of user-service and one of inventory-service crash. Nobody deregisters them.');
narrate(
  '   Their calls are tried again on the other instance; after five failures in a row they get no more.',
);
const crashed = [running['user-service']![0], running['inventory-service']![0]];
const load = shop.during('two crashed', 3_000);
// In the middle of orders.
await setTimeout(200);
if (options.redis !== undefined) crashed.forEach(narrateExpiry);
await Promise.all(crashed.map((instance) => instance.kill()));
await load;

narrate(
  '4. One instance of notification-service takes 400 ms for each answer. Nothing fails, it is only slow.',
);
const [slow, quick] = running['notification-service']!;
await slow.set({ delay: 400 });
const before = [await slow.received(), await quick.received()] as const;
await shop.during('one slow', 3_000);
narrate(
  `   The slow one got ${(await slow.received()) - before[0]} calls, the other ${(await quick.received()) - before[1]}: ` +
    'peak EWMA sends calls to where they are likely to be done first.',
);
await slow.set({ delay: 0 });

narrate('5. payment-service breaks altogether.');
const payments = running['payment-service']!;
const reachedBefore = await receivedBy(payments);
for (const payment of payments) await payment.set({ broken: true });
await shop.during('no payments', 3_000);
narrate(
  `   Of ${shop.phase.succeeded + shop.phase.rejected} orders, ${(await receivedBy(payments)) - reachedBefore} ` +
    'calls reached it. The others failed at once. The orders are rejected, and undone.',
);

narrate('6. payment-service is well again. The next probe finds out.');
for (const payment of payments) await payment.set({ broken: false });
const orderServices = running['order-service']!;
const ordersBefore = await receivedByEach(orderServices);
await shop.during('recovery', 5_000);
const [first, second] = (await receivedByEach(orderServices)).map((count, i) => count - ordersBefore[i]!);
narrate(
  `   In these 5 s ${shop.phase.row.succeeded} of the orders succeeded; one order-service got ${first} calls, ` +
    `the other ${second}.`,
);
await shop.during('after', 1_000);

const scenes = new SagaScenes(shop, stage, { payments, heard }, narrate);
const killed = new Set(crashed.map(({ instanceId }) => instanceId));
const orchestrator = await KilledOrchestrator.launch(databases.urlOf('order-service'), discovery, killed);

narrate('7. grace is deactivated, and orders. edsger orders more than his bank allows.');
await visitor.call(byClerk({ method: 'POST', path: '/api/v1/users/grace/deactivate' }));
const ofGrace = orderRequest({
  orderId: 'of-grace',
  userId: 'grace',
  item: 'lamp',
  quantity: 1,
  amount: 9.5,
});
const ofEdsger = orderRequest({
  orderId: 'of-edsger',
  userId: 'edsger',
  item: 'lamp',
  quantity: 1,
  amount: 5_000,
});
for (const order of [ofGrace, ofEdsger]) {
  const { status, title, detail } = await visitor.problemOf(order);
  narrate(`   ${status} ${title}: ${detail}.`);
}
await scenes.tell('of-edsger');
const rename = (name: string) =>
  byClerk({ method: 'PATCH', path: '/api/v1/users/ada', body: { version: 1, name } });
await visitor.call(rename('Ada'));
narrate(
  `   Two clerks change ada at once. The second one gets: ${(await visitor.problemOf(rename('Lady Ada'))).detail}.`,
);

narrate('8. There are 5 vases, and 12 customers order one at the same moment.');
await scenes.sellOut();

narrate('9. payment-service responds too late: for a while nobody knows whether it has charged.');
await scenes.delayPayment();
await scenes.overtakePayment();

// Processes take a while to start.
const starting = options.redis === undefined ? [] : crashed.map(({ service }) => start(service, 1));

narrate('10. A process that runs a saga is killed while the payment is under way. Another one goes on.');
await scenes.killOrchestrator(orchestrator);

if (options.redis !== undefined) {
  narrate('11. Two new instances take the place of those that crashed. Redis tells everyone of them.');
  const fresh = await Promise.all(starting);
  crashed.forEach(({ service }, index) => {
    running[service]![0] = fresh[index]!;
  });
  const replaced = shop.during('replaced', 5_000);
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
console.table(shop.phases.map(({ row }) => row));
report(await audit());
await tellEvents('after-0');
await stage.close();

/** @param number tells it from the other instance of the service. */
function start(service: string, number: 1 | 2): Promise<Instance> {
  return stage.start(service, (news) => hear(`${service} ${number}`, news));
}

function hear(who: string, news: News): void {
  heard.emit(news.kind);
  switch (news.kind) {
    case 'retry':
      shop.phase.retries++;
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

function giveUp(error: Error): never {
  console.error(error.message);
  process.exit(1);
}

/** Ends in the middle of the story, and leaves nothing behind: no process, no database, no key in Redis. */
async function leave(code: number): Promise<void> {
  if (leaving) return;
  leaving = true;
  const { close } = await opening;
  await close().catch((error) => console.error(error));
  process.exit(code);
}

function narrate(text: string): void {
  if (leaving) return;
  console.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}

/** Waits until the events of the last orders are handled; gives what is wrong with the books then. */
async function audit(): Promise<string[]> {
  const end = performance.now() + EVENTS_TIMEOUT;
  const find = async () => [
    ...findFaults(shop, await readBooks(databases)),
    ...(await findMissingEvents(shop, bus)),
  ];
  let faults = await find();
  while (faults.length > 0 && performance.now() < end) {
    await setTimeout(200);
    faults = await find();
  }
  faults.push(...(await findDeadLetters(bus)));
  if (options.redis === undefined) return faults;
  for (const { service, instanceId } of crashed) {
    const known = await discovery.instances(service);
    if (known.some((instance) => instance.instanceId === instanceId))
      faults.push(`the ${service} that crashed is still in the registry`);
  }
  return faults;
}

/** Tells the events of one order, as the bus keeps them. */
async function tellEvents(orderId: string): Promise<void> {
  const events: DomainEvent[] = [];
  for await (const event of bus.replay({ aggregateId: orderId })) events.push(event);
  events.sort((one, other) => one.timestamp - other.timestamp);
  console.log(`\n${orderId} in events: ${events.map(({ eventType }) => eventType).join(', ')};`);
  const ids = new Set(events.map(({ metadata }) => metadata.correlationId));
  console.log(`they share the correlation id of the request: ${[...ids].join(', ')}`);
}

function report(faults: readonly string[]): void {
  if (faults.length > 0) {
    console.error(faults.join('\n'));
    process.exitCode = 1;
    return;
  }
  const { accepted, rejected, askedAgain } = shop;
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  console.log(
    `${accepted.size} orders accepted, each charged and shipped exactly once, and its customer told once;`,
  );
  console.log(`${rejected.size} rejected, none of them charged or shipped, all their stock released.`);
  console.log(`No event was lost, and none was left over. It took ${seconds} s.`);
  if (askedAgain.size > 0) console.log(`${askedAgain.size} of them had to be asked for more than once.`);
}
