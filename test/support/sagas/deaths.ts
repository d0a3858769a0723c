import { setTimeout } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Death } from '../events/deaths.ts';
import { freePort } from '../free-port.ts';
import type { OrchestratorOptions } from './orchestrator.ts';
import { defineOrderSaga } from './order-saga.ts';
import { LEASE, LONG_LEASE } from './places.ts';
import { OrchestratorProcess } from './processes.ts';
import { originOf, type PlacedOrder, type Shop } from './shop.ts';

/** The processes that live at once. */
const LANES = 3;
/** Milliseconds in which a process dies, though its order has ended. */
const GRACE = 2_000;

/** The point at which the process dies that starts an order, and that at which the one dies that takes it over. */
export interface OrchestratorDeath {
  readonly first: number;
  readonly second?: number;
}

/** Counts the points at which a process can die that takes an order to its end. */
export async function countPoints(shop: Shop, rejected: boolean): Promise<number> {
  const process = await launch(shop, 1, { lease: LONG_LEASE });
  await process.start(shop.createOrders(rejected ? 'whole-rejected' : 'whole', 1, rejected));
  const report = await process.report();
  await process.kill();
  return report!.points;
}

/**
 * Lets the processes die that run orders, each at a point; another process takes all of them over. Gives what was
 * seen.
 */
export async function killOrchestrators(
  shop: Shop,
  rejected: boolean,
  deaths: readonly OrchestratorDeath[],
): Promise<string> {
  const orders = shop.createOrders(rejected ? 'rejected' : 'accepted', deaths.length, rejected);
  // A version of its own keeps each order from the processes of the others.
  const placed = orders.map((order, n) => ({ order, version: n + 2, death: deaths[n]! }));
  let died = 0;
  await inLanes(placed, async ({ order, version, death: { first, second } }) => {
    const reached = await liveAndDie(shop, { order, version }, first);
    expect(reached, `the death at point ${first}`).toBe(true);
    died++;
    if (second !== undefined && (await liveAndDie(shop, { order, version }, second))) died++;
  });
  await shop.finish(placed);
  const { completed, compensated } = await shop.expectWhole();
  expect(rejected ? completed : compensated).toBe(0);
  return `${died} deaths; ${completed} orders completed, ${compensated} compensated, each effect once`;
}

/** Counts the statements that payment-service sends for an order. */
export async function countPaymentStatements(shop: Shop, rejected: boolean): Promise<number> {
  const { port, saga, orchestrator } = await openLane(shop, LANES);
  const service = await shop.launchService(port);
  const [order] = shop.createOrders(rejected ? 'whole-rejected' : 'whole', 1, rejected);
  const handle = await orchestrator.start(saga, order!, { sagaId: order!.orderId });
  await handle.result().catch(() => {});
  const count = await service.countStatements();
  await service.kill();
  return count;
}

/** Lets payment-service die once for each order, at one of its statements. Gives what was seen. */
export async function killPayments(shop: Shop, rejected: boolean, deaths: readonly Death[]): Promise<string> {
  const orders = shop.createOrders('order', deaths.length, rejected);
  const placed = orders.map((order, n) => ({ order, death: deaths[n]! }));
  const lanes = await Promise.all(Array.from({ length: LANES }, (_, lane) => openLane(shop, lane)));
  await inLanes(placed, async ({ order, death }, lane) => {
    const { port, saga, orchestrator } = lanes[lane]!;
    const doomed = await shop.launchService(port, death);
    const handle = await orchestrator.start(saga, order, { sagaId: order.orderId });
    const ended = handle.result().catch(() => {});
    const died = doomed.died().then(() => true);
    const told = `payment-service dies ${death.side} its statement ${death.at}`;
    // It may die when it has responded already.
    expect(await Promise.race([died, ended.then(() => setTimeout(GRACE))]), told).toBe(true);
    const service = await shop.launchService(port);
    await ended;
    await service.kill();
  });
  const { completed, compensated } = await shop.expectWhole();
  return `${deaths.length} deaths; ${completed} orders completed, ${compensated} compensated, each charge and refund at most once`;
}

/** Whether the process has died before its order had ended. */
async function liveAndDie(shop: Shop, { order, version }: PlacedOrder, deathAt: number): Promise<boolean> {
  const process = await launch(shop, version, { deathAt });
  await process.start([order]);
  const report = await process.report();
  await process.kill();
  return report === undefined;
}

function launch(
  { place, origins }: Shop,
  version: number,
  options: Pick<Partial<OrchestratorOptions>, 'lease' | 'deathAt'>,
): Promise<OrchestratorProcess> {
  return OrchestratorProcess.launch({
    ...{ place, origins, version, lease: LEASE, concurrency: 10 },
    ...options,
  });
}

/** Opens an orchestrator with a payment-service of its own, which is to be launched on the port. */
async function openLane(shop: Shop, lane: number) {
  const port = await freePort();
  const origins = { ...shop.origins, 'payment-service': [originOf(port)] };
  // The first one gives up while payment-service is away: what may have happened is undone.
  const saga = defineOrderSaga(lane + 1, lane === 0 ? 3 : 30);
  return { port, saga, orchestrator: shop.openOrchestrator([saga], { origins }) };
}

async function inLanes<Item>(
  items: readonly Item[],
  run: (item: Item, lane: number) => Promise<void>,
): Promise<void> {
  const left = [...items];
  const runLane = async (lane: number) => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await run(item, lane);
  };
  await Promise.all(Array.from({ length: LANES }, (_, lane) => runLane(lane)));
}
