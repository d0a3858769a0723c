import { describe, expect, it } from 'vitest';
import type { DomainEvent, NewEvent } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import type { SagaEntry, SagaInput } from '../../src/saga/saga-entry.ts';
import type {
  ClaimedSaga,
  InputCondition,
  ListOptions,
  NewSaga,
  SagaChange,
  SagaStore,
  SagaSummary,
} from '../../src/saga/saga-store.ts';
import { toArray } from '../events/recorder.ts';

/** Keeps the sagas of stores, and lets a test get at them. */
export interface SagaStorage {
  /**
   * Opens a store as a process would have it, for the time of a test; a second one on the same sagas, where that
   * exists.
   */
  open(): SagaStore;
  /** Lets milliseconds pass by the clock of the store, at once. */
  advance(time: number): Promise<void> | void;
  /** Makes the journal of a saga unreadable; left out where that cannot be. */
  corrupt?(sagaId: string): Promise<void>;
}

const LEASE = 60_000;
const orders = [{ name: 'order', version: 1 }];
const invoke = (step: string, attempt = 1): SagaEntry => ({ type: 'invoke', step, attempt, delay: 0 });
const complete = (step: string, data?: string): SagaEntry => ({ type: 'complete', step, data });
const cancel = (id = 'cancel'): SagaInput => ({ id, type: 'cancel' });
const reason = { step: 'a', error: { name: 'Error', message: 'no stock' } };
const range = (count: number) => Array.from({ length: count }, (_, index) => index);
const idsOf = (sagas: readonly ClaimedSaga[]) => sagas.map(({ lease }) => lease.sagaId);

export function newSaga(sagaId: string, rest: Partial<NewSaga> = {}): NewSaga {
  return {
    sagaId,
    name: 'order',
    version: 1,
    input: '{"total":5}',
    context: { correlationId: 'c1' },
    entries: [invoke('a')],
    cancellable: true,
    lease: LEASE,
    events: [],
    ...rest,
  };
}

/** A change by the owner of a saga, which keeps it; without entries unless some are given. */
export function change(claimed: ClaimedSaga, rest: Partial<SagaChange> = {}): SagaChange {
  const { lease, saga } = claimed;
  return {
    lease,
    length: saga.entries.length,
    entries: [],
    inputs: saga.inputs.length,
    status: 'running',
    reason: undefined,
    cancellable: true,
    owned: true,
    dueIn: LEASE,
    events: [],
    ...rest,
  };
}

/** Ends a saga. */
export const end = {
  entries: [complete('a'), { type: 'end', status: 'completed' }],
  status: 'completed',
  cancellable: false,
  owned: false,
  dueIn: undefined,
} satisfies Partial<SagaChange>;

/** Makes a saga stuck. */
export const stick = {
  entries: [{ type: 'stick', reason }],
  status: 'stuck',
  reason,
  cancellable: false,
  owned: false,
  dueIn: undefined,
} satisfies Partial<SagaChange>;

