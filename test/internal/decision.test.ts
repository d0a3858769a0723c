import { setImmediate } from 'node:timers/promises';
import { expect, it, onTestFinished, vi } from 'vitest';
import { decided, isThenable } from '../../src/internal/decision.ts';

function withThen(then: unknown, holder: object = {}): object {
  return Object.assign(holder, Object.fromEntries([['then', then]]));
}

it('decided() gives back every value that is no promise', () => {
  for (const value of [true, false, undefined, null, 0, 'key', Number.NaN, {}, withThen(5), () => true]) {
    expect(decided(value, "X option 'y'")).toBe(value);
  }
});

it('decided() throws a TypeError that names the option for a promise and for any thenable', () => {
  const message = "X option 'y' must decide at once; it gave a promise, as an async function does";
  const thenable = withThen(() => {});
  const callable = withThen(
    () => {},
    () => {},
  );
  for (const value of [Promise.resolve(false), thenable, callable]) {
    expect(() => decided<unknown>(value, "X option 'y'")).toThrow(new TypeError(message));
  }
});

it('decided() handles what the promise rejects with', async () => {
  const unhandled = vi.fn();
  process.on('unhandledRejection', unhandled);
  onTestFinished(() => void process.off('unhandledRejection', unhandled));
  const throwing = withThen(() => {
    throw new Error('late');
  });
  for (const value of [Promise.reject(new Error('refused')), throwing]) {
    expect(() => decided<unknown>(value, "X option 'y'")).toThrow(TypeError);
  }
  await setImmediate();
  expect(unhandled).not.toHaveBeenCalled();
});

it('isThenable() tells promises and what acts like one from other values', () => {
  expect([Promise.resolve(), withThen(() => {})].map(isThenable)).toEqual([true, true]);
  expect([undefined, null, true, 'then', {}, withThen(true)].map(isThenable)).not.toContain(true);
});
