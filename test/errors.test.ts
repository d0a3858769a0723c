import { describe, expect, expectTypeOf, it } from 'vitest';
import * as errors from '../src/errors.ts';

const details = { serviceName: 'users', instanceId: 'u1' };
const response = { ...details, status: 503, headers: { 'retry-after': '1' }, body: { message: 'busy' } };

const all: [string, string, errors.HoldfastError][] = [
  ['HoldfastError', 'ERR_TIMEOUT', new errors.HoldfastError('ERR_TIMEOUT', 'm')],
  ['CircuitOpenError', 'ERR_CIRCUIT_OPEN', new errors.CircuitOpenError('m', 5)],
  ['TimeoutError', 'ERR_TIMEOUT', new errors.TimeoutError('m', 5)],
  ['DeadlineExceededError', 'ERR_DEADLINE_EXCEEDED', new errors.DeadlineExceededError('m', 5)],
  ['BulkheadFullError', 'ERR_BULKHEAD_FULL', new errors.BulkheadFullError('m')],
  ['RateLimitedError', 'ERR_RATE_LIMITED', new errors.RateLimitedError('m', 5)],
  ['LimitExceededError', 'ERR_LIMIT_EXCEEDED', new errors.LimitExceededError('m')],
  ['ThrottledError', 'ERR_THROTTLED', new errors.ThrottledError('m')],
  ['RetryBudgetExhausted', 'ERR_RETRY_BUDGET_EXHAUSTED', new errors.RetryBudgetExhausted()],
  ['HedgeLostError', 'ERR_HEDGE_LOST', new errors.HedgeLostError()],
  ['NoInstanceError', 'ERR_NO_INSTANCE', new errors.NoInstanceError('users')],
  ['InvalidInstanceError', 'ERR_INVALID_INSTANCE', new errors.InvalidInstanceError('m')],
  ['InstanceReplacedError', 'ERR_INSTANCE_REPLACED', new errors.InstanceReplacedError('users', 'u1')],
  ['DiscoveryUnavailableError', 'ERR_DISCOVERY_UNAVAILABLE', new errors.DiscoveryUnavailableError('m')],
  ['RedisError', 'ERR_REDIS', new errors.RedisError('m')],
  ['InvalidRequestError', 'ERR_INVALID_REQUEST', new errors.InvalidRequestError('m')],
  ['EventError', 'ERR_INVALID_EVENT', new errors.EventError('ERR_INVALID_EVENT', 'm')],
  ['GatewayConfigError', 'ERR_GATEWAY_CONFIG', new errors.GatewayConfigError([{ path: 'a', reason: 'm' }])],
  ['InvalidEventError', 'ERR_INVALID_EVENT', new errors.InvalidEventError('m')],
  ['EventVersionError', 'ERR_EVENT_VERSION', new errors.EventVersionError('m')],
  ['StreamFullError', 'ERR_STREAM_FULL', new errors.StreamFullError('order', 3, 1_000)],
  [
    'PartitionLostError',
    'ERR_PARTITION_LOST',
    new errors.PartitionLostError('m', { group: 'stock', topic: 'order', partition: 3 }),
  ],
  ['PartitionsMismatchError', 'ERR_PARTITIONS_MISMATCH', new errors.PartitionsMismatchError(4, 8)],
  ['GroupInUseError', 'ERR_GROUP_IN_USE', new errors.GroupInUseError('stock')],
  ['ServerClosedError', 'ERR_SERVER_CLOSED', new errors.ServerClosedError()],
  ['EventsDroppedError', 'ERR_EVENTS_DROPPED', new errors.EventsDroppedError('order', 3)],
  ['EventsMissingError', 'ERR_EVENTS_MISSING', new errors.EventsMissingError('order', 3, 7n)],
  ['OutboxBehindError', 'ERR_OUTBOX_BEHIND', new errors.OutboxBehindError('order', 3, 7n, 5n)],
  ['ConcurrencyError', 'ERR_CONCURRENCY', new errors.ConcurrencyError('o1', 1, 2)],
  ['SagaFailedError', 'ERR_SAGA_FAILED', new errors.SagaFailedError('m', { sagaId: 's1', status: 'stuck' })],
  ['SagaConflictError', 'ERR_SAGA_CONFLICT', new errors.SagaConflictError('s1')],
  ['SagaNotFoundError', 'ERR_SAGA_NOT_FOUND', new errors.SagaNotFoundError('s1')],
  ['SagaUnreadableError', 'ERR_SAGA_UNREADABLE', new errors.SagaUnreadableError('s1')],
  ['ClosedError', 'ERR_CLOSED', new errors.ClosedError('the client')],
  ['ServiceError', 'ERR_SERVICE_RESPONSE', new errors.ServiceError('ERR_SERVICE_RESPONSE', 'm', details)],
  ['ServiceResponseError', 'ERR_SERVICE_RESPONSE', new errors.ServiceResponseError('m', response)],
  ['ServiceConnectionError', 'ERR_SERVICE_CONNECTION', new errors.ServiceConnectionError('m', details)],
  [
    'ResponseTooLargeError',
    'ERR_RESPONSE_TOO_LARGE',
    new errors.ResponseTooLargeError('m', { ...details, maxResponseSize: 10 }),
  ],
  ['DatabaseError', 'ERR_DATABASE', new errors.DatabaseError('m')],
  ['KeyRevokedError', 'ERR_KEY_REVOKED', new errors.KeyRevokedError('k')],
  ['ResponseInvalidError', 'ERR_RESPONSE_INVALID', new errors.ResponseInvalidError('m', details)],
];

