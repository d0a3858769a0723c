import { describe, expect, it, vi } from 'vitest';
import { Fallback } from '../../src/policies/fallback.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { fling, rejectionOf } from './helpers.ts';

const down = new Error('service down');

describe('a fallback', () => {
  it('a fallback leaves a success as it is', async () => {
    const value = {};
    expect(await new Fallback('instead').execute(() => value)).toBe(value);
    expect(await new Fallback('instead').execute(() => undefined)).toBeUndefined();
  });

  it.each([[[]], ['text'], [null], [undefined], [0]])(
    'a fallback puts the value %o in the place of a failure',
    async (value) => {
      expect(await new Fallback(value).execute(() => Promise.reject(down))).toBe(value);
      expect(await new Fallback(value).execute(() => fling(down))).toBe(value);
    },
  );

  it('a fallback calls a function with the outcome and the call', async () => {
    const fallback = vi.fn(async (_outcome: unknown, _context: unknown) => 'cached');
    const attributes = { service: 'prices' };
    expect(await new Fallback(fallback).execute(() => Promise.reject(down), { attributes })).toBe('cached');
    expect(fallback).toHaveBeenCalledExactlyOnceWith(
      { ok: false, error: down },
      expect.objectContaining({ attributes }),
    );
  });

  it('a fallback rejects with the error of a fallback that fails too', async () => {
    const worse = new Error('cache down');
    expect(await rejectionOf(new Fallback(() => fling(worse)).execute(() => fling(down)))).toBe(worse);
    expect(await rejectionOf(new Fallback(() => Promise.reject(worse)).execute(() => fling(down)))).toBe(
      worse,
    );
  });

  it('a fallback replaces the outcomes that shouldFallback chooses, returned values too, and no others', async () => {
    const fallback = new Fallback('instead', {
      shouldFallback: (outcome) => outcome.ok && outcome.value === 503,
    });
    expect(await fallback.execute(() => 503)).toBe('instead');
    expect(await fallback.execute(() => 200)).toBe(200);
    expect(await rejectionOf(fallback.execute(() => fling(down)))).toBe(down);
  });

  it('a fallback does not serve a caller that has cancelled', async () => {
    const controller = new AbortController();
    const reason = new Error('user left');
    const operation = () => {
      controller.abort(reason);
      return Promise.reject(down);
    };
    expect(await rejectionOf(new Fallback('instead').execute(operation, { signal: controller.signal }))).toBe(
      down,
    );
    const before = vi.fn();
    expect(await rejectionOf(new Fallback('instead').execute(before, { signal: controller.signal }))).toBe(
      reason,
    );
    expect(before).not.toHaveBeenCalled();
  });

  it('a fallback serves a call that a timeout of this process has cut, inside or outside', async () => {
    const never = () => new Promise<string>(() => {});
    expect(await compose(new Fallback('instead'), new Timeout(1)).execute(never)).toBe('instead');
  });

  it('a fallback names a wrong option', () => {
    expect(() => new Fallback('x', { shouldFallback: true as never })).toThrow('shouldFallback');
    expect(() => new Fallback('x', { fallbackIf: () => true } as never)).toThrow('fallbackIf');
  });
});

it('a fallback emits each outcome that it replaces, and no other', async () => {
  const fallback = new Fallback('instead');
  const told: unknown[] = [];
  fallback.on('fallback', (event) => told.push(event));
  const error = new Error('down');
  await fallback.execute(() => 'fine');
  await fallback.execute(() => Promise.reject(error), { attributes: { id: 1 } });
  expect(told).toEqual([{ outcome: { ok: false, error }, attributes: { id: 1 } }]);
});

it('a caller that cancels does not wait for a shouldFallback that never decides', async () => {
  const fallback = new Fallback('stand-in', { shouldFallback: () => new Promise<boolean>(() => {}) });
  const controller = new AbortController();
  const reason = new Error('given up');
  const call = fallback.execute(() => Promise.reject(new Error('failed')), { signal: controller.signal });
  queueMicrotask(() => controller.abort(reason));
  await expect(call).rejects.toBe(reason);
});
