import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { processState } from '../internal/process-state.ts';
import {
  currentRequestContext,
  REQUEST_ID,
  runInRequestContext,
  TRACEPARENT,
  TRACESTATE,
} from '../internal/request-context.ts';
import type { DomainEvent, EventMetadata } from './domain-event.ts';

const storage = processState('event', () => new AsyncLocalStorage<DomainEvent>());

/** Gives the event that is being handled, if there is one. */
export function currentEvent(): DomainEvent | undefined {
  return storage.getStore();
}

/**
 * Runs the handler of an event, and all that it starts, within the event: what it publishes is
 * caused by this event, and the calls of a ServiceClient carry its correlation id and its trace.
 */
export function runInEvent<T>(event: DomainEvent, fn: () => T): T {
  const { correlationId, traceparent, tracestate } = event.metadata;
  // A request id is sent in a header: not every id of another system may be.
  const requestId = [correlationId, event.eventId].find((id) => REQUEST_ID.test(id)) ?? randomUUID();
  const context = { requestId, traceparent, tracestate, deadline: Infinity };
  return storage.run(event, () => runInRequestContext(context, fn));
}

/** Completes the metadata of a new event by the event or the request that is being handled. */
export function completeMetadata(given: Partial<EventMetadata>, eventId: string): EventMetadata {
  const cause = storage.getStore();
  const request = currentRequestContext();
  const requestId = wellFormed(request?.requestId, REQUEST_ID);
  const traceparent = wellFormed(request?.traceparent, TRACEPARENT);
  const tracestate = traceparent && wellFormed(request?.tracestate, TRACESTATE);
  const trace = given.traceparent === undefined ? { traceparent, tracestate } : {};
  return {
    ...trace,
    ...given,
    correlationId: given.correlationId ?? cause?.metadata.correlationId ?? requestId ?? eventId,
    causationId: given.causationId ?? cause?.eventId,
  };
}

/** A user may run code in any context: one that is malformed must not stop an event. */
function wellFormed(value: string | undefined, form: RegExp): string | undefined {
  return value !== undefined && form.test(value) ? value : undefined;
}
