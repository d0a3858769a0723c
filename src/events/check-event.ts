import { InvalidEventError } from '../errors.ts';
import { TRACEPARENT, TRACESTATE } from '../internal/request-context.ts';
import { shown } from '../internal/shown.ts';
import type { DomainEvent, EventMetadata } from './domain-event.ts';
import { EVENT_TYPE_FORM, isEventType } from './event-pattern.ts';

/** The most characters of the id of an aggregate or an event. */
const MAX_ID = 256;
/** Neither PostgreSQL nor CloudEvents keeps control characters and halves of surrogate pairs. */
const ID = /^[^\p{Cc}\p{Cs}]+$/u;
const ID_FORM = `must be a string of 1 to ${MAX_ID} characters, without control characters`;
/** The last millisecond of the year 9999, the last one that RFC 3339 can write. */
const END_OF_TIME = 253_402_300_799_999;
/** The largest integer of CloudEvents. */
const MAX_VERSION = 2 ** 31 - 1;

/**
 * Checks all fields of an event, of the data only that there are some.
 *
 * @throws InvalidEventError that says which field is not what it must be
 */
export function checkEvent(event: DomainEvent): void {
  const fault = findFault(event);
  if (fault !== undefined) throw invalid(event, fault);
}

function findFault(event: DomainEvent): string | undefined {
  const { eventType, aggregateId, eventId, timestamp, version, source, data, metadata } = event;
  if (!isEventType(eventType)) return `eventType must be ${EVENT_TYPE_FORM}; got ${shown(eventType)}`;
  if (!isId(aggregateId)) return `aggregateId ${ID_FORM}`;
  if (!isId(eventId)) return `eventId ${ID_FORM}`;
  if (!isId(source)) return `source ${ID_FORM}`;
  if (!Number.isInteger(timestamp) || timestamp < 0 || timestamp > END_OF_TIME) {
    return 'timestamp must be whole milliseconds since 1970, before the year 10000';
  }
  if (!Number.isInteger(version) || version < 1 || version > MAX_VERSION) {
    return `version must be a whole number from 1 to ${MAX_VERSION}`;
  }
  if (data === undefined) return 'data is missing';
  return findMetadataFault(metadata);
}

function findMetadataFault(metadata: EventMetadata): string | undefined {
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) {
    return 'metadata must be an object';
  }
  const { correlationId, causationId, traceparent, tracestate } = metadata;
  if (!isId(correlationId)) return `metadata.correlationId ${ID_FORM}`;
  if (causationId !== undefined && !isId(causationId)) return `metadata.causationId ${ID_FORM}`;
  if (traceparent !== undefined && !isMatch(traceparent, TRACEPARENT)) {
    return 'metadata.traceparent must be as W3C Trace Context has it';
  }
  if (tracestate !== undefined && !isMatch(tracestate, TRACESTATE)) {
    return 'metadata.tracestate must be as W3C Trace Context has it, at most 512 characters';
  }
  return undefined;
}

function isId(value: unknown): boolean {
  return typeof value === 'string' && value.length <= MAX_ID && ID.test(value);
}

function isMatch(value: unknown, form: RegExp): boolean {
  return typeof value === 'string' && form.test(value);
}

/** Creates the error of an event, which names the event but shows nothing of its data. */
export function invalid(
  event: { eventType?: unknown; eventId?: unknown },
  message: string,
  cause?: unknown,
): InvalidEventError {
  const eventType = isEventType(event.eventType) ? event.eventType : undefined;
  const eventId = typeof event.eventId === 'string' ? event.eventId.slice(0, MAX_ID) : undefined;
  const details = cause === undefined ? { eventType, eventId } : { eventType, eventId, cause };
  return new InvalidEventError(
    `the event${eventType === undefined ? '' : ` '${eventType}'`} is invalid: ${message}`,
    details,
  );
}
