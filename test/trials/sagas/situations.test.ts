import { describe, expect, it } from 'vitest';
import { seeded } from '../../../bench/support/seeded.ts';
import type { Death } from '../../support/events/deaths.ts';
import { startPostgres } from '../../support/postgres-server.ts';
import { startRedis } from '../../support/redis.ts';
import {
  countPaymentStatements,
  countPoints,
  killOrchestrators,
  killPayments,
} from '../../support/sagas/deaths.ts';
import { freezeOwner, startAtOnce } from '../../support/sagas/owners.ts';
import { Shop } from '../../support/sagas/shop.ts';

// A small form of them is among the tests: test/integration/sagas.test.ts.

/** Milliseconds that a situation may take. */
const LIMIT = 100_000;

const random = seeded(Number(process.env.TRIAL_SEED ?? 1));

/** Opens a shop whose sagas are in a Redis, or in the PostgreSQL of its services. */
async function openShop(kind: 'Redis' | 'PostgreSQL', delay = 0): Promise<Shop> {
  const { url: postgres } = await startPostgres();
  const place = kind === 'Redis' ? { redis: (await startRedis()).url } : { postgres };
  return Shop.open({ postgres, place, delay });
}

/** The deaths before each statement after some first ones, and after the last one. */
function deathsBetween(first: number, last: number): Death[] {
  const before = Array.from({ length: last - first }, (_, n) => ({
    at: first + n + 1,
    side: 'before' as const,
  }));
  return [...before, { at: last, side: 'after' }];
}

describe.each(['Redis', 'PostgreSQL'] as const)('with sagas in %s', (kind) => {
  it.for([
    ['completes', 'accepted', 4, 5],
    ['is compensated', 'rejected', 5, 6],
  ] as const)(
    'an order %s whose process dies before or after any write or call, and with it, for some, the one that takes over',
    { timeout: LIMIT },
    async ([, state, calls, writes], { task }) => {
      const shop = await openShop(kind);
      const rejected = state === 'rejected';
      const points = await countPoints(shop, rejected);
      expect(points).toBeGreaterThanOrEqual(3 * calls + 2 * writes);
      const once = Array.from({ length: points }, (_, index) => ({ first: index + 1 }));
      const anyPoint = () => 1 + Math.floor(points * random());
      const twice = Array.from({ length: 4 }, () => ({ first: anyPoint(), second: anyPoint() }));
      task.meta.measured = await killOrchestrators(shop, rejected, [...once, ...twice]);
    },
  );

  it('a process that is frozen for longer than its lease, and goes on, doubles nothing', {
    timeout: LIMIT,
  }, async ({ task }) => {
    const shop = await openShop(kind, 20);
    task.meta.measured = await freezeOwner(shop, { rounds: 4, orders: 15, random });
  });

  it('orders that two processes start in the same millisecond, while a third looks for sagas that are due, run once', {
    timeout: LIMIT,
  }, async ({ task }) => {
    task.meta.measured = await startAtOnce(await openShop(kind), { rounds: 5, orders: 30 });
  });
});

it('an order ends whole when payment-service dies at any statement of a charge', {
  timeout: LIMIT,
}, async ({ task }) => {
  const shop = await openShop('PostgreSQL');
  const statements = await countPaymentStatements(shop, false);
  task.meta.measured = await killPayments(shop, false, deathsBetween(0, statements));
});

it('a rejected order is compensated when payment-service dies at any statement of a refund', {
  timeout: LIMIT,
}, async ({ task }) => {
  const shop = await openShop('PostgreSQL');
  const ofCharge = await countPaymentStatements(shop, false);
  const statements = await countPaymentStatements(shop, true);
  task.meta.measured = await killPayments(shop, true, deathsBetween(ofCharge, statements));
});
