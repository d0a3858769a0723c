import { beforeAll, expect, test, vi } from 'vitest';
import { findDeadLetters, findFaults, findMissingEvents } from '../../examples/demo/harness/audit.ts';
import { readBooks } from '../../examples/demo/harness/books.ts';
import { GatewayScene } from '../../examples/demo/harness/gateway-scene.ts';
import { byClerk, orderRequest, type Shop, usualOrder } from '../../examples/demo/harness/shop.ts';
import type { Stage } from '../../examples/demo/harness/stage.ts';
import type { Visitor } from '../../examples/demo/harness/visitor.ts';
import { openShop } from './open-shop.ts';

let stage: Stage;
let shop: Shop;
let visitor: Visitor;

beforeAll(async () => {
  ({ stage, shop } = await openShop());
  ({ visitor } = stage);
});

const settle = { timeout: 10_000, interval: 50 };
const get = (path: string) => visitor.call<unknown>({ user: 'ada', path: `/api/v1${path}` });

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
    const results = await Promise.allSettled([one, two].map((each) => visitor.call(orderRequest(each))));
    const placed = results.findIndex(({ status }) => status === 'fulfilled');
    expect(await get(`/orders/${one.orderId}`)).toMatchObject([one, two][placed]!);
    expect(results[1 - placed]).toMatchObject({ status: 'rejected', reason: { status: 409 } });
    for (const late of [[two, one][placed]!, { ...[one, two][placed]!, userId: 'grace' }]) {
      expect(await visitor.problemOf(orderRequest(late))).toMatchObject({ status: 409 });
    }
  }
});

test('an order that has shipped can be read, is listed, and cannot be cancelled', async () => {
  await shop.placeOrder('listed');
  await vi.waitFor(async () => expect(await get('/orders/listed')).toMatchObject({ end: 'shipped' }), settle);
  expect(await get('/orders/listed')).toMatchObject({ userId: 'ada', payment: 'paid', tracking: 'T-listed' });
  const listed = { orderId: 'listed', userId: 'ada', amount: 9.5, status: 'shipped' };
  await vi.waitFor(async () => expect(await get('/orders?userId=ada')).toContainEqual(listed), settle);
  const cancel = byClerk({ method: 'POST', path: '/api/v1/orders/listed/cancel' });
  expect(await visitor.problemOf(cancel)).toMatchObject({
    status: 409,
    detail: "the order 'listed' has shipped",
  });
  expect(await visitor.problemOf({ ...cancel, path: '/api/v1/orders/nothing/cancel' })).toMatchObject({
    status: 404,
  });
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
  await visitor.call(byClerk({ method: 'POST', path: '/api/v1/users/grace/deactivate' }));
  const order = orderRequest({
    orderId: 'of-grace',
    userId: 'grace',
    item: 'lamp',
    quantity: 1,
    amount: 9.5,
  });
  expect(await visitor.problemOf(order)).toMatchObject({
    status: 409,
    detail: "the user 'grace' is not active",
  });
  expect(await visitor.problemOf(order)).toMatchObject({ status: 409 });
  const { reserved, charges } = await readBooks(stage.databases);
  expect(reserved.has('of-grace')).toBe(false);
  expect(charges.has('of-grace')).toBe(false);
});

test('an order whose payment is declined gives its stock back, and its customer is told', async () => {
  const order = orderRequest({
    orderId: 'of-edsger',
    userId: 'edsger',
    item: 'lamp',
    quantity: 1,
    amount: 5_000,
  });
  expect(await visitor.problemOf(order)).toMatchObject({
    status: 424,
    detail: 'POST payment-service/charges: responded with 402: the payment was declined',
  });
  const text = 'The payment for order of-edsger failed: nothing is shipped';
  await vi.waitFor(async () => expect((await readBooks(stage.databases)).mails).toContain(text), settle);
  const { reserved, shipments } = await readBooks(stage.databases);
  expect(reserved.has('of-edsger')).toBe(false);
  expect(shipments).not.toContain('of-edsger');
});

test('an order with a field that is unknown, and one of a user who is not there, are rejected', async () => {
  const order = { orderId: 'odd', userId: 'nobody', item: 'lamp', quantity: 1, amount: 1 };
  const call = orderRequest(order);
  expect(await visitor.problemOf({ ...call, body: { ...order, email: 'x@example.com' } })).toMatchObject({
    status: 422,
    errors: [{ pointer: '/email' }],
  });
  expect(await visitor.problemOf(call)).toMatchObject({ status: 424 });
});

test('the demo shows that its gateway rejects strangers, wrong scopes and floods, and learns a route', async () => {
  const lines: string[] = [];
  await new GatewayScene(stage.gateway, visitor, (line) => lines.push(line.trim())).play();
  expect(lines).toEqual([
    expect.stringMatching(/^Without a token: 401 Unauthorized: /),
    expect.stringMatching(/^ada, who asks for a refund: 403 Forbidden: /),
    'A cashier, who has the scope: 200 {"refunded":false}',
    expect.stringMatching(/^ada, who asks for the orders of grace: 403 Forbidden: 'ada' cannot/),
    // One more is let in each three seconds.
    expect.stringMatching(/^ada reads 30 times at once: 2\d get through, \d+ get 429, Retry-After: [1-3]\.$/),
    'A reload adds /api/v2/orders: 404 before, 200 after; of 20 requests under way 20 succeed.',
  ]);
});

test('an order-service has no request of a customer pass that did not come through the gateway', async () => {
  const [instance] = await stage.discovery.instances('order-service');
  const response = await fetch(`http://${instance!.host}:${instance!.port}/orders?userId=ada`);
  expect(response.status).toBe(401);
});

test('a customer does not get the response to the same request with the same key of another one', async () => {
  const request = { ...orderRequest(usualOrder('o-keyed')), key: 'key-1' };
  await visitor.call(request);
  expect(await visitor.problemOf({ ...request, user: 'grace' })).toMatchObject({ status: 403 });
});

test('a customer finds the steps of the saga on no route, not even as a clerk', async () => {
  const step = { method: 'PUT', path: '/api/v1/orders/o1/confirmation' };
  expect(await visitor.problemOf(byClerk(step))).toMatchObject({ status: 404 });
  expect(await visitor.problemOf(byClerk({ ...step, path: '/api/v1/orders/o1' }))).toMatchObject({
    status: 405,
  });
});
