import { shown } from './internal/shown.ts';

/** The stable codes of Holdfast's errors: match on these, not on messages. */
export type ErrorCode =
  | 'ERR_CIRCUIT_OPEN'
  | 'ERR_TIMEOUT'
  | 'ERR_DEADLINE_EXCEEDED'
  | 'ERR_BULKHEAD_FULL'
  | 'ERR_RATE_LIMITED'
  | 'ERR_LIMIT_EXCEEDED'
  | 'ERR_THROTTLED'
  | 'ERR_RETRY_BUDGET_EXHAUSTED'
  | 'ERR_HEDGE_LOST'
  | 'ERR_NO_INSTANCE'
  | 'ERR_INVALID_INSTANCE'
  | 'ERR_INSTANCE_REPLACED'
  | 'ERR_DISCOVERY_UNAVAILABLE'
  | 'ERR_REDIS'
  | 'ERR_INVALID_REQUEST'
  | 'ERR_SERVICE_RESPONSE'
  | 'ERR_SERVICE_CONNECTION'
  | 'ERR_RESPONSE_TOO_LARGE'
  | 'ERR_RESPONSE_INVALID'
  | 'ERR_INVALID_EVENT'
  | 'ERR_EVENT_VERSION'
  | 'ERR_STREAM_FULL'
  | 'ERR_PARTITION_LOST'
  | 'ERR_PARTITIONS_MISMATCH'
  | 'ERR_EVENTS_DROPPED'
  | 'ERR_EVENTS_MISSING'
  | 'ERR_OUTBOX_BEHIND'
  | 'ERR_CONCURRENCY'
  | 'ERR_GROUP_IN_USE'
  | 'ERR_DATABASE'
  | 'ERR_KEY_REVOKED'
  | 'ERR_SAGA_FAILED'
  | 'ERR_SAGA_CONFLICT'
  | 'ERR_SAGA_NOT_FOUND'
  | 'ERR_SAGA_UNREADABLE'
  | 'ERR_GATEWAY_CONFIG'
  | 'ERR_SERVER_CLOSED'
  | 'ERR_CLOSED';

/**
 * The mark that the errors of each class have, from the global symbol registry: `instanceof` also holds for an
 * error made by another copy of the package, such as its CommonJS build.
 */
const BRANDS = new Map<unknown, symbol>();

/**
 * A description of a call that is fit for logs: without its headers, its query and its body.
 * Frozen.
 */
export interface CallDescription {
  readonly service: string;
  readonly method: string;
  /** The path without the query. */
  readonly path: string;
  /** The instance of the latest attempt; undefined before the first one. */
  readonly instanceId: string | undefined;
  /** The number of the latest attempt; 1 before and with the first one. */
  readonly attempt: number;
  readonly [other: string]: unknown;
}

/**
 * Base of every error that Holdfast makes. `code` is stable; `cause` is the underlying error, if
 * there is one.
 */
export class HoldfastError extends Error {
  readonly code: ErrorCode;
  /** The call of the error, if a ServiceClient made it. Its message begins with the same. */
  declare call?: CallDescription;
  /**
   * The failures of the earlier attempts of a call whose retry was rejected, as by an open circuit: the
   * first one first, ten at most. Undefined on any other error.
   */
  declare errors?: readonly unknown[];

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    if (typeof value !== 'object' || value === null) return false;
    const brand = BRANDS.get(this);
    return brand === undefined ? Function.prototype[Symbol.hasInstance].call(this, value) : brand in value;
  }
}

function named<T extends { prototype: Error }>(errorClass: T, name: string): void {
  const brand = Symbol.for(`holdfast.${name}`);
  BRANDS.set(errorClass, brand);
  Object.defineProperty(errorClass.prototype, brand, { value: true });
  Object.defineProperty(errorClass.prototype, 'name', { value: name, configurable: true, writable: true });
}
named(HoldfastError, 'HoldfastError');

/** The breaker is open, isolated, or half-open with all probes under way: the call was not made. */
export class CircuitOpenError extends HoldfastError {
  declare readonly code: 'ERR_CIRCUIT_OPEN';
  /** Milliseconds until the breaker lets a probe through; Infinity while it is isolated by hand. */
  readonly retryAfter: number;

