import { EventEmitter } from 'node:events';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { findDeadLetters, findFaults, findMissingEvents } from '../../examples/demo/harness/audit.ts';
import { readBooks } from '../../examples/demo/harness/books.ts';
import { KilledOrchestrator } from '../../examples/demo/harness/killed-orchestrator.ts';
import { SagaScenes } from '../../examples/demo/harness/saga-scenes.ts';
import { tellSaga } from '../../examples/demo/harness/saga-story.ts';
import { orderCall, Shop } from '../../examples/demo/harness/shop.ts';
import { openStage, type Stage } from '../../examples/demo/harness/stage.ts';
import type { Instance } from '../../examples/demo/service.ts';
import { SERVICES } from '../../examples/demo/services.ts';

let stage: Stage;
let shop: Shop;
let orchestrator: KilledOrchestrator;
const heard = new EventEmitter();
const running: Record<string, Instance> = {};

beforeAll(async () => {
  stage = await openStage({ redis: undefined, postgres: undefined });
  const start = async (service: string) => {
    running[service] = await stage.start(service, ({ kind }) => heard.emit(kind));
  };
  await Promise.all(Object.keys(SERVICES).map(start));
  // It takes a while to start.
  orchestrator = await KilledOrchestrator.launch(
    stage.databases.urlOf('order-service'),
    stage.discovery,
    new Set(),
  );
  shop = new Shop(stage.discovery, () => {});
  await shop.deliver('lamp', 1_000);
  for (const user of ['ada', 'grace', 'edsger']) await shop.register(user);
});

afterAll(async () => {
  await orchestrator.kill();
  await shop.client.close();
  await Promise.all(Object.values(running).map((instance) => instance.stop()));
  await stage.close();
});

function tellScenes() {
  const lines: string[] = [];
  const payments = [running['payment-service']!];
  return { lines, scenes: new SagaScenes(shop, stage, { payments, heard }, (line) => lines.push(line)) };
}

const settle = { timeout: 10_000, interval: 50 };
const get = (path: string) => shop.client.call<unknown>({ service: 'order-service', path });

test('orders are charged, reserved and shipped once each, and their customers told once', async () => {
  await Promise.all(Array.from({ length: 10 }, (_, index) => shop.placeOrder(`order-${index}`)));
  // The same again, as a caller that got no response does.
  await Promise.all(Array.from({ length: 10 }, (_, index) => shop.placeOrder(`order-${index}`)));
  await vi.waitFor(
    async () => expect(findFaults(shop, await readBooks(stage.databases))).toEqual([]),
    settle,
  );
  expect(shop.accepted.size).toBe(10);
  await vi.waitFor(async () => expect(await findMissingEvents(shop, stage.bus)).toEqual([]), settle);
  const { mails } = await readBooks(stage.databases);
  expect(mails.filter((text) => text.startsWith('Welcome')).sort()).toEqual([
    'Welcome, ada',
    'Welcome, edsger',
    'Welcome, grace',
  ]);
  expect(await findDeadLetters(stage.bus)).toEqual([]);
});

test('orders are placed once each also when an order-service dies in the middle of them', async () => {
  const second = await stage.start('order-service', () => {});
  const placing = Promise.all(Array.from({ length: 20 }, (_, index) => shop.placeOrder(`cut-${index}`)));
  await vi.waitFor(async () => expect(await second.received()).toBeGreaterThan(5), settle);
  await second.kill();
  await placing;
  expect([...shop.accepted.keys()].filter((id) => id.startsWith('cut-'))).toHaveLength(20);
  await vi.waitFor(
    async () => expect(findFaults(shop, await readBooks(stage.databases))).toEqual([]),
    settle,
  );
  expect(await findDeadLetters(stage.bus)).toEqual([]);
});

test('of two orders with one id that differ one is placed, as it was charged, and the other is a conflict', async () => {
  const order = { orderId: 'twice', userId: 'ada', item: 'lamp', quantity: 1, amount: 9.5 };
  const others = [{ amount: 5 }, { quantity: 2 }];
  for (const [index, other] of others.entries()) {
    const one = { ...order, orderId: `twice-${index}` };
    const two = { ...one, ...other };
    const results = await Promise.allSettled([one, two].map((each) => shop.client.call(orderCall(each))));
    const placed = results.findIndex(({ status }) => status === 'fulfilled');
    expect(await get(`/orders/${one.orderId}`)).toMatchObject([one, two][placed]!);
    expect(results[1 - placed]).toMatchObject({ status: 'rejected', reason: { status: 409 } });
    for (const late of [[two, one][placed]!, { ...[one, two][placed]!, userId: 'grace' }]) {
      expect(await shop.problemOf(orderCall(late))).toMatchObject({ status: 409 });
    }
  }
});