describe.each(all)('%s', (name, code, error) => {
  it('the error %s has its name, its code and a stack', () => {
    expect(error.name).toBe(name);
    expect(error.code).toBe(code);
    expect(error.stack).toContain(`${name}: `);
    expect(Object.keys(error)).not.toContain('name');
  });

  it('the error %s is an Error, a HoldfastError and one of its own class', () => {
    expect(error).toBeInstanceOf(Error);
    expect(error instanceof errors.HoldfastError).toBe(true);
    expect(error instanceof (errors as never as Record<string, new () => unknown>)[name]!).toBe(true);
  });
});

it('every exported error has a test here', () => {
  const exported = Object.keys(errors)
    .filter((name) => name !== 'isHoldfastError')
    .sort();
  expect(all.map(([name]) => name).sort()).toEqual(exported);
});

it('an error is not one of a class that is not its own', () => {
  const timeout = new errors.TimeoutError('m', 5);
  expect(timeout instanceof errors.DeadlineExceededError).toBe(false);
  expect(timeout instanceof errors.CircuitOpenError).toBe(false);
  expect(new errors.DeadlineExceededError('m', 5) instanceof errors.TimeoutError).toBe(true);
  expect(new errors.ServiceResponseError('m', response) instanceof errors.ServiceError).toBe(true);
});

it.each([
  undefined,
  null,
  'ERR_TIMEOUT',
  5,
  {},
  new Error('plain'),
  { code: 'ERR_TIMEOUT', name: 'TimeoutError' },
])('%o is no HoldfastError', (value) => {
  expect(value instanceof errors.HoldfastError).toBe(false);
});

it("an error of a user's own subclass is one of it, and a HoldfastError", () => {
  class QuotaError extends errors.HoldfastError {}
  const error = new QuotaError('ERR_BULKHEAD_FULL', 'm');
  expect(error instanceof QuotaError).toBe(true);
  expect(error instanceof errors.HoldfastError).toBe(true);
  expect(new errors.BulkheadFullError('m') instanceof QuotaError).toBe(false);
});