  /** @param options its `cause` is the failure that opened the circuit, if one is known. */
  constructor(message: string, retryAfter: number, options?: ErrorOptions) {
    super('ERR_CIRCUIT_OPEN', message, options);
    this.retryAfter = retryAfter;
  }
}
named(CircuitOpenError, 'CircuitOpenError');

/** The operation did not finish within the time that it was given. */
export class TimeoutError extends HoldfastError {
  declare readonly code: 'ERR_TIMEOUT' | 'ERR_DEADLINE_EXCEEDED';
  /** Milliseconds that the operation was given. */
  readonly timeout: number;
  /**
   * Milliseconds of them for which the event loop of this process is known to have been blocked; 0
   * unless they were more than 15 and more than a tenth. Above 0 it is not known who was too slow,
   * so breakers, limiters, health checks and balancers do not count the timeout. Default 0.
   */
  readonly stalled: number;

  constructor(
    message: string,
    timeout: number,
    code: 'ERR_TIMEOUT' | 'ERR_DEADLINE_EXCEEDED' = 'ERR_TIMEOUT',
    stalled = 0,
  ) {
    super(
      code,
      stalled > 0
        ? `${message}; the event loop of this process was blocked for at least ${Math.round(stalled)} ms`
        : message,
    );
    this.timeout = timeout;
    this.stalled = stalled;
  }
}
named(TimeoutError, 'TimeoutError');

/**
 * The deadline that the call came with (from its own caller) has passed. It says nothing about the
 * callee, so breakers and balancers do not count it.
 */
export class DeadlineExceededError extends TimeoutError {
  declare readonly code: 'ERR_DEADLINE_EXCEEDED';
  constructor(message: string, timeout: number, stalled = 0) {
    super(message, timeout, 'ERR_DEADLINE_EXCEEDED', stalled);
  }
}
named(DeadlineExceededError, 'DeadlineExceededError');

/** Every place of the bulkhead and of its queue is taken, or the wait in the queue was too long. */
export class BulkheadFullError extends HoldfastError {
  declare readonly code: 'ERR_BULKHEAD_FULL';
  constructor(message: string) {
    super('ERR_BULKHEAD_FULL', message);
  }
}
named(BulkheadFullError, 'BulkheadFullError');

/** The call would exceed the allowed rate, or every place of the limiter's queue is taken. */
export class RateLimitedError extends HoldfastError {
  declare readonly code: 'ERR_RATE_LIMITED';
  /** Milliseconds until such a call could be let through. */
  readonly retryAfter: number;

  constructor(message: string, retryAfter: number) {
    super('ERR_RATE_LIMITED', message);
    this.retryAfter = retryAfter;
  }
}
named(RateLimitedError, 'RateLimitedError');

/** As many calls are under way as the adaptive limit allows, and its queue has no place. */
export class LimitExceededError extends HoldfastError {
  declare readonly code: 'ERR_LIMIT_EXCEEDED';
  constructor(message: string) {
    super('ERR_LIMIT_EXCEEDED', message);
  }
}
named(LimitExceededError, 'LimitExceededError');

/** The call was rejected without being made, since its callee has been rejecting too many. */
export class ThrottledError extends HoldfastError {
  declare readonly code: 'ERR_THROTTLED';
  constructor(message: string) {
    super('ERR_THROTTLED', message);
  }
}
named(ThrottledError, 'ThrottledError');

/** The retry budget has too few tokens left. It is the `cause` of the last failure. */
export class RetryBudgetExhausted extends HoldfastError {
  declare readonly code: 'ERR_RETRY_BUDGET_EXHAUSTED';
  /** @param name that of the budget, if it has one. */
  constructor(name?: string) {
    super(
      'ERR_RETRY_BUDGET_EXHAUSTED',
      `the retry budget${name === undefined ? '' : ` ${shown(name)}`} is spent: ` +
        'too large a share of recent calls were retries',
    );
  }
}
named(RetryBudgetExhausted, 'RetryBudgetExhausted');

/** The reason with which the attempts of a hedged call are aborted that did not give its result. */
export class HedgeLostError extends HoldfastError {
  declare readonly code: 'ERR_HEDGE_LOST';
  constructor() {
    super('ERR_HEDGE_LOST', 'another attempt gave the result of this call');
  }
}
named(HedgeLostError, 'HedgeLostError');

/** No instance of the service is registered. */
export class NoInstanceError extends HoldfastError {
  declare readonly code: 'ERR_NO_INSTANCE';
  readonly serviceName: string;

