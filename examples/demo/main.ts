import { InMemoryServiceDiscovery, ServiceClient, ServiceResponseError } from '../../src/index.ts';
import { inventoryRoutes, reservations } from './inventory-service.ts';
import { notificationRoutes } from './notification-service.ts';
import { orderRoutes, orders } from './order-service.ts';
import { charges, paymentRoutes } from './payment-service.ts';
import { Phase } from './report.ts';
import { type Routes, type RunningInstance, startInstance } from './service.ts';
import { userRoutes } from './user-service.ts';

const ORDERS_PER_SECOND = 50;
const SERVICES: Record<string, Routes> = {
  'user-service': userRoutes,
  'order-service': orderRoutes,
  'payment-service': paymentRoutes,
  'inventory-service': inventoryRoutes,
  'notification-service': notificationRoutes,
};

const discovery = new InMemoryServiceDiscovery();
const running: Record<string, [RunningInstance, RunningInstance]> = {};
for (const [name, routes] of Object.entries(SERVICES)) {
  running[name] = [
    await startInstance(name, discovery, routes),
    await startInstance(name, discovery, routes),
  ];
}
const instances = Object.values(running).flat();
const shop = new ServiceClient({ discovery, callerName: 'shop' });

let phase = new Phase('');
const phases: Phase[] = [];
const accepted = new Set<string>();
const refused = new Set<string>();
const startedAt = performance.now();

narrate('Five services, two instances each, all on this machine. Every order goes through all five.');
running['order-service']!.forEach(({ client }, index) => {
  const who = `order-service ${index + 1}`;
  for (const service of Object.keys(SERVICES)) {
    const { retry, circuitBreaker } = client.policies(service);
    retry!.on('retry', () => phase.retries++);
    circuitBreaker!.on('open', ({ wait }) => {
      narrate(
        `  ✗ ${who}: the circuit of ${service} opened; calls fail at once, a probe follows in ${wait.toFixed(0)} ms`,
      );
    });
    circuitBreaker!.on('half-open', () =>
      narrate(`  ? ${who}: the circuit of ${service} lets one probe through`),
    );
    circuitBreaker!.on('close', () => narrate(`  ✓ ${who}: the circuit of ${service} closed; calls go on`));
  }
});

narrate('1. Steady load, all is well.');
await during('steady', 2_500);

narrate('2. One instance of user-service and one of inventory-service crash. Nobody deregisters them.');
narrate(
  '   Their calls are tried again on the other instance; after five failures in a row they get no more.',
);
await Promise.all([running['user-service']![0].kill(), running['inventory-service']![0].kill()]);
await during('two crashed', 3_000);

narrate(
  '3. One instance of notification-service takes 400 ms for each answer. Nothing fails, it is only slow.',
);
const [slow, quick] = running['notification-service']!;
slow.delay = 400;
const before = [slow.received, quick.received] as const;
await during('one slow', 3_000);
narrate(
  `   The slow one got ${slow.received - before[0]} calls, the other ${quick.received - before[1]}: ` +
    'peak EWMA sends calls to where they are likely to be done first.',
);
slow.delay = 0;

narrate('4. payment-service breaks altogether.');
const payments = running['payment-service']!;
const reachedBefore = payments[0].received + payments[1].received;
for (const payment of payments) payment.broken = true;
await during('no payments', 3_000);
narrate(
  `   Of ${phase.succeeded + phase.refused} orders, ${payments[0].received + payments[1].received - reachedBefore} ` +
    'calls reached it. The others were refused at once, and their reservations released.',
);

narrate('5. payment-service is well again. The next probe finds out.');
for (const payment of payments) payment.broken = false;
await during('recovery', 5_000);
await during('after', 1_500);

console.log();
console.table(phases.map(({ row }) => row));
audit();
await shop.close();
await Promise.all(instances.map((instance) => instance.stop()));
await discovery.close();

/** Places orders at a steady pace, and waits until each has its answer. */
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

async function placeOrder(orderId: string): Promise<void> {
  const counted = phase;
  const begun = performance.now();
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
    counted.latencies.push(performance.now() - begun);
  } catch (error) {
    if (!(error instanceof ServiceResponseError && error.status === 424)) narrate(`  ${orderId}: ${error}`);
    refused.add(orderId);
    counted.refused++;
    counted.refusals.push(performance.now() - begun);
  }
}

/** Holds the books of the services against what the shop was told. */
function audit(): void {
  const faults: string[] = [];
  const chargesOf = new Map<string, number>();
  for (const { orderId } of charges) chargesOf.set(orderId, (chargesOf.get(orderId) ?? 0) + 1);

  for (const orderId of accepted) {
    if (!orders.has(orderId)) faults.push(`${orderId} was lost`);
    if (chargesOf.get(orderId) !== 1)
      faults.push(`${orderId} was charged ${chargesOf.get(orderId) ?? 0} times`);
    if (!reservations.has(orderId)) faults.push(`${orderId} has no stock reserved`);
  }
  for (const orderId of refused) {
    if (orders.has(orderId)) faults.push(`${orderId} was refused and is stored`);
    if (chargesOf.has(orderId)) faults.push(`${orderId} was refused and charged`);
    if (reservations.has(orderId)) faults.push(`${orderId} was refused and keeps its stock`);
  }
  for (const { title, refused: count } of phases) {
    if (count > 0 && !['no payments', 'recovery'].includes(title))
      faults.push(`${count} orders failed in '${title}'`);
  }

  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  if (faults.length === 0) {
    console.log(
      `${accepted.size} orders accepted, each charged exactly once and none lost; ${refused.size} refused,`,
    );
    console.log(`none of them charged, all their stock released. It took ${seconds} s.`);
  } else {
    console.error(faults.join('\n'));
    process.exitCode = 1;
  }
}

function narrate(text: string): void {
  console.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}
