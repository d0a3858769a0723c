import { describe, expect, it, vi } from 'vitest';
import type { DomainEvent } from '../../src/index.ts';
import { InMemorySagaStore } from '../../src/saga/in-memory-saga-store.ts';
import { toArray } from '../events/recorder.ts';
import { change, create, end, eventOf, newSaga, sagaStoreContract } from './store-contract.ts';

sagaStoreContract('InMemorySagaStore', () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'] });
  const store = new InMemorySagaStore();
  return { open: () => store, advance: (time) => void vi.advanceTimersByTime(time) };
});

describe('InMemorySagaStore', () => {
  it('forgets the first sagas to have ended when there are too many of them', async () => {
    const store = new InMemorySagaStore({ maxEnded: 2 });
    await create(store, newSaga('running'));
    for (const sagaId of ['s1', 's2', 's3']) {
      await store.write(change(await create(store, newSaga(sagaId)), end));
    }
    const listed = await toArray(store.list({}));
    expect(listed.map(({ sagaId }) => sagaId)).toEqual(['running', 's2', 's3']);
  });

  it('ends no lease because somebody sets the clock of the machine', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'] });
    const store = new InMemorySagaStore();
    await create(store, newSaga('s1'));
    vi.setSystemTime(Date.now() + 3_600_000);
    expect(await store.claim([{ name: 'order', version: 1 }], 10, 1_000)).toEqual([]);
  });

  it('publishes the events of a saga behind any number of sagas whose events the bus rejects', async () => {
    const store = new InMemorySagaStore();
    for (let n = 0; n <= 250; n++) await create(store, newSaga(`s${n}`, { events: [eventOf(`s${n}`, 1)] }));
    const published: string[] = [];
    const publish = async (events: readonly DomainEvent[]) => {
      if (events[0]!.aggregateId !== 's250') throw new Error('no');
      published.push(...events.map(({ aggregateId }) => aggregateId));
    };
    for (let n = 0; n < 3; n++) await expect(store.publishEvents(publish)).rejects.toThrow('no');
    expect(published).toEqual(['s250']);
  });

  it('rejects options that it cannot keep', () => {
    expect(() => new InMemorySagaStore({ maxEnded: 0 })).toThrow(/maxEnded/);
  });
});