  constructor(serviceName: string, options?: ErrorOptions) {
    super(
      'ERR_NO_INSTANCE',
      `no instance of ${shown(serviceName)} is known: is it registered under this name?`,
      options,
    );
    this.serviceName = serviceName;
  }
}
named(NoInstanceError, 'NoInstanceError');

/** A registration was rejected, since it has a field that cannot be trusted. */
export class InvalidInstanceError extends HoldfastError {
  declare readonly code: 'ERR_INVALID_INSTANCE';
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INVALID_INSTANCE', message, options);
  }
}
named(InvalidInstanceError, 'InvalidInstanceError');

/** Another process has since registered under the id of this instance, and takes its place. */
export class InstanceReplacedError extends HoldfastError {
  declare readonly code: 'ERR_INSTANCE_REPLACED';
  readonly serviceName: string;
  readonly instanceId: string;

  constructor(serviceName: string, instanceId: string) {
    super(
      'ERR_INSTANCE_REPLACED',
      `another process has registered as ${shown(instanceId)} of ${shown(serviceName)} since: ` +
        'give each its own instanceId',
    );
    this.serviceName = serviceName;
    this.instanceId = instanceId;
  }
}
named(InstanceReplacedError, 'InstanceReplacedError');

/** The registry of instances cannot be reached, and nothing is known from earlier. */
export class DiscoveryUnavailableError extends HoldfastError {
  declare readonly code: 'ERR_DISCOVERY_UNAVAILABLE';
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_DISCOVERY_UNAVAILABLE', message, options);
  }
}
named(DiscoveryUnavailableError, 'DiscoveryUnavailableError');

/** Redis is away, took too long, or rejected a command. */
export class RedisError extends HoldfastError {
  declare readonly code: 'ERR_REDIS';
  /** Whether Redis denies this client access: a wrong password, or a right that it lacks. */
  readonly denied: boolean;

  constructor(message: string, options: ErrorOptions & { denied?: boolean | undefined } = {}) {
    const { denied = false, ...rest } = options;
    super('ERR_REDIS', message, rest);
    this.denied = denied;
  }
}
named(RedisError, 'RedisError');

/**
 * The call was rejected before anything was sent, because a part of it is malformed; or its body, a
 * stream or a generator, has failed: its `cause`. The error says nothing about the service.
 */
export class InvalidRequestError extends HoldfastError {
  declare readonly code: 'ERR_INVALID_REQUEST';
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INVALID_REQUEST', message, options);
  }
}
named(InvalidRequestError, 'InvalidRequestError');

/** Used after `close()`. */
export class ClosedError extends HoldfastError {
  declare readonly code: 'ERR_CLOSED';
  constructor(what: string) {
    super('ERR_CLOSED', `${what} is closed`);
  }
}
named(ClosedError, 'ClosedError');

/** A server was closed by somebody else before the graceful shutdown had taken it out of use. */
export class ServerClosedError extends HoldfastError {
  declare readonly code: 'ERR_SERVER_CLOSED';
  constructor(options?: ErrorOptions) {
    super(
      'ERR_SERVER_CLOSED',
      'somebody else closed the server before its callers knew of the shutdown, so that some may have failed to ' +
        'connect: let gracefulShutdown alone close it',
      options,
    );
  }
}
named(ServerClosedError, 'ServerClosedError');

/** Something that is wrong with the configuration of a gateway. */
export interface GatewayConfigProblem {
  /** The option, such as `routes[2].rewrite`; empty for the whole. */
  readonly path: string;
  /** The line of the file, from 1 on; undefined for a configuration that is no file. */
  readonly line?: number | undefined;
  readonly reason: string;
}

/**
 * The configuration of a gateway is not allowed, and was not applied. The message tells all that is
 * wrong, and repeats no text of the configuration.
 */
export class GatewayConfigError extends HoldfastError {
  declare readonly code: 'ERR_GATEWAY_CONFIG';
  /** All that is wrong, at least one thing. */
  readonly problems: readonly GatewayConfigProblem[];
  /** The option of the first problem. */
  readonly path: string;
  /** The line of the first problem. */
  readonly line: number | undefined;
  /** The file; undefined for a configuration that is none. */
  readonly file: string | undefined;

