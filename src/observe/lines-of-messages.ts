import type { EventBusEvents } from '../events/bus-events.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { SagaOrchestratorEvents } from '../saga/orchestrator-events.ts';
import type { SagaReason } from '../saga/saga-entry.ts';
import { counted, errorFields, type Lines, line } from './line.ts';

/** Names an event. Its data and its metadata stay out of logs. */
const eventFields = ({ eventType, eventId, aggregateId }: DomainEvent) => ({
  eventType,
  eventId,
  aggregateId,
});
const errorOf = ({ error }: { error: unknown }) => errorFields(error);

const handlingKey = ({ group, event }: { group: string | undefined; event: DomainEvent }) =>
  `${group} ${event.eventType}`;

export const EVENT_BUS: Lines<EventBusEvents> = {
  publish: undefined,
  handle: undefined,
  fail: counted(
    'warn',
    'event handler failed',
    ({ event, group, attempt, retryIn, error }) => ({
      group,
      ...eventFields(event),
      attempt,
      retryIn,
      ...errorFields(error),
    }),
    handlingKey,
  ),
  hold: counted(
    'warn',
    'events wait for a process that knows their version',
    ({ event, group }) => ({ group, ...eventFields(event) }),
    handlingKey,
  ),
  die: counted(
    'error',
    'event gone to the dead letters',
    ({ event, group, errors }) => ({
      group,
      ...eventFields(event),
      attempts: errors.length,
      ...errorFields(errors.at(-1)),
    }),
    handlingKey,
  ),
  nearlyFull: counted('warn', 'event partition nearly full', (event) => ({ ...event })),
  acquire: line('debug', 'event partition acquired', (event) => ({ ...event })),
  lose: line('warn', 'event partition lost', ({ group, topic, partition, error }) => ({
    group,
    topic,
    partition,
    ...errorFields(error),
  })),
  error: counted('error', 'event bus failed in the background', errorOf),
};

/** The events of PostgresOutbox and PostgresProjection, whose room this one does not import. */
interface OutboxEvents {
  acquire: [{ partition: number }];
  lose: [{ partition: number }];
  relay: [{ partition: number; count: number; position: bigint }];
  error: [{ error: unknown; partition?: number | undefined }];
}

export const POSTGRES_OUTBOX: Lines<OutboxEvents> = {
  acquire: line('debug', 'outbox partition acquired', ({ partition }) => ({ partition })),
  lose: line('debug', 'outbox partition lost', ({ partition }) => ({ partition })),
  relay: undefined,
  error: counted('error', 'outbox not relayed', ({ error, partition }) => ({
    ...(partition !== undefined && { partition }),
    ...errorFields(error),
  })),
};

interface ProjectionEvents {
  acquire: [{ name: string }];
  lose: [{ name: string }];
  fail: [{ event: DomainEvent; error: unknown; attempt: number; retryIn: number }];
  error: [{ error: unknown }];
}

export const POSTGRES_PROJECTION: Lines<ProjectionEvents> = {
  acquire: line('debug', 'projection acquired'),
  lose: line('info', 'projection lost to another process'),
  fail: counted('error', 'projection stopped at an event', ({ event, attempt, retryIn, error }) => ({
    ...eventFields(event),
    attempt,
    retryIn,
    ...errorFields(error),
  })),
  error: counted('error', 'projection failed in the background', errorOf),
};

const sagaFields = ({ sagaId, name }: { sagaId: string; name: string }) => ({ saga: name, sagaId });

const reasonFields = ({ step, error }: SagaReason) => ({
  ...(step !== undefined && { step }),
  ...errorFields(error),
});

export const SAGA_ORCHESTRATOR: Lines<SagaOrchestratorEvents> = {
  start: undefined,
  step: undefined,
  fail: counted(
    'warn',
    'saga step failed',
    ({ step, during, outcome, error, ...saga }) => ({
      ...sagaFields(saga),
      step,
      during,
      outcome,
      ...errorFields(error),
    }),
    ({ name, step, during }) => `${name} ${step} ${during}`,
  ),
  compensate: counted(
    'warn',
    'saga compensates',
    ({ reason, ...saga }) => ({ ...sagaFields(saga), ...reasonFields(reason) }),
    ({ name }) => name,
  ),
  complete: undefined,
  compensated: counted('info', 'saga compensated', sagaFields, ({ name }) => name),
  stuck: line('error', 'saga stuck: it waits for an operator', ({ reason, ...saga }) => ({
    ...sagaFields(saga),
    ...reasonFields(reason),
  })),
  claim: counted(({ takeover }) => (takeover ? 'info' : undefined), 'saga taken over', sagaFields),
  lose: counted('warn', 'saga lost to another process', sagaFields),
  error: counted('error', 'saga task failed in the background', ({ error, sagaId }) => ({
    ...(sagaId !== undefined && { sagaId }),
    ...errorFields(error),
  })),
};