test('an order that has shipped can be read, is listed, and cannot be cancelled', async () => {
  await shop.placeOrder('listed');
  await vi.waitFor(async () => expect(await get('/orders/listed')).toMatchObject({ end: 'shipped' }), settle);
  expect(await get('/orders/listed')).toMatchObject({ userId: 'ada', payment: 'paid', tracking: 'T-listed' });
  const listed = { orderId: 'listed', userId: 'ada', amount: 9.5, status: 'shipped' };
  await vi.waitFor(async () => expect(await get('/orders?userId=ada')).toContainEqual(listed), settle);
  const cancel = { service: 'order-service', method: 'POST', path: '/orders/listed/cancel' } as const;
  expect(await shop.problemOf(cancel)).toMatchObject({
    status: 409,
    detail: "the order 'listed' has shipped",
  });
  expect(await shop.problemOf({ ...cancel, path: '/orders/nothing/cancel' })).toMatchObject({ status: 404 });
});

test('the events of an order, in all services, carry the correlation id of its request', async () => {
  await shop.placeOrder('correlated');
  const events = new Map<string, string>();
  await vi.waitFor(async () => {
    for await (const event of stage.bus.replay({ aggregateId: 'correlated' })) {
      events.set(event.eventType, event.metadata.correlationId);
    }
    expect(events.size).toBe(7);
  }, settle);
  expect([...events.keys()].sort()).toEqual([
    'inventory.reserve',
    'inventory.reserved',
    'notification.send',
    'order.created',
    'order.shipped',
    'payment.processed',
    'shipping.create_label',
  ]);
  expect(new Set(events.values()).size).toBe(1);
});

test('an order of a deactivated user is rejected before anything is reserved or charged', async () => {
  await shop.client.call({ service: 'user-service', method: 'POST', path: '/users/grace/deactivate' });
  const order = orderCall({ orderId: 'of-grace', userId: 'grace', item: 'lamp', quantity: 1, amount: 9.5 });
  expect(await shop.problemOf(order)).toMatchObject({
    status: 409,
    detail: "the user 'grace' is not active",
  });
  expect(await shop.problemOf(order)).toMatchObject({ status: 409 });
  const { reserved, charges } = await readBooks(stage.databases);
  expect(reserved.has('of-grace')).toBe(false);
  expect(charges.has('of-grace')).toBe(false);
});

test('an order whose payment is declined gives its stock back, and its customer is told', async () => {
  const order = orderCall({
    orderId: 'of-edsger',
    userId: 'edsger',
    item: 'lamp',
    quantity: 1,
    amount: 5_000,
  });
  expect(await shop.problemOf(order)).toMatchObject({
    status: 424,
    detail: "'payment-service' responded to POST /charges with 402: the payment was declined",
  });
  const text = 'The payment for order of-edsger failed: nothing is shipped';
  await vi.waitFor(async () => expect((await readBooks(stage.databases)).mails).toContain(text), settle);
  const { reserved, shipments } = await readBooks(stage.databases);
  expect(reserved.has('of-edsger')).toBe(false);
  expect(shipments).not.toContain('of-edsger');
});

test('an order without payments is rejected for good, also when payments go on', async () => {
  await running['payment-service']!.set({ broken: true });
  const placing = shop.placeOrder('unlucky');
  const hasTurned = async () => expect(await tellSaga('unlucky', stage.databases)).toContain('◂');
  await vi.waitFor(hasTurned, settle);
  await running['payment-service']!.set({ broken: false });
  await placing;
  await shop.placeOrder('unlucky');
  expect(shop.rejected.has('unlucky')).toBe(true);
  expect(shop.accepted.has('unlucky')).toBe(false);
  const reserve = {
    service: 'inventory-service',
    method: 'POST',
    path: '/reservations',
    body: { orderId: 'unlucky', item: 'lamp', quantity: 1 },
  } as const;
  const revoked = { status: 409, code: 'ERR_KEY_REVOKED' };
  await vi.waitFor(async () => expect(await shop.problemOf(reserve)).toMatchObject(revoked), settle);
});