  constructor(
    problems: readonly GatewayConfigProblem[],
    details: ErrorOptions & { file?: string | undefined } = {},
  ) {
    const { file, ...options } = details;
    super('ERR_GATEWAY_CONFIG', describeProblems(problems, file), options);
    this.problems = problems;
    this.path = problems[0]?.path ?? '';
    this.line = problems[0]?.line;
    this.file = file;
  }
}
named(GatewayConfigError, 'GatewayConfigError');

function describeProblems(problems: readonly GatewayConfigProblem[], file: string | undefined): string {
  const lines = problems.map(({ path, line, reason }) => {
    const place = [file, line].filter((part) => part !== undefined).join(':');
    return [place && `${place}:`, path, reason].filter(Boolean).join(' ');
  });
  if (lines.length === 1) return `the configuration of the gateway is not allowed: ${lines[0]}`;
  return `the configuration of the gateway is not allowed, for ${lines.length} reasons:\n  ${lines.join('\n  ')}`;
}

/** The service and the instance of an error. */
export interface ServiceErrorDetails extends ErrorOptions {
  serviceName: string;
  instanceId: string;
}

/** Base of the errors of a call that was sent to an instance, or was about to be. */
export class ServiceError extends HoldfastError {
  readonly serviceName: string;
  readonly instanceId: string;

  constructor(code: ErrorCode, message: string, details: ServiceErrorDetails) {
    super(code, message, 'cause' in details ? { cause: details.cause } : undefined);
    this.serviceName = details.serviceName;
    this.instanceId = details.instanceId;
  }
}
named(ServiceError, 'ServiceError');

/**
 * The service responded with a status outside 200 to 299. The headers and the body of the response
 * are not enumerable, so that a log of the error does not contain them.
 */
export class ServiceResponseError extends ServiceError {
  declare readonly code: 'ERR_SERVICE_RESPONSE';
  readonly status: number;
  declare readonly headers: Record<string, string | string[] | undefined>;
  /** The body: parsed where it is JSON, else text. */
  declare readonly body: unknown;

  constructor(
    message: string,
    details: ServiceErrorDetails & {
      status: number;
      headers: Record<string, string | string[] | undefined>;
      body: unknown;
    },
  ) {
    super('ERR_SERVICE_RESPONSE', message, details);
    this.status = details.status;
    const { headers, body } = details;
    Object.defineProperty(this, 'headers', { value: headers, writable: true, configurable: true });
    Object.defineProperty(this, 'body', { value: body, writable: true, configurable: true });
  }
}
named(ServiceResponseError, 'ServiceResponseError');

/** The connection to the instance could not be made, or broke before the response was complete. */
export class ServiceConnectionError extends ServiceError {
  declare readonly code: 'ERR_SERVICE_CONNECTION';
  /**
   * Whether the instance may have received the request, or a part of it. False where no connection
   * could be made.
   */
  readonly sent: boolean;

  constructor(message: string, details: ServiceErrorDetails & { sent?: boolean | undefined }) {
    super('ERR_SERVICE_CONNECTION', message, details);
    this.sent = details.sent ?? true;
  }
}
named(ServiceConnectionError, 'ServiceConnectionError');

/** The body of the response is larger than `maxResponseSize`; the rest was not read. */
export class ResponseTooLargeError extends ServiceError {
  declare readonly code: 'ERR_RESPONSE_TOO_LARGE';
  /** The bound, in bytes. */
  readonly maxResponseSize: number;

  constructor(message: string, details: ServiceErrorDetails & { maxResponseSize: number }) {
    super('ERR_RESPONSE_TOO_LARGE', message, details);
    this.maxResponseSize = details.maxResponseSize;
  }
}
named(ResponseTooLargeError, 'ResponseTooLargeError');

/**
 * The response is not as its headers say: JSON, or encoded in some way; or for `call()`, neither
 * JSON nor text.
 */
export class ResponseInvalidError extends ServiceError {
  declare readonly code: 'ERR_RESPONSE_INVALID';
  constructor(message: string, details: ServiceErrorDetails) {
    super('ERR_RESPONSE_INVALID', message, details);
  }
}
named(ResponseInvalidError, 'ResponseInvalidError');

/** The type and id of an event, as far as they are known. */
export interface EventErrorDetails extends ErrorOptions {
  eventType?: string | undefined;
  eventId?: string | undefined;
}

