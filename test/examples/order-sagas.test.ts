import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PAY } from '../../examples/demo/gateway/routes.ts';
import { findDeadLetters, findFaults, findMissingEvents } from '../../examples/demo/harness/audit.ts';
import { readBooks } from '../../examples/demo/harness/books.ts';
import { KilledOrchestrator } from '../../examples/demo/harness/killed-orchestrator.ts';
import { SagaScenes } from '../../examples/demo/harness/saga-scenes.ts';
import { tellSaga } from '../../examples/demo/harness/saga-story.ts';
import { byClerk, type Shop } from '../../examples/demo/harness/shop.ts';
import type { Stage } from '../../examples/demo/harness/stage.ts';
import { openShop, type TestShop } from './open-shop.ts';

let stage: Stage;
let shop: Shop;
let running: TestShop['running'];
let scenes: SagaScenes;
let orchestrator: KilledOrchestrator;
/** All that the scenes have told. */
const lines: string[] = [];

beforeAll(async () => {
  const opened = await openShop();
  ({ stage, shop, running } = opened);
  const payments = [running['payment-service']!];
  scenes = new SagaScenes(shop, stage, { payments, heard: opened.heard }, (line) => lines.push(line));
  // Its process takes a while to start.
  const url = stage.databases.urlOf('order-service');
  orchestrator = await KilledOrchestrator.launch(url, stage.discovery, new Set());
});

afterAll(() => orchestrator.kill());

const settle = { timeout: 10_000, interval: 50 };
const get = (path: string) => stage.visitor.call<unknown>({ user: 'ada', path: `/api/v1${path}` });

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
  const reserve = byClerk({
    method: 'POST',
    path: '/api/v1/inventory/reservations',
    body: { orderId: 'unlucky', item: 'lamp', quantity: 1 },
  });
  const revoked = { status: 409, code: 'ERR_KEY_REVOKED' };
  await vi.waitFor(async () => expect(await stage.visitor.problemOf(reserve)).toMatchObject(revoked), settle);
});

test('orders at the same time sell exactly what there is, and the others are told that nothing is left', async () => {
  await scenes.sellOut();
  expect(lines.slice(-2)).toEqual([
    '   5 got one, 7 did not, and 0 are left.',
    expect.stringContaining("422: there are not 1 of 'vase' left."),
  ]);
  const vases = (orderIds: Iterable<string>) => [...orderIds].filter((id) => id.startsWith('vase-')).sort();
  const sold = vases(shop.accepted.keys());
  expect(sold).toHaveLength(5);
  const reasons = vases(shop.rejected.keys()).map((orderId) => shop.rejected.get(orderId));
  expect(reasons).toEqual(
    Array(7).fill("POST inventory-service/reservations: responded with 422: there are not 1 of 'vase' left"),
  );
  const { reserved, charges, stock } = await readBooks(stage.databases);
  expect(stock.get('vase')).toBe(0);
  expect(vases(reserved)).toEqual(sold);
  expect(vases(charges.keys())).toEqual(sold);
  for (const orderId of sold) expect(charges.get(orderId)).toEqual({ status: 'succeeded', amount: 9.5 });
});

test('an order whose payment responds too late is charged once', async () => {
  await scenes.delayPayment();
  expect(lines.at(-1)).toMatch(/charge_payment \? ↻ charge_payment ✓ .* completed$/);
  expect(shop.accepted.has('late')).toBe(true);
  expect((await readBooks(stage.databases)).charges.get('late')?.status).toBe('succeeded');
});

test('an order that is cancelled while its payment is on the way is not charged when that arrives, nor later', async () => {
  await scenes.overtakePayment();
  expect(lines.at(-2)).toMatch(
    /◂ charge_payment \? charge_payment undone reserve_items undone ▪ compensated$/,
  );
  // Also not with another key: the order is revoked in the database of the charges as well.
  const charge = {
    user: 'cashier',
    scopes: [PAY],
    method: 'POST',
    path: '/api/v1/payments',
    body: { orderId: 'given-up', email: 'ada@example.com', amount: 9.5 },
  };
  expect(await stage.visitor.problemOf(charge)).toMatchObject({ status: 409, code: 'ERR_KEY_REVOKED' });
  expect((await readBooks(stage.databases)).charges.has('given-up')).toBe(false);
});

test('an order whose process is killed while its payment is under way goes on in another one', async () => {
  await scenes.killOrchestrator(orchestrator);
  expect(lines.at(-1)).toMatch(/reserve_items ✓ ↻ charge_payment ✓ .* completed$/);
  expect(shop.accepted.has('half-way')).toBe(true);
  expect((await readBooks(stage.databases)).charges.get('half-way')?.status).toBe('succeeded');
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

test('money and stock add up after all that, and the bus has the beginning and the end of every saga', async () => {
  const findAll = async () => [
    ...findFaults(shop, await readBooks(stage.databases)),
    ...(await findMissingEvents(shop, stage.bus)),
  ];
  await vi.waitFor(async () => expect(await findAll()).toEqual([]), settle);
  expect([...shop.accepted.keys()]).toEqual(expect.arrayContaining(['late', 'half-way', 'no-mail']));
  expect([...shop.rejected.keys()]).toEqual(expect.arrayContaining(['unlucky', 'given-up']));
  expect(await findDeadLetters(stage.bus)).toEqual([]);
});
