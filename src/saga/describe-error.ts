import { ServiceResponseError } from '../errors.ts';
import { createAttemptError } from '../events/attempt-error.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { AttemptError } from '../events/event-bus.ts';
import type { SagaReason } from './saga-entry.ts';

/**
 * The user and the password of a URL, also if the message was cut after a part of them, and what follows the
 * name of a scheme of authentication.
 */
const CREDENTIALS = /(?<=:\/\/)[^\s/@]+(?=@|…$)|(?<=\b(?:Bearer|Basic)\s+)[\w.~+/=-]+/gi;

/** Describes how an attempt failed, without the credentials that a message may repeat. */
export function describeAttempt(error: unknown, attempt: number): AttemptError {
  const described = createAttemptError(error, attempt);
  return { ...described, message: redact(described.message) + detailOf(error) };
}

/** Creates the error of a step that an event fails, with what the event says of the reason. */
export function createEventFailure({ eventType, data }: DomainEvent): Error {
  const reason = typeof data === 'string' ? data : findText(data, ['message', 'error', 'reason']);
  return new Error(`the event '${eventType}' says that the step has failed${toDetail(reason)}`);
}

/** Gives what a service says to its rejection for people. Source: RFC 9457, section 3.1.4. */
function detailOf(error: unknown): string {
  try {
    return error instanceof ServiceResponseError ? toDetail(findText(error.body, ['detail'])) : '';
  } catch {
    // A Proxy can throw on every look at it.
    return '';
  }
}

/** The characters of another service's own words that are looked at, and those that are kept. */
const MAX_READ = 4_000;
const MAX_DETAIL = 500;

/** Shortens what is redacted already: credentials that are cut in two cannot be told. */
function toDetail(text: string | undefined): string {
  return text === undefined ? '' : `: ${redact(text.slice(0, MAX_READ)).slice(0, MAX_DETAIL)}`;
}

function findText(value: unknown, names: readonly string[]): string | undefined {
  const fields = (value ?? {}) as Readonly<Record<string, unknown>>;
  return names.map((name) => fields[name]).find((text) => typeof text === 'string');
}

function redact(text: string): string {
  return text.replace(CREDENTIALS, '***');
}

/** Describes an error that belongs to no attempt. */
export function describeError(error: unknown): SagaReason['error'] {
  const { name, message, code } = describeAttempt(error, 1);
  return code === undefined ? { name, message } : { name, message, code };
}

/** Makes an error of its description. */
export function restoreError({
  name,
  message,
  code,
}: SagaReason['error']): Error & { code?: string | undefined } {
  const error: Error & { code?: string | undefined } = new Error(message);
  Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true });
  if (code !== undefined) error.code = code;
  return error;
}