/** Base of the errors of one event. */
export class EventError extends HoldfastError {
  readonly eventType: string | undefined;
  readonly eventId: string | undefined;

  constructor(code: ErrorCode, message: string, details: EventErrorDetails = {}) {
    super(code, message, 'cause' in details ? { cause: details.cause } : undefined);
    this.eventType = details.eventType;
    this.eventId = details.eventId;
  }
}
named(EventError, 'EventError');

/**
 * The event is malformed, too large, or rejected by the schema of its type: it was not published;
 * or, where it was received, goes to the dead letters.
 */
export class InvalidEventError extends EventError {
  declare readonly code: 'ERR_INVALID_EVENT';
  constructor(message: string, details?: EventErrorDetails) {
    super('ERR_INVALID_EVENT', message, details);
  }
}
named(InvalidEventError, 'InvalidEventError');

/** The version of the event is newer than those that this process knows. */
export class EventVersionError extends EventError {
  declare readonly code: 'ERR_EVENT_VERSION';
  constructor(message: string, details?: EventErrorDetails) {
    super('ERR_EVENT_VERSION', message, details);
  }
}
named(EventVersionError, 'EventVersionError');

/**
 * A partition has as many events as it may, and nothing was dropped for more. Of a list that was
 * published, an InMemoryEventBus has stored none. A RedisEventBus has stored, in each partition, the
 * first events that there was room for: all of those in a partition that was not full.
 */
export class StreamFullError extends HoldfastError {
  declare readonly code: 'ERR_STREAM_FULL';
  readonly topic: string;
  readonly partition: number;
  /** The most events of a partition. */
  readonly maxLength: number;
  /**
   * A group that has not handled events which would else be dropped; undefined if there is none, or
   * if it is not known.
   */
  readonly group: string | undefined;

  /** @param group null if the retention alone keeps the events */
  constructor(topic: string, partition: number, maxLength: number, group?: string | null) {
    super(
      'ERR_STREAM_FULL',
      `partition ${partition} of the topic ${shown(topic)} has ${maxLength} events, as many as it may: ` +
        whyFull(group),
    );
    this.topic = topic;
    this.group = group ?? undefined;
    this.partition = partition;
    this.maxLength = maxLength;
  }
}
named(StreamFullError, 'StreamFullError');

function whyFull(group: string | null | undefined): string {
  if (typeof group === 'string') {
    return `the group ${shown(group)} has not handled them: see why it lags behind, or remove it if nobody needs it`;
  }
  const kept =
    'are within the retention: shorten retention, raise maxLength, or spread them over more partitions';
  return group === null ? `they ${kept}` : `a group has not handled them, or they ${kept}`;
}

/**
 * The reason with which the signal of a handler is aborted: its process has lost the partition, and
 * another one handles the event again.
 */
export class PartitionLostError extends HoldfastError {
  declare readonly code: 'ERR_PARTITION_LOST';
  readonly group: string;
  readonly topic: string;
  readonly partition: number;

  constructor(message: string, details: { group: string; topic: string; partition: number } & ErrorOptions) {
    super('ERR_PARTITION_LOST', message, 'cause' in details ? { cause: details.cause } : undefined);
    this.group = details.group;
    this.topic = details.topic;
    this.partition = details.partition;
  }
}
named(PartitionLostError, 'PartitionLostError');

/** The bus was created with another number of partitions than the one that is stored. */
export class PartitionsMismatchError extends HoldfastError {
  declare readonly code: 'ERR_PARTITIONS_MISMATCH';
  constructor(given: number, stored: number) {
    super(
      'ERR_PARTITIONS_MISMATCH',
      `the events are stored in ${stored} partitions, and this bus was created with ${given}: give partitions: ` +
        `${stored}, or another keyPrefix`,
    );
  }
}
named(PartitionsMismatchError, 'PartitionsMismatchError');

/** A group cannot be removed while a process subscribes to it. */
export class GroupInUseError extends HoldfastError {
  declare readonly code: 'ERR_GROUP_IN_USE';
  readonly group: string;

  constructor(group: string) {
    super('ERR_GROUP_IN_USE', `the group ${shown(group)} has subscriptions: close them before it is removed`);
    this.group = group;
  }
}
named(GroupInUseError, 'GroupInUseError');

/** The details of a DatabaseError. */
export interface DatabaseErrorDetails extends ErrorOptions {
  retryable?: boolean | undefined;
  sqlState?: string | undefined;
}

