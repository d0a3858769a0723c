import { beforeEach, describe, expect, it, vi } from 'vitest';
import { GuardedStore } from '../../../src/gateway/limits/guarded-store.ts';
import type { RateLimitStore } from '../../../src/middleware/server/rate-limit/rate-limit-store.ts';
import { fakeTime, fling, pass } from '../../policies/helpers.ts';

const RULE = { limit: 2, interval: 3_600_000 };
const DECISION = { allowed: true, remaining: 5, retryAfter: 0, resetAfter: 0 };

let warnings: string[];
beforeEach(() => {
  fakeTime();
  warnings = [];
  vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)));
});

describe('a store of rate limits that a user has made', () => {
  it.each<[string, RateLimitStore['take']]>([
    ['throws', () => fling(new Error('down'))],
    ['rejects', () => Promise.reject(new Error('down'))],
    ['gives nothing', () => undefined as never],
    ['gives an object that is no decision', () => ({}) as never],
    ['gives numbers that are none', () => ({ ...DECISION, remaining: Number.NaN })],
    ['resolves with what is no decision', async () => ({ ...DECISION, allowed: 'yes' }) as never],
    ['never settles', () => new Promise(() => {})],
  ])('is passed over, with one warning, while it %s', async (_name, fail) => {
    let broken = true;
    const store = new GuardedStore({ take: (key, rule) => (broken ? fail(key, rule) : DECISION) });
    const takeLate = async () => {
      const decision = store.take('a', RULE);
      await pass(1_000);
      return (await decision).allowed;
    };
    expect([await takeLate(), await takeLate(), await takeLate()]).toEqual([true, true, false]);
    expect(warnings).toEqual(["The 'rateLimitStore' failed: requests are counted in this process alone."]);
    broken = false;
    expect(store.take('a', RULE)).toBe(DECISION);
  });

  it('is waited for if it needs a while', async () => {
    const store = new GuardedStore({
      take: () => new Promise((resolve) => setTimeout(() => resolve(DECISION), 999)),
    });
    const decision = store.take('a', RULE);
    await pass(999);
    expect(await decision).toBe(DECISION);
    expect(warnings).toEqual([]);
  });
});
