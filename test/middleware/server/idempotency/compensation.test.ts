import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { Admission } from '../../../../src/middleware/server/guard/admission.ts';
import type { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { fakeTime, flush, pass } from '../../../policies/helpers.ts';
import { handled, inProgress, rejected, replayed, type Sent, send, shaky, toGuard } from './sent-requests.ts';

beforeEach(fakeTime);

const revoked = rejected(409, 'ERR_IDEMPOTENCY_KEY_REVOKED');

/** Sends a request with the key `c`, which compensates the one with the key `k`. */
function compensate(guard: ServerGuard, { headers, ...sent }: Sent = {}) {
  return send(guard, {
    target: '/refunds',
    ...sent,
    headers: { 'idempotency-key': '"c"', 'compensates-key': '"k"', ...headers },
  });
}

const withoutKey = { 'idempotency-key': undefined as never };

/** A store in which the test can stop one request's process, as SIGSTOP does. */
function sharedStore() {
  const store = new InMemoryIdempotencyStore();
  let calls = 0;
  const ofFrozenProcess: IdempotencyStore = {
    begin: (...args) => (calls++ === 0 ? store.begin(...args) : new Promise(() => {})),
    complete: (...args) => store.complete(...args),
    release: (...args) => store.release(...args),
    compensate: (...args) => store.compensate(...args),
  };
  return { store, ofFrozenProcess };
}

describe('a request that compensates another one', () => {
  it('a compensation that comes before its request is handled, is told so, and the late request is rejected', async () => {
    const guard = toGuard();
    const compensation = compensate(guard);
    await flush();
    expect(compensation.admission.context.compensates).toEqual({ seen: false });
    const during = send(guard);
    await flush();
    expect(during.decision).toMatchObject(revoked);
    await compensation.respond();
    const late = send(guard);
    await flush();
    expect(late.decision).toMatchObject(revoked);
    expect(late.decision).not.toHaveProperty('headers.retry-after');
  });

  it('a compensation of a request that was handled is given the response, as the handler gave it', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond(402, 'declined');
    const compensation = compensate(guard);
    await flush();
    expect(compensation.admission.context.compensates).toEqual({
      seen: true,
      response: { status: 402, headers: { 'x-own': 'yes' }, body: Buffer.from('declined') },
    });
    const again = send(guard);
    await flush();
    expect(again.decision).toMatchObject({ status: 402, body: Buffer.from('declined') });
  });

  it('a compensation waits while its request is handled, and then is given the response', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    const compensation = compensate(guard);
    await pass(3_000);
    expect(compensation.decision).toBeUndefined();
    await first.respond();
    await pass(500);
    expect(compensation.admission.context.compensates).toMatchObject({ seen: true });
  });

  it('a compensation whose request fails while it waits is told that there is no response', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    const compensation = compensate(guard);
    await pass(1_000);
    await first.respond(500);
    await pass(500);
    expect(compensation.admission.context.compensates).toEqual({ seen: false });
  });

  it('a compensation is rejected with 409 after the waitTimeout, and handled when it comes again', async () => {
    const guard = toGuard({ waitTimeout: 2_000 });
    const first = send(guard);
    await flush();
    const compensation = compensate(guard);
    await pass(2_000);
    expect(compensation.decision).toMatchObject({ ...inProgress, headers: { 'retry-after': '1' } });
    await first.respond();
    const again = compensate(guard);
    await flush();
    expect(again.admission.context.compensates).toMatchObject({ seen: true });
  });

  it("a compensation of a request in progress is rejected at once if duplicates is 'reject'", async () => {
    const guard = toGuard({ duplicates: 'reject' });
    send(guard);
    await flush();
    const compensation = compensate(guard);
    await flush();
    expect(compensation.decision).toMatchObject(inProgress);
  });

  it('a compensation that waits for longer than the lockTimeout keeps the lock on its own key', async () => {
    const { store } = sharedStore();
    const guard = toGuard({ store, lockTimeout: 1_000, waitTimeout: 10_000 });
    const other = toGuard({ store, duplicates: 'reject' });
    const first = send(guard);
    await flush();
    compensate(guard);
    await pass(5_000);
    const duplicate = compensate(other);
    await flush();
    expect(duplicate.decision).toMatchObject(inProgress);
    await first.respond();
  });

  it('a compensation that has lost its own key while it waited is handled by the process that has it now', async () => {
    const store = new InMemoryIdempotencyStore();
    let isFrozen = false;
    const ofFrozenProcess: IdempotencyStore = {
      begin: (...args) => (isFrozen ? new Promise(() => {}) : store.begin(...args)),
      complete: (...args) => store.complete(...args),
      release: (...args) => store.release(...args),
      compensate: (...args) => store.compensate(...args),
    };
    const first = send(toGuard({ store }));
    await flush();
    const frozen = compensate(toGuard({ store: ofFrozenProcess, lockTimeout: 1_000 }));
    await flush();
    isFrozen = true;
    await pass(1_500);
    const next = compensate(toGuard({ store }));
    await flush();
    isFrozen = false;
    await first.respond();
    await pass(1_000);
    expect(next.admission.context.compensates).toMatchObject({ seen: true });
    expect(frozen.decision).toMatchObject(inProgress);
    await next.respond();
  });

  it('a compensation that comes again is replayed', async () => {
    const guard = toGuard();
    const compensation = compensate(guard);
    await flush();
    await compensation.respond();
    const again = compensate(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
  });

  it('a compensation that failed is told the same when it comes again', async () => {
    const guard = toGuard();
    const failing = compensate(guard);
    await flush();
    await failing.respond(503);
    const late = send(guard);
    const again = compensate(guard);
    await flush();
    expect(late.decision).toMatchObject(revoked);
    expect(again.admission.context.compensates).toEqual({ seen: false });
  });

  it('a compensation of a handled request that failed is given the response again', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond();
    for (const status of [500, 201]) {
      const compensation = compensate(guard);
      await flush();
      expect(compensation.admission.context.compensates).toMatchObject({ seen: true });
      await compensation.respond(status);
    }
  });

  it('two compensations of one request with keys of their own are both handled, and told the same', async () => {
    const guard = toGuard();
    const [one, other] = [compensate(guard), compensate(guard, { headers: { 'idempotency-key': '"d"' } })];
    await flush();
    for (const { admission } of [one, other]) expect(admission.context.compensates).toEqual({ seen: false });
  });

  it('a request with the key of a compensation that compensates another request is rejected with 422', async () => {
    const guard = toGuard();
    const compensation = compensate(guard);
    await flush();
    await compensation.respond();
    const other = compensate(guard, { headers: { 'compensates-key': '"other"' } });
    const none = send(guard, { target: '/refunds', headers: { 'idempotency-key': '"c"' } });
    await flush();
    for (const { decision } of [other, none])
      expect(decision).toMatchObject(rejected(422, 'ERR_IDEMPOTENCY_KEY_REUSED'));
  });

  it.each(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])(
    'a compensation of the method %s without a key of its own revokes the key of its request',
    async (method) => {
      const guard = toGuard();
      const compensation = compensate(guard, { method, headers: withoutKey });
      await flush();
      expect(compensation.admission.keyLock).toBeUndefined();
      expect(compensation.admission.context.compensates).toEqual({ seen: false });
      const late = send(guard);
      await flush();
      expect(late.decision).toMatchObject(revoked);
    },
  );

  it.each(['POST', 'PUT', 'PATCH', 'DELETE'])(
    'a late request of the method %s is rejected after its compensation',
    async (method) => {
      const guard = toGuard();
      compensate(guard, { method: 'DELETE' });
      await flush();
      const late = send(guard, { method });
      await flush();
      expect(late.decision).toMatchObject(revoked);
    },
  );

  it('a compensation does not meet the same key of another caller', async () => {
    const guard = toGuard();
    const first = send(guard, { headers: { authorization: 'Bearer a' } });
    await flush();
    await first.respond();
    const stranger = compensate(guard, { headers: { authorization: 'Bearer b' } });
    const own = compensate(guard, { headers: { authorization: 'Bearer a' } });
    await flush();
    expect(stranger.admission.context.compensates).toEqual({ seen: false });
    expect(own.admission.context.compensates).toMatchObject({ seen: true });
  });

  it('a request without a Compensates-Key is told of no compensation', async () => {
    const request = send(toGuard());
    await flush();
    expect(request.admission.context).not.toHaveProperty('compensates');
  });

  it('a late request is rejected for the ttl after its last compensation', async () => {
    const guard = toGuard({ ttl: 5_000 });
    compensate(guard);
    await pass(3_000);
    compensate(guard, { headers: { 'idempotency-key': '"d"' } });
    await pass(4_999);
    const late = send(guard);
    await flush();
    expect(late.decision).toMatchObject(revoked);
    await pass(1);
    const later = send(guard);
    await flush();
    expect(later.decision).toEqual(handled);
  });

  it('a response is replayed for the ttl after its compensation', async () => {
    const guard = toGuard({ ttl: 5_000 });
    const first = send(guard);
    await flush();
    await first.respond();
    await pass(4_000);
    compensate(guard);
    await pass(4_999);
    const late = send(guard);
    await flush();
    expect(late.decision).toEqual(replayed);
  });
});

