import { setTimeout } from 'node:timers/promises';
import { expect } from 'vitest';
import { defineOrderSaga } from './order-saga.ts';
import { LEASE, LONG_LEASE } from './places.ts';
import { OrchestratorProcess } from './processes.ts';
import type { Shop } from './shop.ts';

/**
 * Freezes a process in the midst of its orders until another one has finished them, and lets it go on, again and again.
 * Gives what was seen.
 */
export async function freezeOwner(
  shop: Shop,
  { rounds, orders, random }: { rounds: number; orders: number; random: () => number },
): Promise<string> {
  const { place, origins } = shop;
  const options = { place, origins, version: 1, concurrency: 100 };
  const owner = await OrchestratorProcess.launch({ ...options, lease: LEASE });
  const other = shop.openOrchestrator([defineOrderSaga(1)]);
  let lost = 0;
  for (let round = 0; round < rounds; round++) {
    const placed = shop.createOrders(`round-${round}`, orders);
    await owner.start(placed);
    await setTimeout(100 * random());
    owner.freeze();
    await Promise.all(
      placed.map(async ({ orderId }) => (await other.get(orderId))!.result().catch(() => {})),
    );
    const lengths = await shop.readLengths(placed);
    owner.thaw();
    const report = await owner.report();
    expect(await shop.readLengths(placed)).toEqual(lengths);
    lost = report!.lost;
  }
  expect(lost).toBeGreaterThan(0);
  const { completed, compensated } = await shop.expectWhole();
  return `${lost} sagas lost by the frozen process; ${completed} orders completed, ${compensated} compensated, each effect once`;
}

/**
 * Lets two processes start the same orders in the same millisecond, with fewer places than orders, while they and a
 * third one look for sagas that are due. Gives what was seen.
 */
export async function startAtOnce(
  shop: Shop,
  { rounds, orders }: { rounds: number; orders: number },
): Promise<string> {
  const { place, origins } = shop;
  const options = { place, origins, version: 1, lease: LONG_LEASE, concurrency: 5 };
  const starters = await Promise.all([1, 2].map(() => OrchestratorProcess.launch(options)));
  shop.openOrchestrator([defineOrderSaga(1)], { lease: LONG_LEASE });
  for (let round = 0; round < rounds; round++) {
    const placed = shop.createOrders(`round-${round}`, orders);
    const at = Date.now() + 50;
    await Promise.all(starters.map((starter) => starter.start(placed, at)));
    await Promise.all(starters.map((starter) => starter.report()));
  }
  const { completed, compensated } = await shop.expectWhole();
  const steps = await shop.expectAskedOnce();
  return `${completed} orders completed, ${compensated} compensated; each of ${steps} effects asked for once`;
}