export function eventOf(sagaId: string, n: number): DomainEvent {
  const event: NewEvent = { eventType: 'saga.started', aggregateId: sagaId, data: { n } };
  const eventId = `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
  return { ...event, eventId, timestamp: 1, version: 1, source: 'test', metadata: { correlationId: 'c' } };
}

export async function create(store: SagaStore, saga: NewSaga): Promise<ClaimedSaga> {
  const created = await store.create(saga);
  if (created.result === 'exists') throw new Error(`there is a saga ${saga.sagaId}`);
  return created.claimed;
}

async function list(store: SagaStore, options: ListOptions = {}): Promise<string[]> {
  return (await toArray(store.list(options))).map(({ sagaId }) => sagaId);
}

const withoutTimes = ({ createdAt, updatedAt, dueAt, ...rest }: SagaSummary) => rest;

/**
 * Describes how a store of sagas behaves, whatever it keeps them in.
 *
 * @param fills whether it is filled up to its limits, which takes seconds where transactions conflict
 */
export function sagaStoreContract(
  name: string,
  createStorage: () => SagaStorage | Promise<SagaStorage>,
  fills = true,
): void {
  const open = async () => {
    const storage = await createStorage();
    return { ...storage, store: storage.open() };
  };

  describe(`creating sagas in ${name}`, () => {
    it('gives a new saga to its creator, as it is kept', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      expect(claimed.takeover).toBe(false);
      expect(claimed.saga).toEqual({
        sagaId: 's1',
        name: 'order',
        version: 1,
        input: '{"total":5}',
        context: { correlationId: 'c1' },
        status: 'running',
        reason: undefined,
        createdAt: claimed.now,
        updatedAt: claimed.now,
        entries: [{ at: claimed.now, entry: invoke('a') }],
        inputs: [],
      });
      expect(Number.isInteger(claimed.now)).toBe(true);
      expect(await store.get('s1')).toEqual(claimed.saga);
      expect(await store.get('s2')).toBeUndefined();
    });

    it('creates a saga once, and gives what there is to all others at once', async () => {
      const { open: another } = await open();
      const stores = range(5).map(another);
      const results = await Promise.all(
        range(20).map((n) => stores[n % 5]!.create(newSaga('s1', { input: `${n}` }))),
      );
      const created = results.filter(({ result }) => result === 'created');
      expect(created).toHaveLength(1);
      const winner = results.indexOf(created[0]!);
      for (const result of results) {
        if (result.result === 'created') continue;
        expect(withoutTimes(result.saga)).toEqual({
          sagaId: 's1',
          name: 'order',
          version: 1,
          input: `${winner}`,
          status: 'running',
          reason: undefined,
        });
      }
      expect((await stores[0]!.get('s1'))?.entries).toHaveLength(1);
    });

    it('leaves a saga that is created without a lease to whoever claims it', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1', { lease: 0 }));
      expect(await store.write(change(claimed, { entries: [complete('a')] }))).toEqual({ result: 'lost' });
      const [taken] = await store.claim(orders, 10, LEASE);
      expect(taken).toMatchObject({ takeover: false, saga: { sagaId: 's1' } });
      expect(taken!.lease.token).toBeGreaterThan(claimed.lease.token);
    });

    it('keeps and claims a saga whose version is a date, or the largest number that there is', async () => {
      const { store } = await open();
      const versions = [1, 202_611_271_200, Number.MAX_SAFE_INTEGER];
      for (const version of versions) {
        await create(store, newSaga(`s${version}`, { version, lease: 0 }));
        expect(await store.get(`s${version}`)).toMatchObject({ version });
      }
      const claimed = await store.claim(
        versions.map((version) => ({ name: 'order', version })),
        10,
        LEASE,
      );
      expect(claimed.map(({ saga }) => saga.version).toSorted((one, other) => one - other)).toEqual(versions);
      expect((await store.summaries(idsOf(claimed))).map(({ version }) => version).toSorted()).toEqual(
        versions.toSorted(),
      );
    });

    it('keeps odd ids, texts and contexts as they are', async () => {
      const { store } = await open();
      const text = `"'\\ {} , NULL \u2028 😀 ${'\n'} $1 %s`;
      const ids = ['a:b', 'a', 'A', 'a.b', 'a-b', '__proto__', '0', '00', ':', '.', 'x'.repeat(128)];
      for (const sagaId of ids) {
        const context = { correlationId: text, traceparent: sagaId };
        const claimed = await create(store, newSaga(sagaId, { input: text + sagaId, context }));
        await store.send(sagaId, { id: text, type: 'complete', step: 'b', data: text }, 'not-ended');
        await store.write(change(claimed, { entries: [complete('a', text + sagaId)], inputs: 1 }));
      }
      for (const sagaId of ids) {
        const saga = await store.get(sagaId);
        expect(saga).toMatchObject({ sagaId, input: text + sagaId, context: { traceparent: sagaId } });
        expect(saga?.entries[1]?.entry).toEqual(complete('a', text + sagaId));
        expect(saga?.inputs).toEqual([{ id: text, type: 'complete', step: 'b', data: text }]);
      }
      expect((await list(store)).toSorted()).toEqual(ids.toSorted());
    });

    it('keeps an input and results of 256 KiB each', async () => {
      const { store } = await open();
      const large = 'ü'.repeat(131_072);
      const claimed = await create(store, newSaga('s1', { input: large }));
      const entries = range(5).map((n) => complete(`step${n}`, large));
      expect(await store.write(change(claimed, { entries }))).toMatchObject({ result: 'written' });
      const saga = await store.get('s1');
      expect(saga?.input).toBe(large);
      expect(saga?.entries.map(({ entry }) => entry)).toEqual([invoke('a'), ...entries]);
    });
  });

  describe(`writing to sagas in ${name}`, () => {
    it('adds the entries of a change, and what it says of the saga', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      const first = [complete('a', '1'), invoke('b')];
      const second: SagaEntry[] = [{ type: 'turn', reason }];
      const written = await store.write(change(claimed, { entries: first }));
      expect(written).toEqual({ result: 'written', now: expect.any(Number) });
      const next = change(claimed, { length: 3, entries: second, status: 'compensating', reason });
      expect(await store.write(next)).toMatchObject({ result: 'written' });
      const saga = (await store.get('s1'))!;
      expect(saga).toMatchObject({ status: 'compensating', reason });
      expect(saga.entries.map(({ entry }) => entry)).toEqual([invoke('a'), ...first, ...second]);
      expect(saga.entries[2]!.at).toBe((written as { now: number }).now);
      expect(saga.updatedAt).toBe(saga.entries[3]!.at);
    });

    it('writes to many sagas at once, each its own', async () => {
      const { store } = await open();
      const claims = await Promise.all(range(100).map((n) => create(store, newSaga(`s${n}`))));
      const results = await Promise.all(
        claims.map((claimed, n) => store.write(change(claimed, { entries: [complete('a', `${n}`)] }))),
      );
      expect(new Set(results.map(({ result }) => result))).toEqual(new Set(['written']));
      for (const n of range(100)) {
        expect((await store.get(`s${n}`))?.entries.map(({ entry }) => entry)).toEqual([
          invoke('a'),
          complete('a', `${n}`),
        ]);
      }
    });

    it('takes a change that is repeated for written, and adds it once', async () => {
      const { store, open: another } = await open();
      const claimed = await create(store, newSaga('s1'));
      const step = change(claimed, { entries: [complete('a'), invoke('b')] });
      const results = await Promise.all([step, step, step].map((same) => another().write(same)));
      expect(results.map(({ result }) => result)).toEqual(['written', 'written', 'written']);
      await store.send('s1', cancel(), 'not-ended');
      expect(await store.write(step)).toMatchObject({ result: 'written' });
      expect((await store.get('s1'))?.entries).toHaveLength(3);
    });

    it('takes the change that ends a saga for written, if it is repeated', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      await store.write(change(claimed, end));
      expect(await store.write(change(claimed, end))).toMatchObject({ result: 'written' });
      expect(await store.get('s1')).toMatchObject({ status: 'completed', entries: { length: 3 } });
    });

    it('writes nothing for a journal of another length', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      for (const length of [0, 2, 5]) {
        const stale = change(claimed, { length, entries: [complete('a'), invoke('b')] });
        expect(await store.write(stale)).toEqual({ result: 'lost' });
      }
      expect((await store.get('s1'))?.entries).toHaveLength(1);
    });

    it('writes nothing for an owner whose saga another has claimed, or that is gone', async () => {
      const { store, advance } = await open();
      const claimed = await create(store, newSaga('s1'));
      await advance(LEASE * 2);
      const [taken] = await store.claim(orders, 10, LEASE);
      expect(await store.write(change(claimed, { entries: [complete('a')] }))).toEqual({ result: 'lost' });
      expect(await store.write(change(claimed))).toEqual({ result: 'lost' });
      const gone = { ...claimed, lease: { ...claimed.lease, sagaId: 's2' } };
      expect(await store.write(change(gone))).toEqual({ result: 'lost' });
      expect(await store.write(change(taken!, { entries: [complete('a')] }))).toMatchObject({
        result: 'written',
      });
    });

    it('writes for an owner whose lease has passed, if nobody has claimed the saga', async () => {
      const { store, advance } = await open();
      const claimed = await create(store, newSaga('s1'));
      await advance(LEASE * 2);
      expect(await store.write(change(claimed, { entries: [complete('a')] }))).toMatchObject({
        result: 'written',
      });
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
    });

    it('gives the inputs that the owner has not taken in, and writes nothing', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      const inputs = range(3).map((n) => cancel(`c${n}`));
      for (const input of inputs) await store.send('s1', input, 'not-ended');
      const step = { entries: [complete('a')] };
      for (const seen of [0, 2]) {
        const result = await store.write(change(claimed, { ...step, inputs: seen }));
        expect(result).toEqual({ result: 'inputs', inputs: inputs.slice(seen), now: expect.any(Number) });
      }
      expect((await store.get('s1'))?.entries).toHaveLength(1);
      expect(await store.write(change(claimed, { ...step, inputs: 3 }))).toMatchObject({ result: 'written' });
      expect((await store.get('s1'))?.inputs).toEqual(inputs);
    });

    it('either writes before an input is there, or gives the input', async () => {
      const { store, open: another } = await open();
      const other = another();
      const claims = await Promise.all(range(30).map((n) => create(store, newSaga(`s${n}`))));
      await Promise.all(
        claims.map(async (claimed) => {
          const [written, sent] = await Promise.all([
            store.write(change(claimed, { entries: [complete('a')], cancellable: false })),
            other.send(claimed.lease.sagaId, cancel(), 'cancellable'),
          ]);
          // A cancellation that was taken is seen by the write that would have made it impossible.
          expect([written.result, sent]).toEqual(
            sent === 'added' ? ['inputs', 'added'] : ['written', 'rejected'],
          );
        }),
      );
    });
  });

  describe(`claiming sagas in ${name}`, () => {
    it('gives each saga to one of ten that claim at once', async () => {
      const { store, open: another } = await open();
      await Promise.all(range(50).map((n) => create(store, newSaga(`s${n}`, { lease: 0 }))));
      const stores = range(10).map(another);
      const claimed: ClaimedSaga[] = [];
      // Who claims may pass over what another is about to claim, and leave it to a later claim.
      while (claimed.length < 50) {
        claimed.push(...(await Promise.all(stores.map((each) => each.claim(orders, 20, LEASE)))).flat());
      }
      expect(new Set(idsOf(claimed)).size).toBe(50);
      expect(claimed).toHaveLength(50);
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
    });

    it('claims only the names and versions that are given', async () => {
      const { store } = await open();
      await create(store, newSaga('s1', { lease: 0 }));
      await create(store, newSaga('s2', { lease: 0, version: 2 }));
      await create(store, newSaga('s3', { lease: 0, name: 'refund', version: 2 }));
      expect(await store.claim([], 10, LEASE)).toEqual([]);
      expect(await store.claim([{ name: 'refund', version: 1 }], 10, LEASE)).toEqual([]);
      const given = [
        { name: 'order', version: 2 },
        { name: 'refund', version: 2 },
        { name: 'parcel', version: 7 },
      ];
      expect(idsOf(await store.claim(given, 10, LEASE)).toSorted()).toEqual(['s2', 's3']);
      expect(idsOf(await store.claim(orders, 10, LEASE))).toEqual(['s1']);
    });

    it('claims at most as many as it is asked for, those due for longest first', async () => {
      const { store, advance } = await open();
      for (const [sagaId, dueIn] of [
        ['third', 3_000],
        ['first', 1_000],
        ['later', 900_000],
        ['second', 2_000],
      ] as const) {
        await store.write(change(await create(store, newSaga(sagaId)), { owned: false, dueIn }));
      }
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      await advance(10_000);
      expect(idsOf(await store.claim(orders, 2, LEASE))).toEqual(['first', 'second']);
      expect(idsOf(await store.claim(orders, 2, LEASE))).toEqual(['third']);
      expect(await store.claim(orders, 2, LEASE)).toEqual([]);
    });

    it('claims by due time also where sagas of several definitions are due', async () => {
      const { store, advance } = await open();
      const names = ['order', 'refund', 'order', 'refund', 'order', 'refund'];
      for (const [n, name] of names.entries()) {
        const claimed = await create(store, newSaga(`s${n}`, { name }));
        await store.write(change(claimed, { owned: false, dueIn: 1_000 * (n + 1) }));
      }
      await advance(20_000);
      const both = [...orders, { name: 'refund', version: 1 }];
      expect(idsOf(await store.claim(both, 4, LEASE))).toEqual(['s0', 's1', 's2', 's3']);
      expect(idsOf(await store.claim(both, 4, LEASE))).toEqual(['s4', 's5']);
    });

    it('takes a saga over once the lease of its owner has passed, and tells so', async () => {
      const { store, advance } = await open();
      const first = await create(store, newSaga('s1'));
      await store.write(change(first, { entries: [complete('a', '1')] }));
      await advance(LEASE * 0.8);
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      await advance(LEASE * 0.8);
      const [second] = await store.claim(orders, 10, LEASE);
      expect(second).toMatchObject({ takeover: true, saga: await store.get('s1') });
      expect(second!.lease.token).toBeGreaterThan(first.lease.token);
      expect(second!.saga.entries).toHaveLength(2);
      await advance(LEASE * 0.8);
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      await advance(LEASE * 0.8);
      const [third] = await store.claim(orders, 10, LEASE);
      expect(third!.lease.token).toBeGreaterThan(second!.lease.token);
    });

    it('gives a saga that was released back as no takeover, when its time has come', async () => {
      const { store, advance } = await open();
      const claimed = await create(store, newSaga('s1'));
      await store.write(change(claimed, { owned: false, dueIn: 5_000 }));
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      expect(await store.write(change(claimed))).toEqual({ result: 'lost' });
      await advance(5_001);
      expect(await store.claim(orders, 10, LEASE)).toMatchObject([{ takeover: false }]);
    });

    it('gives a saga whose owner gave up with work under way as a takeover, at once', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      await store.write(change(claimed, { owned: true, dueIn: 0 }));
      expect(await store.claim(orders, 10, LEASE)).toMatchObject([{ takeover: true }]);
    });

    it('claims no saga that has ended, is stuck or waits for inputs alone', async () => {
      const { store, advance } = await open();
      await store.write(change(await create(store, newSaga('s1')), end));
      await store.write(change(await create(store, newSaga('s2')), stick));
      const waits = { owned: false, dueIn: undefined };
      await store.write(change(await create(store, newSaga('s3')), waits));
      await advance(LEASE * 10);
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      const found = await store.summaries(['s1', 's2', 's3']);
      expect(found.map(({ dueAt }) => dueAt)).toEqual([undefined, undefined, undefined]);
    });

    it('prolongs the leases that are held, and gives how many inputs there are', async () => {
      const { store, advance } = await open();
      const held = await create(store, newSaga('held'));
      const lost = await create(store, newSaga('lost'));
      await store.send('held', cancel(), 'not-ended');
      await advance(LEASE * 0.8);
      expect(await store.renew([held.lease], LEASE)).toEqual(new Map([['held', 1]]));
      await advance(LEASE * 0.8);
      expect(idsOf(await store.claim(orders, 10, LEASE))).toEqual(['lost']);
      const released = await create(store, newSaga('released'));
      await store.write(change(released, { owned: false, dueIn: 5_000 }));
      const ended = await create(store, newSaga('ended'));
      await store.write(change(ended, end));
      const gone = { sagaId: 'gone', token: 1 };
      const leases = [held, lost, released, ended].map(({ lease }) => lease);
      expect(await store.renew([...leases, gone], LEASE)).toEqual(new Map([['held', 1]]));
      expect(await store.renew([], LEASE)).toEqual(new Map());
      await advance(5_001);
      expect(idsOf(await store.claim(orders, 10, LEASE))).toEqual(['released']);
    });

    it('makes an unreadable saga stuck, and claims the others', async ({ skip }) => {
      const { store, corrupt, advance } = await open();
      if (corrupt === undefined) return skip();
      for (const n of range(3)) await create(store, newSaga(`s${n}`, { lease: 0 }));
      await corrupt('s0');
      expect(idsOf(await store.claim(orders, 10, LEASE)).toSorted()).toEqual(['s1', 's2']);
      const [summary] = await store.summaries(['s0']);
      expect(summary).toMatchObject({
        status: 'stuck',
        reason: { error: { code: 'ERR_SAGA_UNREADABLE', message: expect.stringContaining('s0') } },
        dueAt: undefined,
      });
      expect(await list(store, { status: 'stuck' })).toEqual(['s0']);
      await expect(store.get('s0')).rejects.toMatchObject({ code: 'ERR_SAGA_UNREADABLE' });
      await advance(LEASE * 2);
      expect(idsOf(await store.claim(orders, 10, LEASE)).toSorted()).toEqual(['s1', 's2']);
      // An operator may have mended it; else it is stuck again.
      expect(await store.send('s0', { id: 'r', type: 'retry' }, 'stuck')).toBe('added');
      expect(await store.claim(orders, 10, LEASE)).toEqual([]);
      expect(await list(store, { status: 'stuck' })).toEqual(['s0']);
    });
  });

  describe(`sending inputs to sagas in ${name}`, () => {
    it('adds an input once, however often it is sent', async () => {
      const { store, open: another } = await open();
      await create(store, newSaga('s1'));
      const results = await Promise.all(range(10).map(() => another().send('s1', cancel(), 'not-ended')));
      expect(results.toSorted()).toEqual(['added', ...Array(9).fill('known')]);
      expect((await store.get('s1'))?.inputs).toEqual([cancel()]);
    });

    it.runIf(fills)('takes 1,000 inputs of anybody, and as many more that need a state', async () => {
      const { store, open: another } = await open();
      await create(store, newSaga('s1'));
      const stores = range(4).map(another);
      const send = async (count: number, condition: InputCondition) => {
        const results = await Promise.all(
          range(count).map((n) => stores[n % 4]!.send('s1', cancel(`${condition} ${n}`), condition)),
        );
        return results.filter((result) => result === 'added').length;
      };
      expect(await send(1_050, 'not-ended')).toBe(1_000);
      expect(await store.send('s1', cancel('late'), 'not-ended')).toBe('rejected');
      expect(await send(1_050, 'cancellable')).toBe(1_000);
      const { inputs } = (await store.get('s1'))!;
      expect(new Set(inputs.map(({ id }) => id)).size).toBe(2_000);
      expect(await store.send('s1', inputs[0]!, 'not-ended')).toBe('known');
      expect(await store.send('s1', cancel('late'), 'cancellable')).toBe('rejected');
    });

    it('takes inputs only in a state that fulfils their condition', async () => {
      const { store } = await open();
      const running = await create(store, newSaga('running'));
      await store.write(change(await create(store, newSaga('past')), { cancellable: false }));
      await store.write(change(await create(store, newSaga('stuck')), stick));
      await store.write(change(await create(store, newSaga('ended')), end));
      const send = async (condition: 'not-ended' | 'cancellable' | 'stuck') =>
        Promise.all(
          ['running', 'past', 'stuck', 'ended', 'missing'].map((sagaId) =>
            store.send(sagaId, cancel(condition), condition),
          ),
        );
      expect(await send('cancellable')).toEqual(['added', 'rejected', 'rejected', 'rejected', 'missing']);
      expect(await send('stuck')).toEqual(['rejected', 'rejected', 'added', 'rejected', 'missing']);
      expect(await send('not-ended')).toEqual(['added', 'added', 'added', 'rejected', 'missing']);
      // What was taken is known from then on, also in a state that would take it no more.
      await store.write(change(running, { ...end, inputs: 2 }));
      expect(await store.send('running', cancel('cancellable'), 'cancellable')).toBe('known');
    });

    it('takes an input that is for the step at which a saga is stuck only if it is stuck there', async () => {
      const { store } = await open();
      await create(store, newSaga('running'));
      const reason = { step: 'b', error: { name: 'Error', message: 'no' } };
      await store.write(change(await create(store, newSaga('stuck')), { ...stick, reason }));
      const unreadable = { error: { name: 'Error', message: 'it cannot be read' } };
      await store.write(change(await create(store, newSaga('nowhere')), { ...stick, reason: unreadable }));
      const skip = (sagaId: string, step: string) =>
        store.send(sagaId, { id: `skip ${step}`, type: 'skip', step, reason: 'done' }, 'stuck');
      expect(await skip('stuck', 'a')).toBe('rejected');
      expect(await skip('stuck', 'b')).toBe('added');
      for (const sagaId of ['running', 'nowhere']) expect(await skip(sagaId, 'b')).toBe('rejected');
      expect(await skip('missing', 'b')).toBe('missing');
      expect(await store.send('nowhere', { id: 'r', type: 'retry' }, 'stuck')).toBe('added');
    });

    it('takes inputs with any text, also at a step that failed with any', async () => {
      const { store } = await open();
      for (const [n, message] of ['a\0b', '\ud83d', '"\\u0000', '\u2028'].entries()) {
        const sagaId = `s${n}`;
        const claimed = await create(store, newSaga(sagaId));
        const error = { attempt: 1, at: 1, name: 'Error', message };
        const failure: SagaInput = { id: 'fail', type: 'fail', step: 'b', error };
        const skip: SagaInput = { id: 'skip', type: 'skip', step: 'b', reason: 'done' };
        const oddSkip: SagaInput = { ...skip, id: 'odd', reason: message };
        expect(await store.send(sagaId, failure, 'not-ended')).toBe('added');
        await store.write(change(claimed, { ...stick, inputs: 1, reason: { step: 'b', error } }));
        expect(await store.send(sagaId, { ...oddSkip, step: 'a' }, 'stuck')).toBe('rejected');
        for (const input of [skip, oddSkip]) expect(await store.send(sagaId, input, 'stuck')).toBe('added');
        expect((await store.get(sagaId))?.inputs).toEqual([failure, skip, oddSkip]);
      }
    });

    it('makes a saga due at once, unless an owner has it', async () => {
      const { store } = await open();
      await create(store, newSaga('owned'));
      const waits = { owned: false, dueIn: undefined };
      await store.write(change(await create(store, newSaga('waits')), waits));
      await store.write(change(await create(store, newSaga('timer')), { owned: false, dueIn: LEASE }));
      await store.write(change(await create(store, newSaga('stuck')), stick));
      for (const sagaId of ['owned', 'waits', 'timer', 'stuck']) {
        expect(await store.send(sagaId, { id: 'retry', type: 'retry' }, 'not-ended')).toBe('added');
      }
      const claimed = await store.claim(orders, 10, LEASE);
      expect(idsOf(claimed).toSorted()).toEqual(['stuck', 'timer', 'waits']);
      for (const { saga, takeover } of claimed) {
        expect(saga.inputs).toEqual([{ id: 'retry', type: 'retry' }]);
        expect(takeover).toBe(false);
      }
    });

    it('does not make a saga wait longer that is due already', async () => {
      const { store, advance } = await open();
      await create(store, newSaga('first', { lease: 0 }));
      await advance(5);
      await create(store, newSaga('second', { lease: 0 }));
      await advance(5);
      await store.send('first', cancel(), 'not-ended');
      expect(idsOf(await store.claim(orders, 1, LEASE))).toEqual(['first']);
    });
  });

  describe(`looking at sagas in ${name}`, () => {
    it('lists sagas with their inputs', async () => {
      const { store } = await open();
      for (const n of range(3)) await create(store, newSaga(`s${n}`, { input: `${n}` }));
      const listed = await toArray(store.list({}));
      expect(listed.map(({ input }) => input).toSorted()).toEqual(['0', '1', '2']);
    });

    it('gives summaries of many, without their inputs, and leaves out those that do not exist', async () => {
      const { store } = await open();
      await Promise.all(range(300).map((n) => create(store, newSaga(`s${n}`))));
      const asked = [...range(300).map((n) => `s${n}`), 'x', 'y'];
      const summaries = await store.summaries(asked);
      expect(summaries.map(({ sagaId }) => sagaId).toSorted()).toEqual(asked.slice(0, 300).toSorted());
      expect(await store.summaries([])).toEqual([]);
      const stuck = await create(store, newSaga('stuck', { input: 'i' }));
      await store.write(change(stuck, stick));
      const [summary] = await store.summaries(['stuck']);
      expect(summary).toEqual({
        sagaId: 'stuck',
        name: 'order',
        version: 1,
        status: 'stuck',
        reason,
        createdAt: stuck.now,
        updatedAt: expect.any(Number),
        dueAt: undefined,
      });
    });

    it('tells when a saga is due', async () => {
      const { store } = await open();
      const claimed = await create(store, newSaga('s1'));
      const dueAt = async () => (await store.summaries(['s1']))[0]!.dueAt! - claimed.now;
      expect(await dueAt()).toBeGreaterThanOrEqual(LEASE);
      await store.write(change(claimed, { owned: false, dueIn: 500_000 }));
      expect(await dueAt()).toBeGreaterThanOrEqual(500_000);
      expect(await dueAt()).toBeLessThan(530_000);
    });

    it('lists all sagas, the oldest first, over any number of pages', async () => {
      const { store, advance } = await open();
      const ids: string[] = [];
      for (const n of range(4)) {
        const batch = range(300).map((index) => `s${n}-${index}`);
        await Promise.all(batch.map((sagaId) => create(store, newSaga(sagaId))));
        ids.push(...batch);
        await advance(10);
      }
      const listed = await list(store);
      expect(listed.toSorted()).toEqual(ids.toSorted());
      expect(listed.map((sagaId) => sagaId.slice(0, 2))).toEqual(ids.map((sagaId) => sagaId.slice(0, 2)));
    });

    it('lists by status, name and how long nobody has claimed a saga', async () => {
      const { store, advance } = await open();
      await create(store, newSaga('unclaimed', { lease: 0 }));
      await advance(LEASE);
      await create(store, newSaga('running'));
      await create(store, newSaga('refund', { name: 'refund', lease: 0 }));
      await store.write(change(await create(store, newSaga('stuck')), stick));
      await store.write(change(await create(store, newSaga('ended')), end));
      const waits = { owned: false, dueIn: undefined };
      await store.write(change(await create(store, newSaga('waits')), waits));
      expect(await list(store, { status: 'stuck' })).toEqual(['stuck']);
      expect(await list(store, { status: 'completed' })).toEqual(['ended']);
      expect(await list(store, { status: 'compensated' })).toEqual([]);
      expect(await list(store, { name: 'refund' })).toEqual(['refund']);
      expect((await list(store, { status: 'running', name: 'order' })).toSorted()).toEqual([
        'running',
        'unclaimed',
        'waits',
      ]);
      expect(await list(store, { dueFor: LEASE - 1_000 })).toEqual(['unclaimed']);
      expect((await list(store, { dueFor: 0 })).toSorted()).toEqual(['refund', 'unclaimed']);
      expect(await list(store, { dueFor: LEASE - 1_000, name: 'refund' })).toEqual([]);
    });

    it('goes on with a list while sagas come and go', async () => {
      const { store, advance } = await open();
      const claims: ClaimedSaga[] = [];
      for (const n of range(10)) claims.push(await create(store, newSaga(`s${n}`)));
      await advance(10);
      const listed: string[] = [];
      for await (const { sagaId } of store.list({ name: 'order' })) {
        listed.push(sagaId);
        if (listed.length === 1) {
          await store.write(change(claims[9]!, end));
          await store.removeEnded(0);
          await create(store, newSaga('new'));
        }
      }
      expect(listed.filter((sagaId) => !['s9', 'new'].includes(sagaId)).toSorted()).toEqual(
        range(9).map((n) => `s${n}`),
      );
    });
  });

  describe(`removing sagas from ${name}`, () => {
    it('removes what ended before the retention, and nothing else', async () => {
      const { store, advance } = await open();
      await store.write(change(await create(store, newSaga('stuck')), stick));
      await create(store, newSaga('running'));
      const old = await create(store, newSaga('old'));
      await store.send('old', cancel(), 'not-ended');
      await store.write(change(old, { ...end, inputs: 1 }));
      const compensated = { ...end, status: 'compensated', reason } as const;
      await store.write(change(await create(store, newSaga('undone')), compensated));
      const late = await create(store, newSaga('late'));
      await advance(10_000);
      await store.write(change(late, end));
      expect(await store.removeEnded(20_000)).toBe(0);
      expect(await store.removeEnded(5_000)).toBe(2);
      expect((await list(store)).toSorted()).toEqual(['late', 'running', 'stuck']);
      expect(await store.get('old')).toBeUndefined();
      expect(await store.write(change(old, { ...end, inputs: 1 }))).toEqual({ result: 'lost' });
      expect(await store.send('old', cancel('c2'), 'not-ended')).toBe('missing');
      // Nothing of the former saga is left for one with its id.
      const again = await create(store, newSaga('old'));
      expect(again.saga).toMatchObject({ entries: { length: 1 }, inputs: { length: 0 } });
      expect(await store.get('old')).toEqual(again.saga);
    });

    it('removes at most 1,000 sagas at once', async () => {
      const { store, advance } = await open();
      await Promise.all(
        range(1_100).map(async (n) => store.write(change(await create(store, newSaga(`s${n}`)), end))),
      );
      await advance(10);
      expect(await store.removeEnded(1)).toBe(1_000);
      expect(await store.removeEnded(1)).toBe(100);
      expect(await list(store)).toEqual([]);
    });
  });

  describe(`keeping events in ${name}`, () => {
    /** Opens a store that keeps events, and three sagas that have two each. */
    const withEvents = async (skip: () => void) => {
      const opened = await open();
      const { store } = opened;
      if (store.publishEvents === undefined) skip();
      for (const sagaId of ['s1', 's2', 's3']) {
        const claimed = await create(store, newSaga(sagaId, { events: [eventOf(sagaId, 1)] }));
        const ended = change(claimed, { ...end, events: [eventOf(sagaId, 2)] });
        await store.write(ended);
        await store.write(ended);
      }
      const published = new Map<string, DomainEvent[]>();
      const publish = async (events: readonly DomainEvent[]) => {
        for (const event of events) {
          published.set(event.aggregateId, [...(published.get(event.aggregateId) ?? []), event]);
        }
      };
      return { ...opened, published, publish };
    };
    const drain = async (store: SagaStore, publish: (events: readonly DomainEvent[]) => Promise<unknown>) => {
      let total = 0;
      for (;;) {
        const count = await store.publishEvents!(publish);
        if (count === 0) return total;
        total += count;
      }
    };
    const expected = (sagaId: string) => [eventOf(sagaId, 1), eventOf(sagaId, 2)];
    const all = new Map(['s1', 's2', 's3'].map((sagaId) => [sagaId, expected(sagaId)]));

    it('publishes those of each saga once, in their order', async ({ skip }) => {
      const { store, published, publish } = await withEvents(skip);
      expect(await drain(store, publish)).toBe(6);
      expect(published).toEqual(all);
      expect(await drain(store, publish)).toBe(0);
    });

    it('keeps no event of a change that was not written', async ({ skip }) => {
      const { store, published, publish, advance } = await withEvents(skip);
      await store.create(newSaga('s1', { events: [eventOf('s1', 3)] }));
      const stale = await create(store, newSaga('s4'));
      await advance(LEASE * 2);
      await store.claim(orders, 10, LEASE);
      await store.write(change(stale, { ...end, events: [eventOf('s4', 1)] }));
      await drain(store, publish);
      expect(published).toEqual(all);
    });

    it('publishes again what was not published, and then goes on', async ({ skip }) => {
      const { store, published, publish } = await withEvents(skip);
      const down = new Error('the bus is down');
      await expect(store.publishEvents!(() => Promise.reject(down))).rejects.toBe(down);
      await drain(store, publish);
      expect(published).toEqual(all);
    });

    it('publishes those of other sagas beside events that the bus rejects', async ({ skip }) => {
      const { store, published, publish } = await withEvents(skip);
      const picky = async (events: readonly DomainEvent[]) => {
        if (events.some(({ aggregateId }) => aggregateId === 's1')) throw new Error('no');
        await publish(events);
      };
      for (let n = 0; published.size < 2 && n < 10; n++) await store.publishEvents!(picky).catch(() => {});
      expect(published).toEqual(new Map([...all].slice(1)));
      await drain(store, publish);
      expect(published.get('s1')).toEqual(expected('s1'));
    });

    it('publishes in their order also where two processes publish at once', async ({ skip }) => {
      const { store, published, publish, open: another } = await withEvents(skip);
      const other = another();
      const entered = deferred<void>();
      const release = deferred<void>();
      const first = store.publishEvents!(async (events) => {
        entered.resolve();
        await release.promise;
        await publish(events);
      });
      await entered.promise;
      expect(await other.publishEvents!(publish)).toBe(0);
      release.resolve();
      await first;
      await drain(other, publish);
      expect(published).toEqual(all);
    });

    it('publishes the events of a saga that was removed', async ({ skip }) => {
      const { store, published, publish, advance } = await withEvents(skip);
      await advance(10);
      await store.removeEnded(1);
      await drain(store, publish);
      expect(published).toEqual(all);
    });
  });
}
