import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';

const LONG = 60_000;

/** What every store of idempotency keys does. */
export function describeIdempotencyStore(name: string, make: () => IdempotencyStore): void {
  describe(`${name}, as a store of idempotency keys`, () => {
    const setUp = () => ({ store: make(), key: randomUUID() });

    it('gives a key to one holder', async () => {
      const { store, key } = setUp();
      expect(await store.begin(key, 'a', LONG)).toEqual({ state: 'begun' });
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'held' });
      expect(await store.begin(`${key}2`, 'b', LONG)).toEqual({ state: 'begun' });
    });

    it('gives it to another when it is given back, by whoever holds it', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.release(key, 'b');
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'held' });
      await store.release(key, 'a');
      await store.release(key, 'a');
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' });
    });

    it('gives it to another when its lease is over, and renews it where the holder comes again', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', 1);
      await store.begin(key, 'a', LONG);
      await store.begin(`${key}2`, 'a', 1);
      await vi.waitFor(async () =>
        expect(await store.begin(`${key}2`, 'b', LONG)).toEqual({ state: 'begun' }),
      );
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'held' });
    });

    it('gives the answer once there is one, whoever asks, and keeps it as it is', async () => {
      const { store, key } = setUp();
      const answer = JSON.stringify({ text: 'ü\u0000\n"€😀' });
      await store.begin(key, 'a', LONG);
      expect(await store.complete(key, 'a', answer, LONG)).toBe(true);
      expect(await store.begin(key, 'a', LONG)).toEqual({ state: 'done', answer });
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', answer });
      await store.release(key, 'a');
      expect(await store.complete(key, 'a', 'other', LONG)).toBe(false);
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', answer });
    });

    it('forgets the answer when its time is over', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.complete(key, 'a', 'answer', 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' }));
    });

    it('a holder that comes late overwrites neither the holder after it nor its answer', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' }));
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(false);
      await store.release(key, 'a');
      expect(await store.begin(key, 'c', LONG)).toEqual({ state: 'held' });
      expect(await store.complete(key, 'b', 'right', LONG)).toBe(true);
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(false);
      expect(await store.begin(key, 'c', LONG)).toEqual({ state: 'done', answer: 'right' });
    });

    it('a holder whose lease is over keeps its answer where nobody came after it', async () => {
      const { store, key } = setUp();
      await store.begin(key, 'a', LONG);
      await store.release(key, 'a');
      expect(await store.complete(key, 'a', 'late', LONG)).toBe(true);
      expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'done', answer: 'late' });
    });

    it('never lets two hold a key, nor changes an answer, in whatever order it is asked', async () => {
      const step = fc.record({
        action: fc.constantFrom('begin', 'complete', 'release'),
        holder: fc.constantFrom('a', 'b', 'c'),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
          const { store, key } = setUp();
          let held: string | undefined;
          let answer: string | undefined;
          for (const { action, holder } of steps) {
            if (action === 'begin') {
              const state = await store.begin(key, holder, LONG);
              if (answer !== undefined) expect(state).toEqual({ state: 'done', answer });
              else expect(state.state).toBe(held === undefined || held === holder ? 'begun' : 'held');
              if (state.state === 'begun') held = holder;
            } else if (action === 'complete') {
              const kept = await store.complete(key, holder, `of ${holder}`, LONG);
              expect(kept).toBe(answer === undefined && (held === undefined || held === holder));
              if (kept) answer = `of ${holder}`;
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
