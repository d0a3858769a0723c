import { describe, expect, it } from 'vitest';
import { classify } from '../../src/client/classification.ts';
import type { ResponseHead } from '../../src/client/response.ts';
import {
  BulkheadFullError,
  CircuitOpenError,
  ClosedError,
  DeadlineExceededError,
  InvalidRequestError,
  LimitExceededError,
  NoInstanceError,
  RateLimitedError,
  ResponseTooLargeError,
  ServiceConnectionError,
  ServiceResponseError,
  ThrottledError,
  TimeoutError,
} from '../../src/errors.ts';

const details = { serviceName: 'users', instanceId: 'u1' };
const head = (status: number): ResponseHead => ({ status, headers: {}, instanceId: 'u1' });

describe('a response', () => {
  it.each<[number, string, boolean]>([
    [200, 'success', false],
    [204, 'success', false],
    [301, 'success', false],
    [400, 'success', false],
    [404, 'success', false],
    [408, 'success', false],
    [429, 'ignored', true],
    [500, 'failure', false],
    [501, 'failure', false],
    [502, 'failure', true],
    [503, 'failure', true],
    [504, 'failure', true],
    [508, 'ignored', false],
    [599, 'failure', false],
  ])('a response of %i is classified as %s; it is worth a retry: %s', (status, verdict, retryable) => {
    const expected = { verdict, retryable };
    expect(classify({ ok: true, value: head(status) })).toEqual(expected);
    const error = new ServiceResponseError('m', { ...details, ...head(status), body: '' });
    expect(classify({ ok: false, error })).toEqual(expected);
  });
});

describe('an error', () => {
  it.each<[unknown, string, boolean]>([
    [new ServiceConnectionError('m', details), 'failure', true],
    [new TimeoutError('m', 5), 'failure', true],
    [new TimeoutError('m', 5, 'ERR_TIMEOUT', 50), 'ignored', true],
    [new BulkheadFullError('m'), 'ignored', true],
    [new LimitExceededError('m'), 'ignored', true],
    [new ResponseTooLargeError('m', { ...details, maxResponseSize: 1 }), 'ignored', false],
    [new DeadlineExceededError('m', 5), 'ignored', false],
    [new DeadlineExceededError('m', 5, 50), 'ignored', false],
    [new CircuitOpenError('m', 5), 'ignored', false],
    [new RateLimitedError('m', 5), 'ignored', false],
    [new ThrottledError('m'), 'ignored', false],
    [new NoInstanceError('users'), 'ignored', false],
    [new InvalidRequestError('m'), 'ignored', false],
    [new ClosedError('the client'), 'ignored', false],
    [new Error('theirs'), 'failure', false],
    ['a string', 'failure', false],
    [undefined, 'failure', false],
  ])('the error %o is classified as %s; it is worth a retry: %s', (error, verdict, retryable) => {
    expect(classify({ ok: false, error })).toEqual({ verdict, retryable });
  });
});