test('orders at the same time sell exactly what there is, and the others are told that nothing is left', async () => {
  const { scenes, lines } = tellScenes();
  await scenes.sellOut();
  expect(lines).toEqual([
    '   5 got one, 7 did not, and 0 are left.',
    expect.stringContaining("422: there are not 1 of 'vase' left."),
  ]);
  const vases = (orderIds: Iterable<string>) => [...orderIds].filter((id) => id.startsWith('vase-')).sort();
  const sold = vases(shop.accepted.keys());
  expect(sold).toHaveLength(5);
  const reasons = vases(shop.rejected.keys()).map((orderId) => shop.rejected.get(orderId));
  expect(reasons).toEqual(
    Array(7).fill(
      "'inventory-service' responded to POST /reservations with 422: there are not 1 of 'vase' left",
    ),
  );
  const { reserved, charges, stock } = await readBooks(stage.databases);
  expect(stock.get('vase')).toBe(0);
  expect(vases(reserved)).toEqual(sold);
  expect(vases(charges.keys())).toEqual(sold);
  for (const orderId of sold) expect(charges.get(orderId)).toEqual({ status: 'succeeded', amount: 9.5 });
});

test('an order whose payment responds too late is charged once', async () => {
  const { scenes, lines } = tellScenes();
  await scenes.delayPayment();
  expect(lines.at(-1)).toMatch(/charge_payment \? ↻ charge_payment ✓ .* completed$/);
  expect(shop.accepted.has('late')).toBe(true);
  expect((await readBooks(stage.databases)).charges.get('late')?.status).toBe('succeeded');
});

test('an order that is cancelled while its payment is on the way is not charged when that arrives, nor later', async () => {
  const { scenes, lines } = tellScenes();
  await scenes.overtakePayment();
  expect(lines[1]).toMatch(/◂ charge_payment \? charge_payment undone reserve_items undone ▪ compensated$/);
  // Also not with another key: the order is revoked in the database of the charges as well.
  const charge = {
    service: 'payment-service',
    method: 'POST',
    path: '/charges',
    body: { orderId: 'given-up', email: 'ada@example.com', amount: 9.5 },
  } as const;
  expect(await shop.problemOf(charge)).toMatchObject({ status: 409, code: 'ERR_KEY_REVOKED' });
  expect((await readBooks(stage.databases)).charges.has('given-up')).toBe(false);
});

test('an order whose process is killed while its payment is under way goes on in another one', async () => {
  const { scenes, lines } = tellScenes();
  await scenes.killOrchestrator(orchestrator);
  expect(lines.at(-1)).toMatch(/reserve_items ✓ ↻ charge_payment ✓ .* completed$/);
  expect(shop.accepted.has('half-way')).toBe(true);
  expect((await readBooks(stage.databases)).charges.get('half-way')?.status).toBe('succeeded');
  await vi.waitFor(async () => expect(await findMissingEvents(shop, stage.bus)).toEqual([]), settle);
});

test('an order stands and ships although its mail cannot go out, which follows later', async () => {
  const notifications = running['notification-service']!;
  await notifications.set({ broken: true });
  await shop.placeOrder('no-mail');
  expect(shop.accepted.has('no-mail')).toBe(true);
  await vi.waitFor(
    async () => expect(await get('/orders/no-mail')).toMatchObject({ end: 'shipped' }),
    settle,
  );
  const thanks = 'Thank you for order no-mail';
  expect((await readBooks(stage.databases)).mails).not.toContain(thanks);
  await notifications.set({ broken: false });
  await vi.waitFor(async () => expect((await readBooks(stage.databases)).mails).toContain(thanks), settle);
});

test('an order with a field that is unknown, and one of a user who is not there, are rejected', async () => {
  const order = { orderId: 'odd', userId: 'nobody', item: 'lamp', quantity: 1, amount: 1 };
  const call = orderCall(order);
  expect(await shop.problemOf({ ...call, body: { ...order, email: 'x@example.com' } })).toMatchObject({
    status: 422,
    errors: [{ pointer: '/email' }],
  });
  expect(await shop.problemOf(call)).toMatchObject({ status: 424 });
});
