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
import { toContext } from '../../src/policies/context.ts';
import { excludeFromBreaker, isExcluded, isRejection, settle, unwrap } from '../../src/policies/outcome.ts';
import { fling } from './helpers.ts';

const details = { serviceName: 'users', instanceId: 'u1' };

it('settle() tells how an operation ended and never rejects', async () => {
  const context = toContext(undefined);
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
])('%o is a rejection by Holdfast: %s', (error, refused) => {
  expect(isRejection(error)).toBe(refused);
});

it('only an error of Holdfast can be excluded from breakers, and only that very one', () => {
  const excluded = (error: unknown) => isExcluded({ ok: false, error }, toContext(undefined));
  const error = new ServiceConnectionError('reset', details);
  excludeFromBreaker(error);
  expect(excluded(error)).toBe(true);
  expect(excluded(new ServiceConnectionError('reset', details))).toBe(false);
  const theirs = new Error('theirs');
  for (const other of [theirs, 'text', undefined, null]) {
    excludeFromBreaker(other);
    expect(excluded(other)).toBe(false);
  }
});

it.each([
  [0, false],
  [50, true],
])(
  'a timeout of which this process was blocked for %d ms is excluded from every judgement: %s',
  (stalled, excluded) => {
    const error = new TimeoutError('slow', 100, 'ERR_TIMEOUT', stalled);
    expect(isExcluded({ ok: false, error }, toContext(undefined))).toBe(excluded);
    const around = toContext({ signal: AbortSignal.abort(error) });
    expect(isExcluded({ ok: true, value: 'too late' }, around)).toBe(excluded);
    expect(isExcluded({ ok: false, error: new Error('an error of its own') }, around)).toBe(excluded);
  },
);