describe('what an error tells besides', () => {
  it('an error of events keeps what it is about', () => {
    const of = { eventType: 'order.created', eventId: 'e1' };
    expect(new errors.InvalidEventError('m', of)).toMatchObject(of);
    expect(new errors.EventVersionError('m', of)).toBeInstanceOf(errors.EventError);
    expect(new errors.StreamFullError('order', 3, 1_000)).toMatchObject({
      topic: 'order',
      partition: 3,
      maxLength: 1_000,
    });
    const lost = { group: 'stock', topic: 'order', partition: 3 };
    expect(new errors.PartitionLostError('m', lost)).toMatchObject(lost);
    expect('cause' in new errors.PartitionLostError('m', lost)).toBe(false);
    expect(new errors.PartitionLostError('m', { ...lost, cause: 1 }).cause).toBe(1);
  });

  it('each detail of an error is kept as it was given', () => {
    expect(new errors.CircuitOpenError('m', Infinity).retryAfter).toBe(Infinity);
    expect(new errors.TimeoutError('m', 250).timeout).toBe(250);
    expect(new errors.DeadlineExceededError('m', 0).timeout).toBe(0);
    expect(new errors.NoInstanceError('users')).toMatchObject({
      serviceName: 'users',
      message: expect.stringContaining("'users'"),
    });
    expect(new errors.ServiceResponseError('m', response)).toMatchObject(response);
    expect(new errors.ServiceConnectionError('m', details)).toMatchObject(details);
    expect(new errors.ResponseTooLargeError('m', { ...details, maxResponseSize: 10 }).maxResponseSize).toBe(
      10,
    );
    expect(new errors.ClosedError('the client').message).toBe('the client is closed');
  });

  it('an error keeps its cause, even one that is undefined, and has none otherwise', () => {
    const cause = new Error('ECONNRESET');
    expect(new errors.ServiceConnectionError('m', { ...details, cause }).cause).toBe(cause);
    expect('cause' in new errors.ServiceConnectionError('m', { ...details, cause: undefined })).toBe(true);
    expect('cause' in new errors.ServiceConnectionError('m', details)).toBe(false);
    expect(new errors.NoInstanceError('users', { cause }).cause).toBe(cause);
    expect(new errors.InvalidRequestError('m', { cause }).cause).toBe(cause);
  });
});

describe('the type of any error', () => {
  it('the type of any error is told by its code', () => {
    const read = (error: unknown): unknown => {
      if (!errors.isHoldfastError(error)) return undefined;
      expectTypeOf(error.code).toEqualTypeOf<errors.ErrorCode>();
      switch (error.code) {
        case 'ERR_CIRCUIT_OPEN':
          expectTypeOf(error).toEqualTypeOf<errors.CircuitOpenError>();
          return error.retryAfter;
        case 'ERR_SERVICE_RESPONSE':
          expectTypeOf(error).toEqualTypeOf<errors.ServiceResponseError>();
          return error.status;
        case 'ERR_TIMEOUT':
          expectTypeOf(error.timeout).toEqualTypeOf<number>();
          return error.timeout;
        case 'ERR_DEADLINE_EXCEEDED':
          expectTypeOf(error).toEqualTypeOf<errors.DeadlineExceededError>();
          return error.timeout;
        case 'ERR_NO_INSTANCE':
          return error.serviceName;
        default:
          // @ts-expect-error: not every error has it
          return error.retryAfter;
      }
    };
    expect(read(new errors.CircuitOpenError('m', 5))).toBe(5);
    expect(read(new errors.ServiceResponseError('m', response))).toBe(response.status);
    expect(read(new errors.TimeoutError('m', 7))).toBe(7);
    expect(read(new errors.DeadlineExceededError('m', 8))).toBe(8);
    expect(read(new errors.NoInstanceError('users'))).toBe('users');
    expect(read(new Error('plain'))).toBeUndefined();
  });

  it('a cast to the type of any error narrows by code, too', () => {
    const error: unknown = new errors.RateLimitedError('m', 9);
    const known = error as errors.AnyHoldfastError;
    if (known.code !== 'ERR_RATE_LIMITED') throw new Error('another code');
    expectTypeOf(known).toEqualTypeOf<errors.RateLimitedError>();
    expect(known.retryAfter).toBe(9);
  });

  it('an error has its code once, as the literal of its class', () => {
    for (const [, code, error] of all)
      expect(Object.getOwnPropertyDescriptor(error, 'code')?.value).toBe(code);
  });
});
