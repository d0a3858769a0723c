import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RateLimitStore } from '../../../../src/middleware/server/rate-limit/rate-limit-store.ts';

let keys = 0;
const newKey = () => `key-${keys++}`;

const HOUR = 3_600_000;

/**
 * Describes every store of rate limits.
 *
 * @param stores give the same store as each of several processes has it
 */
export function describeRateLimitStore(name: string, stores: () => readonly RateLimitStore[]): void {
  const store = () => stores()[0]!;

  describe(`${name} as a store of rate limits`, () => {
    it(`${name} allows a burst, tells how many are left, and rejects the next request`, async () => {
      const key = newKey();
      const rule = { limit: 3, interval: HOUR };
      const decisions = [];
      for (let count = 0; count < 4; count++) decisions.push(await store().take(key, rule));
      expect(decisions.map(({ allowed }) => allowed)).toEqual([true, true, true, false]);
      expect(decisions.map(({ remaining }) => remaining)).toEqual([2, 1, 0, 0]);
      const last = decisions[3]!;
      expect(last.retryAfter).toBeGreaterThan(HOUR / 3 - 60_000);
      expect(last.retryAfter).toBeLessThanOrEqual(HOUR / 3);
      expect(last.resetAfter).toBeGreaterThan(HOUR - 60_000);
      expect(last.resetAfter).toBeLessThanOrEqual(HOUR);
      expect(decisions[0]!.retryAfter).toBe(0);
    });

    it(`${name} counts each key by itself`, async () => {
      const rule = { limit: 1, interval: HOUR };
      const [one, other] = [newKey(), newKey()];
      expect((await store().take(one, rule)).allowed).toBe(true);
      expect((await store().take(one, rule)).allowed).toBe(false);
      expect((await store().take(other, rule)).allowed).toBe(true);
    });

    it(`${name} allows no more than a burst of many requests at once, from whichever process`, async () => {
      const rules = fc.record({
        limit: fc.integer({ min: 1, max: 50 }),
        burst: fc.integer({ min: 1, max: 50 }),
      });
      await fc.assert(
        fc.asyncProperty(rules, fc.integer({ min: 1, max: 120 }), async (bounds, requests) => {
          const key = newKey();
          const rule = { ...bounds, interval: 24 * HOUR };
          const all = stores();
          const decisions = await Promise.all(
            Array.from({ length: requests }, async (_, index) => all[index % all.length]!.take(key, rule)),
          );
          const count = decisions.filter(({ allowed }) => allowed).length;
          expect(count).toBe(Math.min(requests, bounds.burst));
        }),
        { numRuns: 25 },
      );
    });

    it(`${name} allows a client at once what a looser rule allows, whatever it did under the stricter one`, async () => {
      const key = newKey();
      await store().take(key, { limit: 1, interval: HOUR });
      const looser = { limit: 1_000, interval: 1_000, burst: 1 };
      const { allowed, retryAfter } = await store().take(key, looser);
      expect(allowed || retryAfter <= 1).toBe(true);
    });

    it(`${name} names what is wrong with a rule`, () => {
      const take = (rule: object) => () => store().take(newKey(), rule as never);
      expect(take({ limit: 0, interval: 1 })).toThrow(/option 'limit' must be a number/);
      expect(take({ limit: 1, interval: 1, burst: 0.5 })).toThrow(/option 'burst' must be a whole number/);
      expect(take({ limit: 1 })).toThrow(/needs `limit` and `interval`/);
      expect(take({ limit: 1, interval: 1, per: 'address' })).toThrow(/no option 'per'/);
    });
  });
}
