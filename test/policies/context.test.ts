import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { DeadlineExceededError, TimeoutError } from '../../src/errors.ts';
import { AbortScope, OnAbort } from '../../src/policies/abort.ts';
import { Context, toContext } from '../../src/policies/context.ts';

describe('the context of a call', () => {
  it('the context of a call is that of a first attempt without a deadline when the caller gives no options', () => {
    expect(toContext(undefined)).toMatchObject({
      attempt: 1,
      deadline: Infinity,
      attributes: {},
      aborted: false,
    });
    expect(toContext({})).toMatchObject({ attempt: 1, deadline: Infinity, attributes: {}, aborted: false });
    expect(toContext(undefined).signal.aborted).toBe(false);
  });

  it('the context of a call has the signal, the deadline and the attributes of the caller', () => {
    const { signal } = new AbortController();
    const attributes = { service: 'users' };
    const context = toContext({ signal, deadline: 500, attributes });
    expect(context.signal).toBe(signal);
    expect(context).toMatchObject({ deadline: 500, attributes });
  });

  it('the context of a call is the very one that an enclosing policy hands down', () => {
    const context = toContext({ deadline: 500 });
    expect(toContext(context)).toBe(context);
  });

  it('a context can be made of a copied one', () => {
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
  ])('the context of a call is over before it begins, with an error that says: %s', (message, options) => {
    const context = toContext(options as never);
    expect(context.aborted).toBe(true);
    expect((context.reason as Error).message).toContain(message);
    expect(context.cancelled).toBe(true);
  });

  it('the context of a call may come from another copy of the package, whose contexts are of another class', () => {
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

  it('the context of a call takes the signal of a polyfill, and null for none as fetch() does', () => {
    const { signal } = new AbortController();
    const polyfill = Object.create(signal, { aborted: { value: false } }) as AbortSignal;
    expect(toContext({ signal: polyfill }).signal).toBe(polyfill);
    expect(toContext({ signal: null as never }).aborted).toBe(false);
  });

  it('the context of a call is the same at another attempt but for the attempt', () => {
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
  ])('a context that is aborted with %o was cancelled by its caller: %s', (reason, cancelled) => {
    const scope = new AbortScope(undefined, new OnAbort(() => {}));
    const context = new Context(1, Infinity, { attributes: {} }, scope, false);
    expect(context.cancelled).toBe(false);
    scope.abort(reason);
    expect(context.cancelled).toBe(cancelled);
    expect(() => context.throwIfAborted()).toThrow();
  });

  it('a context gives the record of its call, which shows its attributes and nothing else', () => {
    const record = { attributes: { service: 'users' }, secret: 'hidden' };
    const context = new Context(1, Infinity, record, undefined, false);
    expect(context.at(2).call).toBe(record);
    expect(context.attributes).toBe(record.attributes);
    expect(inspect(context, { depth: Infinity, showHidden: true })).not.toContain('hidden');
  });
});
