import { expect, it } from 'vitest';
import {
  BulkheadFullError,
  CircuitOpenError,
  ClosedError,
  DeadlineExceededError,
  InvalidRequestError,
  NoInstanceError,
  ServiceConnectionError,
  TimeoutError,
} from '../../src/errors.ts';
import { contextOf } from '../../src/policies/context.ts';
import { exempt, isExempt, isRefusal, settle, unwrap } from '../../src/policies/outcome.ts';
import { fling } from './helpers.ts';

const details = { serviceName: 'users', instanceId: 'u1' };

it('settle() tells how an operation ended and never rejects', async () => {
  const context = contextOf(undefined);
  expect(await settle(() => 1, context)).toEqual({ ok: true, value: 1 });
  expect(await settle(async () => 2, context)).toEqual({ ok: true, value: 2 });
  expect(await settle(() => fling('text'), context)).toEqual({ ok: false, error: 'text' });
  expect(await settle(() => Promise.reject(undefined), context)).toEqual({ ok: false, error: undefined });
});

it('unwrap() gives the value or throws the error itself', () => {
  expect(unwrap({ ok: true, value: undefined })).toBeUndefined();
  const error = new Error('down');
  expect(() => unwrap({ ok: false, error })).toThrow(error);
});

it.each([
  [new CircuitOpenError('open', 1), true],
  [new BulkheadFullError('full'), true],
  [new NoInstanceError('users'), true],
  [new InvalidRequestError('bad path'), true],
  [new DeadlineExceededError('late', 0), true],
  [new ClosedError('the client'), true],
  [new TimeoutError('slow', 10), false],
  [new ServiceConnectionError('reset', details), false],
  [Object.assign(new Error('theirs'), { code: 'ERR_CIRCUIT_OPEN' }), false],
  ['ERR_CIRCUIT_OPEN', false],
  [undefined, false],
])('%o is a call that was refused: %s', (error, refused) => {
  expect(isRefusal(error)).toBe(refused);
});

it('only an error of Holdfast can be exempted, and only that very one', () => {
  const error = new ServiceConnectionError('reset', details);
  exempt(error);
  expect(isExempt(error)).toBe(true);
  expect(isExempt(new ServiceConnectionError('reset', details))).toBe(false);
  const theirs = new Error('theirs');
  for (const other of [theirs, 'text', undefined, null]) {
    exempt(other);
    expect(isExempt(other)).toBe(false);
  }
});
