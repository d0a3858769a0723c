import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InMemoryRateLimitStore } from '../../../../src/middleware/server/rate-limit/in-memory-rate-limit-store.ts';
import { describeRateLimitStore } from './rate-limit-store-contract.ts';

const shared = new InMemoryRateLimitStore();
describeRateLimitStore('an in-memory rate limit store', () => [shared]);

/** A store on a clock that moves when the test says so. */
function storeOnClock(maxKeys = 10) {
  let now = 0;
  const store = new InMemoryRateLimitStore({ maxKeys, now: () => now });
  return { store, advance: (milliseconds: number) => (now += milliseconds), now: () => now };
}

const RULES = fc.record({
  limit: fc.integer({ min: 1, max: 1_000 }),
  interval: fc.integer({ min: 1, max: 100_000 }),
  burst: fc.integer({ min: 1, max: 20 }),
});

describe('an in-memory rate limit store', () => {
  it('an in-memory rate limit store never allows more in any window than a burst and what the rate allows', () => {
    const pauses = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 500, noNaN: true })), {
      minLength: 1,
      maxLength: 150,
    });
    fc.assert(
      fc.property(RULES, pauses, (rule, waits) => {
        const { store, advance, now } = storeOnClock();
        const allowedAt: number[] = [];
        for (const wait of waits) {
          advance(wait);
          if (store.take('client', rule).allowed) allowedAt.push(now());
        }
        for (let from = 0; from < allowedAt.length; from++) {
          for (let to = from; to < allowedAt.length; to++) {
            const most = rule.burst + ((allowedAt[to]! - allowedAt[from]!) * rule.limit) / rule.interval;
            // A turn that is a microsecond away has come.
            expect(to - from + 1).toBeLessThanOrEqual(most + 0.001 * rule.limit + 1e-6);
          }
        }
      }),
    );
  });

  it('an in-memory rate limit store allows a rejected request after the time that it told, and not before', () => {
    fc.assert(
      fc.property(RULES, fc.integer({ min: 0, max: 60 }), (rule, before) => {
        const { store, advance } = storeOnClock();
        for (let count = 0; count < before; count++) store.take('client', rule);
        const { allowed, retryAfter } = store.take('client', rule);
        if (allowed) return;
        advance(retryAfter / 2);
        if (retryAfter > 0.01) expect(store.take('client', rule).allowed).toBe(false);
        advance(retryAfter / 2);
        expect(store.take('client', rule).allowed).toBe(true);
      }),
    );
  });

  it('an in-memory rate limit store tells how many requests may still come at once', () => {
    fc.assert(
      fc.property(RULES, fc.integer({ min: 1, max: 30 }), (rule, requests) => {
        const { store } = storeOnClock();
        for (let count = 1; count <= requests; count++) {
          const { allowed, remaining } = store.take('client', rule);
          expect(allowed).toBe(count <= rule.burst);
          expect(remaining).toBe(Math.max(0, rule.burst - count));
        }
      }),
    );
  });

  it('an in-memory rate limit store has its whole burst again after the time that it told', () => {
    const { store, advance } = storeOnClock();
    const rule = { limit: 4, interval: 1_000 };
    for (let count = 0; count < 3; count++) store.take('client', rule);
    const { resetAfter } = store.take('client', rule);
    advance(resetAfter);
    expect(store.take('client', rule)).toEqual({
      allowed: true,
      remaining: 3,
      retryAfter: 0,
      resetAfter: 250,
    });
  });

  it('an in-memory rate limit store names the option that is not allowed', () => {
    const make = (options: object) => () => new InMemoryRateLimitStore(options);
    expect(make({ maxKeys: 0 })).toThrow(/option 'maxKeys' must be a whole number/);
    expect(make({ now: 5 })).toThrow(/option 'now' must be a function/);
    expect(make({ max: 5 })).toThrow(/has no option 'max'/);
  });

  it('an in-memory rate limit store forgets the client that came least recently when there are too many', () => {
    const { store } = storeOnClock(2);
    const rule = { limit: 1, interval: 60_000 };
    store.take('one', rule);
    store.take('two', rule);
    expect(store.take('one', rule).allowed).toBe(false);
    store.take('three', rule);
    expect(store.take('one', rule).allowed).toBe(false);
    expect(store.take('two', rule).allowed).toBe(true);
  });
});
