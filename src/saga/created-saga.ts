import type { ClaimedSaga, NewSaga } from './saga-store.ts';

/** Gives a saga as its creator has it, once a store has written it at a time of its own. */
export function toCreated(saga: NewSaga, token: number, now: number): ClaimedSaga {
  const { entries, cancellable: _, lease: __, events: ___, ...header } = saga;
  return {
    lease: { sagaId: saga.sagaId, token },
    saga: {
      ...header,
      status: 'running',
      reason: undefined,
      createdAt: now,
      updatedAt: now,
      entries: entries.map((entry) => ({ at: now, entry })),
      inputs: [],
    },
    now,
    takeover: false,
  };
}