/**
 * The database rejected a statement, or could not be reached. What the driver threw is the `cause`. The
 * message repeats no value that a statement was given.
 */
export class DatabaseError extends HoldfastError {
  declare readonly code: 'ERR_DATABASE';
  /**
   * Whether the same transaction may succeed if it runs again from its beginning: after a deadlock, a
   * conflict of serializable transactions, a lost connection, or while the database starts. After a
   * lost connection it is not known whether the transaction was committed.
   */
  readonly retryable: boolean;
  /** The SQLSTATE that PostgreSQL gave, such as '23505'; undefined where it gave none. */
  readonly sqlState: string | undefined;

  constructor(message: string, details: DatabaseErrorDetails = {}) {
    const { retryable = false, sqlState, ...options } = details;
    super('ERR_DATABASE', message, options);
    this.retryable = retryable;
    this.sqlState = sqlState;
  }
}
named(DatabaseError, 'DatabaseError');

/** The idempotency key was revoked before its effect happened: it must not happen any more. */
export class KeyRevokedError extends HoldfastError {
  declare readonly code: 'ERR_KEY_REVOKED';
  readonly key: string;

  constructor(key: string) {
    super(
      'ERR_KEY_REVOKED',
      `the key ${shown(key)} was revoked: what it stands for must not be done any more`,
    );
    this.key = key;
  }
}
named(KeyRevokedError, 'KeyRevokedError');

/**
 * A broadcast subscription is behind by more than the events that are kept: it goes on with the oldest
 * of these, and does not get those before them.
 */
export class EventsDroppedError extends HoldfastError {
  declare readonly code: 'ERR_EVENTS_DROPPED';
  readonly topic: string;
  readonly partition: number;

  constructor(topic: string, partition: number) {
    super(
      'ERR_EVENTS_DROPPED',
      `events of partition ${partition} of the topic ${shown(topic)} were dropped before a broadcast subscription ` +
        'had read them, and it goes on behind them: its handler is too slow, or the retention too short',
    );
    this.topic = topic;
    this.partition = partition;
  }
}
named(EventsDroppedError, 'EventsDroppedError');

/**
 * The bus has lost events that an outbox had relayed to it, as when it was restarted from a file
 * that is some seconds old. The relay sends them again.
 */
export class EventsMissingError extends HoldfastError {
  declare readonly code: 'ERR_EVENTS_MISSING';
  readonly topic: string;
  readonly partition: number;

  /** @param latest the latest position that the bus has of those from the outbox */
  constructor(topic: string, partition: number, latest: bigint) {
    super(
      'ERR_EVENTS_MISSING',
      `the bus has lost events of partition ${partition} of the topic ${shown(topic)}: the latest that it has from ` +
        `this outbox is ${latest}`,
    );
    this.topic = topic;
    this.partition = partition;
  }
}
named(EventsMissingError, 'EventsMissingError');

/**
 * The bus has later events from this database than the database has itself: it was restored from a
 * backup. The bus would drop what gets these positions a second time, so nothing is relayed until
 * `npx holdfast events reset-source` has given the database a new id.
 */
export class OutboxBehindError extends HoldfastError {
  declare readonly code: 'ERR_OUTBOX_BEHIND';
  readonly topic: string;
  readonly partition: number;

  constructor(topic: string, partition: number, latest: bigint, head: bigint) {
    super(
      'ERR_OUTBOX_BEHIND',
      `the bus has position ${latest} of partition ${partition} of the topic ${shown(topic)}, and the outbox ` +
        `only ${head}: ` +
        'was the database restored from a backup? Give it a new id with `npx holdfast events reset-source`',
    );
    this.topic = topic;
    this.partition = partition;
  }
}
named(OutboxBehindError, 'OutboxBehindError');

/** The stream has another version than the one that was expected: somebody has appended to it. */
export class ConcurrencyError extends HoldfastError {
  declare readonly code: 'ERR_CONCURRENCY';
  readonly streamId: string;
  readonly expectedVersion: number;
  readonly actualVersion: number;

  constructor(streamId: string, expectedVersion: number, actualVersion: number) {
    super(
      'ERR_CONCURRENCY',
      `the stream ${shown(streamId)} has version ${actualVersion}, and version ${expectedVersion} was expected: ` +
        'read what was appended, and decide again',
    );
    this.streamId = streamId;
    this.expectedVersion = expectedVersion;
    this.actualVersion = actualVersion;
  }
}
named(ConcurrencyError, 'ConcurrencyError');

