import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { findDeadLetters, findFaults, findMissingEvents } from '../../examples/demo/harness/audit.ts';
import { readBooks } from '../../examples/demo/harness/books.ts';
import { KilledOrchestrator } from '../../examples/demo/harness/killed-orchestrator.ts';
import { SagaScenes } from '../../examples/demo/harness/saga-scenes.ts';
import { orderCall, Shop, usualOrder } from '../../examples/demo/harness/shop.ts';
import { openStage, type Stage } from '../../examples/demo/harness/stage.ts';
import type { Instance } from '../../examples/demo/service.ts';
import { SERVICES } from '../../examples/demo/services.ts';

let stage: Stage;
let shop: Shop;
const running: Record<string, Instance> = {};

beforeAll(async () => {
  stage = await openStage({ redis: undefined, postgres: undefined });
  for (const service of Object.keys(SERVICES)) running[service] = await stage.start(service, () => {});
  shop = new Shop(stage.discovery, () => {});
  await shop.deliver('lamp', 1_000);
  for (const user of ['ada', 'grace', 'edsger']) await shop.register(user);
});

afterAll(async () => {
  await shop.client.close();
  await Promise.all(Object.values(running).map((instance) => instance.stop()));
  await stage.close();
});

const settle = { timeout: 10_000, interval: 50 };
/** Without the key that would have order-service see one request in two. */
const ofOnce = (order: Parameters<typeof orderCall>[0]) => ({
  ...orderCall(order),
  idempotencyKey: undefined,
});
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
  expect([...shop.accepted].filter((id) => id.startsWith('cut-'))).toHaveLength(20);
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
    const results = await Promise.allSettled([one, two].map((each) => shop.client.call(ofOnce(each))));
    const placed = results.findIndex(({ status }) => status === 'fulfilled');
    expect(await get(`/orders/${one.orderId}`)).toMatchObject([one, two][placed]!);
    expect(results[1 - placed]).toMatchObject({ status: 'rejected', reason: { status: 409 } });
    for (const late of [[two, one][placed]!, { ...[one, two][placed]!, userId: 'grace' }]) {
      expect(await shop.problemOf(ofOnce(late))).toMatchObject({ status: 409 });
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
  await shop.placeOrder('unlucky');
  await running['payment-service']!.set({ broken: false });
  await shop.placeOrder('unlucky');
  expect(shop.rejected).toContain('unlucky');
  expect(shop.accepted).not.toContain('unlucky');
  const reserve = {
    service: 'inventory-service',
    method: 'POST',
    path: '/reservations',
    body: { orderId: 'unlucky', item: 'lamp', quantity: 1 },
  } as const;
  const revoked = { status: 409, code: 'ERR_KEY_REVOKED' };
  await vi.waitFor(async () => expect(await shop.problemOf(reserve)).toMatchObject(revoked), settle);
});

test('orders at the same time sell no more than there is', async () => {
  await shop.deliver('vase', 3);
  const order = (index: number) => ({ ...usualOrder(`vase-${index}`), item: 'vase' });
  const results = await Promise.allSettled(
    [0, 1, 2, 3, 4, 5].map((index) => shop.client.call(orderCall(order(index)))),
  );
  const rejected = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  expect(rejected).toHaveLength(3);
  for (const { status, body } of rejected) {
    expect({ status, detail: body.detail }).toEqual({
      status: 424,
      detail: "'inventory-service' responded to POST /reservations with 422: there are not 1 of 'vase' left",
    });
  }
  expect((await readBooks(stage.databases)).items.get('vase')).toBe(3);
});

test('an order whose payment responds too late is charged once, or refunded if it is cancelled meanwhile', async () => {
  const lines: string[] = [];
  const scenes = new SagaScenes(shop, stage, [running['payment-service']!], (line) => lines.push(line));
  await scenes.delayPayments();
  expect(lines[0]).toMatch(/charge_payment \? ↻ charge_payment ✓ .* completed$/);
  expect(lines[2]).toMatch(/◂ charge_payment \? charge_payment undone reserve_items undone ▪ compensated$/);
  expect(shop.accepted).toContain('late');
  // So is the charge that is still under way.
  const charge = {
    service: 'payment-service',
    method: 'POST',
    path: '/charges',
    body: { orderId: 'given-up', email: 'ada@example.com', amount: 9.5 },
  } as const;
  expect(await shop.problemOf(charge)).toMatchObject({ status: 409, code: 'ERR_KEY_REVOKED' });
  const { charges } = await readBooks(stage.databases);
  expect([charges.get('late'), charges.get('given-up')]).toEqual(['succeeded', undefined]);
});

test('an order whose process is killed while its payment is under way goes on in another one', async () => {
  const url = stage.databases.urlOf('order-service');
  const orchestrator = await KilledOrchestrator.launch(url, stage.discovery, new Set());
  const lines: string[] = [];
  const scenes = new SagaScenes(shop, stage, [running['payment-service']!], (line) => lines.push(line));
  await scenes.killOrchestrator(orchestrator);
  expect(lines).toEqual([expect.stringMatching(/reserve_items ✓ ↻ charge_payment ✓ .* completed$/)]);
  expect(shop.accepted).toContain('half-way');
});

test('an order stands and ships although its mail cannot go out, which follows later', async () => {
  const notifications = running['notification-service']!;
  await notifications.set({ broken: true });
  await shop.placeOrder('no-mail');
  expect(shop.accepted).toContain('no-mail');
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