describe('requests and compensations in any order', () => {
  const PROCESSES = 3;
  const action = fc.record({
    kind: fc.constantFrom('send', 'compensate', 'respond', 'wait'),
    process: fc.nat(PROCESSES - 1),
    status: fc.constantFrom(201, 402, 500),
    time: fc.nat(3_000),
  });

  it('no request is let through once its compensation is, and none is compensated while it is handled', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 30 }), async (actions) => {
        const store = new InMemoryIdempotencyStore();
        const guards = Array.from({ length: PROCESSES }, () => toGuard({ store, lockTimeout: 1_000 }));
        const requests = new Map<ReturnType<typeof send>, 'waiting' | 'handled' | 'ended'>();
        const compensations = new Map<ReturnType<typeof send>, 'waiting' | 'handled'>();
        let stored: number | undefined;
        const check = () => {
          for (const [compensation, state] of compensations) {
            if (state !== 'waiting' || !(compensation.decision instanceof Admission)) continue;
            compensations.set(compensation, 'handled');
            expect([...requests.values()]).not.toContain('handled');
            const { compensates } = compensation.admission.context;
            const expected =
              stored === undefined ? { seen: false } : { seen: true, response: { status: stored } };
            expect(compensates).toMatchObject(expected);
          }
          for (const [request, state] of requests) {
            if (state !== 'waiting' || !(request.decision instanceof Admission)) continue;
            requests.set(request, 'handled');
            expect([...requests.values()].filter((other) => other === 'handled')).toHaveLength(1);
            expect([...compensations.values()]).not.toContain('handled');
          }
        };
        for (const [index, { kind, process, status, time }] of actions.entries()) {
          if (kind === 'send') requests.set(send(guards[process]!), 'waiting');
          if (kind === 'compensate') {
            const headers = { 'idempotency-key': `c${index}` };
            compensations.set(compensate(guards[process]!, { headers }), 'waiting');
          }
          const handling = [...requests].find(([, state]) => state === 'handled')?.[0];
          if (kind === 'respond' && handling !== undefined) {
            await handling.respond(status);
            requests.set(handling, 'ended');
            if (status < 500) stored = status;
          }
          await flush();
          check();
          for (let left = kind === 'wait' ? time : 0; left > 0; left -= 100) {
            await pass(Math.min(left, 100));
            check();
          }
        }
        for (const request of [...requests.keys(), ...compensations.keys()])
          if (request.decision instanceof Admission) request.admission.keyLock?.release();
      }),
      { numRuns: 100 },
    );
  });
});

