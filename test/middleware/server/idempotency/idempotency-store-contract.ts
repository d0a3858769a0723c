import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';

const LONG = 60_000;

/** Tests the contract that every store of idempotency keys keeps. */
export function describeIdempotencyStore(name: string, make: () => IdempotencyStore): void {
  describe(`${name}, as a store of idempotency keys`, () => {
    const setUp = () => ({ store: make(), key: randomUUID() });

    it('a store lets one holder lock a key', async () => {
      const { store, key } = setUp();
      expect(await store.begin(key, 'a', LONG)).toEqual({ state: 'begun' });
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'locked' });
      expect(await store.begin(`${key}2`, 'b', LONG)).toEqual({ state: 'begun' });
    });

    it('a store lets another holder lock a key that its holder has released', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.release(key, 'b');
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'locked' });
      await store.release(key, 'a');
      await store.release(key, 'a');
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' });
    });

    it('a store lets another holder lock a key whose lock has expired, and renews the lock of the same holder', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', 1);
      await store.begin(key, 'a', LONG);
      await store.begin(`${key}2`, 'a', 1);
      await vi.waitFor(async () =>
        expect(await store.begin(`${key}2`, 'b', LONG)).toEqual({ state: 'begun' }),
      );
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'locked' });
    });

    it('a store gives a stored response to every holder, and never changes it', async () => {
      const { store, key } = setUp();
      const response = JSON.stringify({ text: 'ü\u0000\n"€😀' });
      await store.begin(key, 'a', LONG);
      expect(await store.complete(key, 'a', response, LONG)).toBe(true);
      expect(await store.begin(key, 'a', LONG)).toEqual({ state: 'done', response });
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', response });
      await store.release(key, 'a');
      expect(await store.complete(key, 'a', 'other', LONG)).toBe(false);
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', response });
    });

    it('a store removes a response after its ttl', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.complete(key, 'a', 'response', 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' }));
    });

    it('a late holder overwrites neither the lock of the next holder nor its response', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' }));
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(false);
      await store.release(key, 'a');
      expect(await store.begin(key, 'c', LONG)).toEqual({ state: 'locked' });
      expect(await store.complete(key, 'b', 'right', LONG)).toBe(true);
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(false);
      expect(await store.begin(key, 'c', LONG)).toEqual({ state: 'done', response: 'right' });
    });

    it('a holder whose lock has ended stores its response if no other holder came after it', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.release(key, 'a');
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(true);
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', response: 'late' });
    });

    it('a store never lets two holders lock a key, nor changes a response, in any order of calls', async () => {
      const step = fc.record({
        action: fc.constantFrom('begin', 'complete', 'release'),
        holder: fc.constantFrom('a', 'b', 'c'),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
          const { store, key } = setUp();
          let held: string | undefined;
          let response: string | undefined;
          for (const { action, holder } of steps) {
            if (action === 'begin') {
              const state = await store.begin(key, holder, LONG);
              if (response !== undefined) expect(state).toEqual({ state: 'done', response });
              else expect(state.state).toBe(held === undefined || held === holder ? 'begun' : 'locked');
              if (state.state === 'begun') held = holder;
            } else if (action === 'complete') {
              const kept = await store.complete(key, holder, `of ${holder}`, LONG);
              expect(kept).toBe(response === undefined && (held === undefined || held === holder));
              if (kept) response = `of ${holder}`;
              if (kept) held = undefined;
            } else {
              await store.release(key, holder);
              if (held === holder) held = undefined;
            }
          }
        }),
        { numRuns: 50 },
      );
    });
  });
}
