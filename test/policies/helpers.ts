import { createHook } from 'node:async_hooks';
import { getEventListeners } from 'node:events';
import { vi } from 'vitest';
import type { CallContext, CallOptions } from '../../src/policies/context.ts';
import type { Outcome } from '../../src/policies/outcome.ts';
import type { Policy } from '../../src/policies/policy.ts';

/** Every clock and timer that a policy could look at stands still until a test moves it. */
export function fakeTime(): void {
  vi.useFakeTimers({
    toFake: [
      'setTimeout',
      'clearTimeout',
      'setInterval',
      'clearInterval',
      'setImmediate',
      'Date',
      'performance',
    ],
  });
}

/** Lets `milliseconds` pass, and all that they set off happen. */
export async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

/**
 * Blocks the event loop for `milliseconds`, as far as timers can tell: those that are due meanwhile
 * fire at the end, late. Then the event loop reads: what `read` does had arrived. Then it goes on.
 */
export async function stall(milliseconds: number, read: () => unknown = () => {}): Promise<void> {
  const goOn: (() => void)[] = [];
  const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + milliseconds);
  const immediate = vi.spyOn(globalThis, 'setImmediate');
  immediate.mockImplementation(((callback: () => void) => goOn.push(callback)) as never);
  vi.advanceTimersByTime(milliseconds);
  clock.mockRestore();
  immediate.mockRestore();
  await flush();
  await read();
  await flush();
  for (const callback of goOn) callback();
  await flush();
}

/** Counts the real timers that are set until `stop()`, which gives their number. */
export function countTimers(): { stop(): number } {
  let count = 0;
  const hook = createHook({
    init(_id, type) {
      if (type === 'Timeout') count++;
    },
  }).enable();
  return {
    stop() {
      hook.disable();
      return count;
    },
  };
}

/** Lets what has already been decided reach those that await it; no time passes. */
export async function flush(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await undefined;
}

/** A promise that a test settles when it likes. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function defer<T = unknown>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
}

/** How a call ended, or undefined while it has not. Takes care that its rejection is handled. */
export function follow<T>(call: Promise<T>): { outcome: Outcome<T> | undefined } {
  const followed: { outcome: Outcome<T> | undefined } = { outcome: undefined };
  call.then(
    (value) => {
      followed.outcome = { ok: true, value };
    },
    (error: unknown) => {
      followed.outcome = { ok: false, error };
    },
  );
  return followed;
}

/** A call whose operation ends when the test says so. */
export function begin(policy: Policy, options?: CallOptions) {
  const operation = defer();
  let began = false;
  const call = follow(
    policy.execute(() => {
      began = true;
      return operation.promise;
    }, options),
  );
  return {
    call,
    operation,
    get began() {
      return began;
    },
  };
}

/** An operation that may be begun any number of times; each ends when the test says so. */
export function service() {
  const calls: (Deferred<unknown> & { context: CallContext })[] = [];
  return {
    calls,
    operation: (context: CallContext) => {
      const call = Object.assign(defer(), { context });
      calls.push(call);
      return call.promise;
    },
  };
}

/** The options of a call whose attributes have the id. */
export function id(value: string, options: CallOptions = {}): CallOptions {
  return { ...options, attributes: { id: value } };
}

/** Gives the reason with which a call rejects; fails if it does not reject. */
export async function rejectionOf(call: Promise<unknown>): Promise<unknown> {
  let value: unknown;
  try {
    value = await call;
  } catch (error) {
    return error;
  }
  throw new Error(`expected a rejection; got ${String(value)}`);
}

export function listenersOn(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length;
}

/** The process warnings of the given kind that are emitted until `stop()`. */
export function collectWarnings(name: string): { readonly warnings: Error[]; stop(): Promise<void> } {
  const warnings: Error[] = [];
  const listener = (warning: Error) => {
    if (warning.name === name) warnings.push(warning);
  };
  process.on('warning', listener);
  return {
    warnings,
    async stop() {
      // A warning is emitted on the next tick.
      await new Promise<void>((resolve) => process.nextTick(resolve));
      process.off('warning', listener);
    },
  };
}

/** Throws anything, as other people's code does. */
export function fling(value: unknown): never {
  throw value;
}
