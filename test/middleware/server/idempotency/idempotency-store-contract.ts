import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { currentRequestContext } from '../../../../src/client/propagation.ts';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';
import type {
  CompensatedState,
  IdempotencyStore,
  KeyState,
} from '../../../../src/middleware/server/idempotency/idempotency-store.ts';
import { defer } from '../../../policies/helpers.ts';
import { type Handler, startServer } from '../../../support/server.ts';

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

    /** How a key came to be in its state when it is compensated, and what becomes of it. */
    const COMPENSATED: {
      readonly state: string;
      prepare(store: IdempotencyStore, key: string): Promise<unknown>;
      readonly found: CompensatedState;
      /** The state that a request with the key finds afterwards. */
      readonly late: KeyState;
      /** Whether the holder `a` can store its response afterwards. */
      readonly completes: boolean;
    }[] = [
      {
        state: 'that was never locked',
        prepare: async () => {},
        found: { state: 'revoked' },
        late: { state: 'revoked' },
        completes: false,
      },
      {
        state: 'that was released',
        prepare: async (store, key) => {
          await store.begin(key, 'a', LONG);
          await store.release(key, 'a');
        },
        found: { state: 'revoked' },
        late: { state: 'revoked' },
        completes: false,
      },
      {
        state: 'whose lock has expired',
        prepare: async (store, key) => {
          await store.begin(key, 'a', 1);
          await untilExpired(store);
        },
        found: { state: 'revoked' },
        late: { state: 'revoked' },
        completes: false,
      },
      {
        state: 'whose response has expired',
        prepare: async (store, key) => {
          await store.complete(key, 'a', 'response', 1);
          await untilExpired(store);
        },
        found: { state: 'revoked' },
        late: { state: 'revoked' },
        completes: false,
      },
      {
        state: 'that is locked',
        prepare: (store, key) => store.begin(key, 'a', LONG),
        found: { state: 'locked' },
        late: { state: 'locked' },
        completes: true,
      },
      {
        state: 'that has a response',
        prepare: (store, key) => store.complete(key, 'a', 'response', LONG),
        found: { state: 'done', response: 'response' },
        late: { state: 'done', response: 'response' },
        completes: false,
      },
      {
        state: 'that is revoked',
        prepare: (store, key) => store.compensate!(key, LONG),
        found: { state: 'revoked' },
        late: { state: 'revoked' },
        completes: false,
      },
    ];

    /** Waits until what was stored for a millisecond before has expired. */
    async function untilExpired(store: IdempotencyStore) {
      const key = randomUUID();
      await store.begin(key, 'a', 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'b', 1)).toEqual({ state: 'begun' }));
    }

    it.each(COMPENSATED)(
      'a store that compensates a key $state finds it as it is, now and again',
      async ({ prepare, found, late, completes }) => {
        const { store, key } = setUp();
        await prepare(store, key);
        expect(await store.compensate!(key, LONG)).toEqual(found);
        expect(await store.compensate!(key, LONG)).toEqual(found);
        expect(await store.begin(key, 'b', LONG)).toEqual(late);
        await store.release(key, 'b');
        expect(await store.complete(key, 'a', 'late', LONG)).toBe(completes);
        const end = completes ? { state: 'done', response: 'late' } : late;
        expect(await store.begin(key, 'b', LONG)).toEqual(end);
      },
    );

    it('a revoked key is forgotten after the ttl that it was last given', async () => {
      const { store, key } = setUp();
      await store.compensate!(key, 1);
      await vi.waitFor(async () => expect(await store.begin(key, 'a', 1)).toEqual({ state: 'begun' }));
      await untilExpired(store);
      await store.compensate!(key, 1);
      await store.compensate!(key, LONG);
      await untilExpired(store);
      expect(await store.begin(key, 'a', LONG)).toEqual({ state: 'revoked' });
    });

    it('a response is kept for the ttl of its compensation, unless its own is longer', async () => {
      const { store, key } = setUp();
      const keys = [`${key}1`, `${key}2`] as const;
      await store.complete(keys[0], 'a', 'response', 500);
      await store.complete(keys[1], 'a', 'response', LONG);
      await store.compensate!(keys[0], LONG);
      await store.compensate!(keys[1], 1);
      await store.complete(key, 'a', 'of the same ttl', 500);
      const expired = async () => expect(await store.begin(key, 'b', LONG)).toEqual({ state: 'begun' });
      await vi.waitFor(expired, 2_000);
      for (const each of keys) expect(await store.begin(each, 'b', LONG)).toMatchObject({ state: 'done' });
    });

    it('of a holder and a compensation at the same time, one gets the key', async () => {
      const { store, key } = setUp();
      for (let index = 0; index < 20; index++) {
        const [begun, compensated] = await Promise.all([
          store.begin(key + index, 'a', LONG),
          store.compensate!(key + index, LONG),
        ]);
        const winners = [begun.state === 'begun', compensated.state === 'revoked'];
        expect(winners.filter(Boolean)).toHaveLength(1);
        const completed = await store.complete(key + index, 'a', 'response', LONG);
        expect(completed).toBe(begun.state === 'begun');
      }
    });

    it('two servers that share a store obey the compensation of what the other handles, or never gets to', async () => {
      const { store, key } = setUp();
      const handled: [path: string | undefined, compensates: unknown][] = [];
      const reached = defer<void>();
      const responded = defer<void>();
      const handler: Handler = async (request, response) => {
        handled.push([request.url, currentRequestContext()?.compensates]);
        if (request.url === '/charges') {
          reached.resolve();
          await responded.promise;
        }
        response.end('done');
      };
      const start = () => startServer(nodeGuard({ idempotency: { store } }, handler) as Handler);
      const [one, other] = [await start(), await start()];
      const post = (origin: string, path: string, keys: Record<string, string>) =>
        fetch(`${origin}${path}`, { method: 'POST', headers: keys });
      const charge = post(one.origin, '/charges', { 'idempotency-key': key });
      await reached.promise;
      const refund = post(other.origin, '/refunds', {
        'idempotency-key': `${key}-undo`,
        'compensates-key': key,
      });
      responded.resolve();
      expect([(await charge).status, (await refund).status]).toEqual([200, 200]);
      const early = { 'idempotency-key': `${key}-2-undo`, 'compensates-key': `${key}-2` };
      expect((await post(one.origin, '/refunds', early)).status).toBe(200);
      expect((await post(other.origin, '/charges', { 'idempotency-key': `${key}-2` })).status).toBe(409);
      expect(handled).toMatchObject([
        ['/charges', undefined],
        ['/refunds', { seen: true, response: { status: 200, body: Buffer.from('done') } }],
        ['/refunds', { seen: false }],
      ]);
    });

    it('a store never lets two holders lock a key, nor changes a response or what is revoked, in any order of calls', async () => {
      const step = fc.record({
        action: fc.constantFrom('begin', 'complete', 'release', 'compensate'),
        holder: fc.constantFrom('a', 'b', 'c'),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
          const { store, key } = setUp();
          let held: string | undefined;
          let response: string | undefined;
          let revoked = false;
          for (const { action, holder } of steps) {
            if (action === 'begin') {
              const state = await store.begin(key, holder, LONG);
              if (response !== undefined) expect(state).toEqual({ state: 'done', response });
              else if (revoked) expect(state).toEqual({ state: 'revoked' });
              else expect(state.state).toBe(held === undefined || held === holder ? 'begun' : 'locked');
              if (state.state === 'begun') held = holder;
            } else if (action === 'complete') {
              const kept = await store.complete(key, holder, `of ${holder}`, LONG);
              expect(kept).toBe(
                !revoked && response === undefined && (held === undefined || held === holder),
              );
              if (kept) response = `of ${holder}`;
              if (kept) held = undefined;
            } else if (action === 'compensate') {
              const { state } = await store.compensate!(key, LONG);
              const settled = response === undefined ? 'revoked' : 'done';
              expect(state).toBe(held === undefined ? settled : 'locked');
              if (state === 'revoked') revoked = true;
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