/** The details of a SagaFailedError. */
export interface SagaFailedDetails extends ErrorOptions {
  sagaId: string;
  status: 'compensated' | 'stuck';
  step?: string | undefined;
}

/**
 * The saga did not complete: it was compensated, or it is stuck and waits for an operator. What happened
 * is the `cause`, as far as it was kept.
 */
export class SagaFailedError extends HoldfastError {
  declare readonly code: 'ERR_SAGA_FAILED';
  readonly sagaId: string;
  readonly status: 'compensated' | 'stuck';
  /** The step that failed; undefined if the saga was cancelled, or ran out of time. */
  readonly step: string | undefined;

  constructor(message: string, details: SagaFailedDetails) {
    super('ERR_SAGA_FAILED', message, 'cause' in details ? { cause: details.cause } : undefined);
    this.sagaId = details.sagaId;
    this.status = details.status;
    this.step = details.step;
  }
}
named(SagaFailedError, 'SagaFailedError');

/** There is a saga with this id already, of another definition or with another input. */
export class SagaConflictError extends HoldfastError {
  declare readonly code: 'ERR_SAGA_CONFLICT';
  readonly sagaId: string;

  constructor(sagaId: string) {
    super(
      'ERR_SAGA_CONFLICT',
      `there is a saga ${shown(sagaId)} of another definition, or with another input`,
    );
    this.sagaId = sagaId;
  }
}
named(SagaConflictError, 'SagaConflictError');

/** There is no saga with this id, or no more. */
export class SagaNotFoundError extends HoldfastError {
  declare readonly code: 'ERR_SAGA_NOT_FOUND';
  readonly sagaId: string;

  constructor(sagaId: string) {
    super('ERR_SAGA_NOT_FOUND', `there is no saga ${shown(sagaId)}`);
    this.sagaId = sagaId;
  }
}
named(SagaNotFoundError, 'SagaNotFoundError');
/** The journal of a saga cannot be read: it is damaged, or of another version of Holdfast. */
export class SagaUnreadableError extends HoldfastError {
  declare readonly code: 'ERR_SAGA_UNREADABLE';
  readonly sagaId: string;

  constructor(sagaId: string, options: ErrorOptions = {}) {
    super('ERR_SAGA_UNREADABLE', `the journal of the saga ${shown(sagaId)} cannot be read`, options);
    this.sagaId = sagaId;
  }
}
named(SagaUnreadableError, 'SagaUnreadableError');

/**
 * Any error of Holdfast, told apart by its `code`: a comparison of `code` narrows the type to the class
 * with that code.
 *
 * @example
 * if (isHoldfastError(error)) {
 *   switch (error.code) {
 *     case 'ERR_CIRCUIT_OPEN':
 *       return retryLater(error.retryAfter);
 *     case 'ERR_SERVICE_RESPONSE':
 *       return error.status;
 *   }
 * }
 */
export type AnyHoldfastError =
  | (TimeoutError & { readonly code: 'ERR_TIMEOUT' })
  | CircuitOpenError
  | DeadlineExceededError
  | BulkheadFullError
  | RateLimitedError
  | LimitExceededError
  | ThrottledError
  | RetryBudgetExhausted
  | HedgeLostError
  | NoInstanceError
  | InvalidInstanceError
  | InstanceReplacedError
  | DiscoveryUnavailableError
  | RedisError
  | InvalidRequestError
  | ClosedError
  | ServerClosedError
  | GatewayConfigError
  | ServiceResponseError
  | ServiceConnectionError
  | ResponseTooLargeError
  | ResponseInvalidError
  | InvalidEventError
  | EventVersionError
  | StreamFullError
  | PartitionLostError
  | PartitionsMismatchError
  | GroupInUseError
  | DatabaseError
  | KeyRevokedError
  | EventsDroppedError
  | EventsMissingError
  | OutboxBehindError
  | ConcurrencyError
  | SagaFailedError
  | SagaConflictError
  | SagaNotFoundError
  | SagaUnreadableError;

/** Whether the value is an error of Holdfast, also of another copy of the package. */
export function isHoldfastError(value: unknown): value is AnyHoldfastError {
  return value instanceof HoldfastError;
}