describe('a Compensates-Key that is not well formed', () => {
  it.each(['"open', 'a, b', '', '"c"', 'c'])('a Compensates-Key of %j is rejected with 400', async (key) => {
    const guard = toGuard();
    const compensation = compensate(guard, { headers: { 'compensates-key': key } });
    await flush();
    expect(compensation.decision).toMatchObject(rejected(400, 'ERR_COMPENSATES_KEY_INVALID'));
  });

  it('a compensation with a malformed key of its own is rejected, and revokes nothing', async () => {
    const guard = toGuard();
    const compensation = compensate(guard, { headers: { 'idempotency-key': 'a, b' } });
    const missing = compensate(toGuard({ required: async () => true }), { headers: withoutKey });
    const request = send(guard);
    await flush();
    expect(compensation.decision).toMatchObject(rejected(400, 'ERR_IDEMPOTENCY_KEY_INVALID'));
    expect(missing.decision).toMatchObject(rejected(400, 'ERR_IDEMPOTENCY_KEY_MISSING'));
    expect(request.decision).toEqual(handled);
  });
});

describe('a compensation and its store', () => {
  it('a compensation is rejected with 501 if the store has no compensate()', async () => {
    const { begin, complete, release } = shaky().store;
    const guard = toGuard({ store: { begin, complete, release } });
    const [own, without] = [compensate(guard), compensate(guard, { method: 'PUT', headers: withoutKey })];
    await flush();
    for (const { decision } of [own, without])
      expect(decision).toMatchObject(rejected(501, 'ERR_COMPENSATES_KEY_UNSUPPORTED'));
  });

  it.each(['reject', 'handle'] as const)(
    "a compensation is rejected with 503 while the store is unavailable, if whenUnavailable is '%s'",
    async (whenUnavailable) => {
      const store = shaky();
      const guard = toGuard({ store: store.store, whenUnavailable });
      store.away = true;
      const [own, without] = [compensate(guard), compensate(guard, { method: 'PUT', headers: withoutKey })];
      await flush();
      for (const { decision } of [own, without])
        expect(decision).toMatchObject(rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
      store.away = false;
      const again = compensate(guard);
      await flush();
      expect(again.decision).toEqual(handled);
    },
  );

  it('a compensation whose second step fails leaves its own key free', async () => {
    const store = shaky();
    const failing: IdempotencyStore = {
      ...store.store,
      compensate: async () => {
        throw new Error('away');
      },
    };
    const compensation = compensate(toGuard({ store: failing }));
    await flush();
    expect(compensation.decision).toMatchObject(rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
    const again = compensate(toGuard({ store: store.store, duplicates: 'reject' }));
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('a store that gives an unknown state of a compensated key counts as unavailable', async () => {
    const store = { ...shaky().store, compensate: async () => ({ state: 'begun' }) as never };
    const compensation = compensate(toGuard({ store }));
    await flush();
    expect(compensation.decision).toMatchObject(rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
  });

  it.each([
    ['before', async () => {}],
    ['after', (store: IdempotencyStore, key: string, ttl: number) => store.compensate!(key, ttl)],
  ] as const)(
    'a compensation whose process dies %s it has revoked the key of its request is handled by the next process',
    async (_when, revoke) => {
      const { store, ofFrozenProcess } = sharedStore();
      const dying: IdempotencyStore = {
        ...ofFrozenProcess,
        compensate: async (key, ttl) => {
          await revoke(store, key, ttl);
          return new Promise(() => {});
        },
      };
      const first = compensate(toGuard({ store: dying, lockTimeout: 1_000 }));
      await flush();
      const again = compensate(toGuard({ store }));
      await pass(500);
      expect([first.decision, again.decision]).toEqual([undefined, undefined]);
      await pass(1_000);
      expect(again.admission.context.compensates).toEqual({ seen: false });
      const late = send(toGuard({ store }));
      await flush();
      expect(late.decision).toMatchObject(revoked);
    },
  );

  it('a request whose process was frozen beyond its lock stores no response once it is compensated', async () => {
    const { store, ofFrozenProcess } = sharedStore();
    const frozen = toGuard({ store: ofFrozenProcess, lockTimeout: 1_000 });
    const lost: unknown[] = [];
    frozen.on('lock-lost', (event) => lost.push(event));
    const first = send(frozen);
    await pass(1_000);
    const compensation = compensate(toGuard({ store }));
    await flush();
    expect(compensation.admission.context.compensates).toEqual({ seen: false });
    await first.respond();
    expect(lost).toEqual([{ request: { method: 'POST', path: '/orders' } }]);
    const again = send(toGuard({ store }));
    await flush();
    expect(again.decision).toMatchObject(revoked);
  });

  it('a request that its own process still handles is waited for, although its lock has expired', async () => {
    const { ofFrozenProcess } = sharedStore();
    const guard = toGuard({ store: ofFrozenProcess, lockTimeout: 1_000 });
    const first = send(guard);
    await pass(2_000);
    const compensation = compensate(guard, { method: 'PUT', headers: withoutKey });
    await pass(2_000);
    expect(compensation.decision).toBeUndefined();
    await first.respond();
    await pass(500);
    expect(compensation.admission.context.compensates).toMatchObject({ seen: true });
  });

  it('a compensation whose client disconnects while it waits frees its own key', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    const compensation = compensate(guard);
    await pass(1_000);
    compensation.disconnected.abort(new Error('gone'));
    await flush();
    expect(compensation.decision).toMatchObject({ status: 499 });
    await first.respond();
    const again = compensate(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('a compensation that waits is rejected with 504 when its deadline has passed', async () => {
    const guard = toGuard();
    send(guard);
    await flush();
    const compensation = compensate(guard, { headers: { 'x-request-timeout': '700' } });
    await pass(700);
    expect(compensation.decision).toMatchObject(rejected(504, 'ERR_DEADLINE_EXCEEDED'));
  });
});
