import { describe, expect, it } from 'vitest';
import { DeadlineExceededError, TimeoutError } from '../../src/errors.ts';
import { AbortScope, OnAbort } from '../../src/policies/abort.ts';
import { Context, toContext } from '../../src/policies/context.ts';

describe('the context of a call', () => {
  it('is that of a first try without a deadline when the caller says nothing', () => {
    expect(toContext(undefined)).toMatchObject({
      attempt: 1,
      deadline: Infinity,
      attributes: {},
      aborted: false,
    });
    expect(toContext({})).toMatchObject({ attempt: 1, deadline: Infinity, attributes: {}, aborted: false });
    expect(toContext(undefined).signal.aborted).toBe(false);
  });

  it('is what the caller says', () => {
    const { signal } = new AbortController();
    const attributes = { service: 'users' };
    const context = toContext({ signal, deadline: 500, attributes });
    expect(context.signal).toBe(signal);
    expect(context).toMatchObject({ deadline: 500, attributes });
  });

  it('is the very one that an enclosing policy hands down', () => {
    const context = toContext({ deadline: 500 });
    expect(toContext(context)).toBe(context);
  });

  it('can be made of one that somebody has copied', () => {
    const { attempt, deadline, attributes, signal } = toContext({ deadline: 500 }).at(3);
    expect(toContext({ attempt, deadline, attributes, signal })).toMatchObject({ attempt: 3, deadline: 500 });
  });

  it.each<[string, unknown]>([
    [
      "the call option 'signal' must be an AbortSignal (give the `signal` of the controller)",
      { signal: new AbortController() },
    ],
    ["the call option 'signal' must be an AbortSignal", { signal: {} }],
    ["the call option 'signal' must be an AbortSignal", { signal: '' }],
    ["the call option 'signal' must be an AbortSignal", { signal: 0 }],
    ["the call option 'deadline' must be a number of milliseconds", { deadline: Number.NaN }],
    ["the call option 'attributes' must be an object", { attributes: 5 }],
    ["a call through a policy has no option 'timeout'", { timeout: 5 }],
    ['the options of a call must be an object', 5],
    ['the options of a call must be an object', null],
  ])('is over before it begins, with an error that says: %s', (message, options) => {
    const context = toContext(options as never);
    expect(context.aborted).toBe(true);
    expect((context.reason as Error).message).toContain(message);
    expect(context.cancelled).toBe(true);
  });

  it('may come from another copy of the package, whose contexts are of another class', () => {
    class Other {
      readonly attempt = 2;
      readonly timed = false;
      readonly deadline = 500;
      readonly attributes = {};
      get signal() {
        return new AbortController().signal;
      }
    }
    expect(toContext(new Other())).toMatchObject({ attempt: 2, deadline: 500, aborted: false });
  });

  it('takes the signal of a polyfill, and null for none as fetch() does', () => {
    const { signal } = new AbortController();
    const polyfill = Object.create(signal, { aborted: { value: false } }) as AbortSignal;
    expect(toContext({ signal: polyfill }).signal).toBe(polyfill);
    expect(toContext({ signal: null as never }).aborted).toBe(false);
  });

  it('is the same at another attempt but for the attempt', () => {
    const { signal } = new AbortController();
    const context = toContext({ signal, deadline: 500, attributes: { a: 1 } });
    const second = context.at(2);
    expect(second).toMatchObject({ attempt: 2, deadline: 500, attributes: { a: 1 } });
    expect(second.signal).toBe(signal);
  });

  it.each([
    [new Error('user left'), true],
    [undefined, true],
    [new DeadlineExceededError('late', 1), true],
    [new TimeoutError('slow', 1), false],
  ])('aborted with %o it was cancelled by its caller: %s', (reason, cancelled) => {
    const scope = new AbortScope(undefined, new OnAbort(() => {}));
    const context = new Context(1, Infinity, { attributes: {} }, scope, false);
    expect(context.cancelled).toBe(false);
    scope.abort(reason);
    expect(context.cancelled).toBe(cancelled);
    expect(() => context.throwIfAborted()).toThrow();
  });
});
