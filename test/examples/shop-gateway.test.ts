import { beforeAll, expect, test } from 'vitest';
import { GatewayScene } from '../../examples/demo/harness/gateway-scene.ts';
import { byClerk, orderRequest, usualOrder } from '../../examples/demo/harness/shop.ts';
import { openShop, type TestShop } from './open-shop.ts';

let opened: TestShop;

beforeAll(async () => {
  opened = await openShop();
});

test('the demo shows that its gateway rejects strangers, wrong scopes and floods, and learns a route', async () => {
  const lines: string[] = [];
  const { gateway, visitor } = opened.stage;
  await new GatewayScene(gateway, visitor, (line) => lines.push(line.trim())).play();
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
  const [instance] = await opened.stage.discovery.instances('order-service');
  const response = await fetch(`http://${instance!.host}:${instance!.port}/orders?userId=ada`);
  expect(response.status).toBe(401);
});

test('a customer does not get the response to the same request with the same key of another one', async () => {
  const { visitor } = opened.stage;
  const request = { ...orderRequest(usualOrder('o-keyed')), key: 'key-1' };
  await visitor.call(request);
  expect(await visitor.problemOf({ ...request, user: 'grace' })).toMatchObject({ status: 403 });
});

test('a customer finds the steps of the saga on no route, not even as a clerk', async () => {
  const { visitor } = opened.stage;
  const step = { method: 'PUT', path: '/api/v1/orders/o1/confirmation' };
  expect(await visitor.problemOf(byClerk(step))).toMatchObject({ status: 404 });
  expect(await visitor.problemOf(byClerk({ ...step, path: '/api/v1/orders/o1' }))).toMatchObject({
    status: 405,
  });
});
