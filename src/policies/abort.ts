import type { Clock } from '../internal/clock.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { shown } from '../internal/shown.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import type { Context } from './context.ts';

/** Owns a scope, and is told when that is aborted. */
export interface AbortOwner {
  onAbort(reason: unknown): void;
}

/** Is told once, when the Abortable that it listens to is aborted. Listens to one at a time. */
export interface AbortListener extends AbortOwner, Linked<AbortListener> {
  /** listening is true while an Abortable has it among its listeners. */
  listening: boolean;
}

/** A thing that can be aborted, and the AbortSignal that shows it to others. */
export interface Abortable {
  readonly aborted: boolean;
  readonly reason: unknown;
  readonly signal: AbortSignal;
  listen(listener: AbortListener): void;
  unlisten(listener: AbortListener): void;
}

/** A listener that only calls a function. */
export class OnAbort implements AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly onAbort: (reason: unknown) => void;

  constructor(onAbort: (reason: unknown) => void) {
    this.onAbort = onAbort;
  }
}

/**
 * Waits for `wait` milliseconds of the clock; rejects at once with the reason if the call is aborted meanwhile.
 */
export function pause(wait: number, context: Context, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = new OnAbort((reason) => {
      clock.clearTimeout(timer);
      reject(reason);
    });
    const timer = clock.setTimeout(() => {
      context.unlisten(onAbort);
      resolve();
    }, wait);
    context.listen(onAbort);
  });
}

/** Settles as the promise does; rejects at once with the reason if the call is aborted before. */
export function unlessAborted<T>(promise: PromiseLike<T>, context: Context): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = new OnAbort(reject);
    if (context.aborted) reject(context.reason);
    else context.listen(onAbort);
    Promise.resolve(promise).then(
      (value) => {
        context.unlisten(onAbort);
        resolve(value);
      },
      (error) => {
        context.unlisten(onAbort);
        reject(error);
      },
    );
  });
}

/**
 * Settles as the promise does; gives undefined at the deadline of the call, if no timer watches over
 * that, and rejects at once with the reason if the call is aborted before.
 */
export async function untilDeadline<T>(
  promise: PromiseLike<T>,
  context: Context,
  clock: Clock,
): Promise<T | undefined> {
  if (context.timed || context.deadline === Infinity) return unlessAborted(promise, context);
  let timer: unknown;
  const deadline = new Promise<undefined>((resolve) => {
    // A timer may fire a millisecond early.
    const left = Math.ceil(context.deadline - clock.now()) + 1;
    timer = clock.setTimeout(() => resolve(undefined), Math.max(0, Math.min(left, MAX_DELAY)));
  });
  try {
    return await unlessAborted(Promise.race([promise, deadline]), context);
  } finally {
    clock.clearTimeout(timer);
  }
}

function add(listeners: LinkedList<AbortListener>, listener: AbortListener): void {
  listener.listening = true;
  listeners.append(listener);
}

function remove(listeners: LinkedList<AbortListener>, listener: AbortListener): void {
  listener.listening = false;
  listeners.remove(listener);
}

function notifyAll(listeners: LinkedList<AbortListener>, reason: unknown): void {
  for (let listener = listeners.shift(); listener !== undefined; listener = listeners.shift()) {
    listener.listening = false;
    listener.onAbort(reason);
  }
}

/**
 * A caller's own AbortSignal. However many calls share it, it carries one event listener while any
 * of them waits, and none otherwise; adding and removing a call is O(1).
 */
class SharedSignal implements Abortable {
  readonly signal: AbortSignal;
  readonly #listeners = new LinkedList<AbortListener>();

  constructor(signal: AbortSignal) {
    this.signal = signal;
  }

  get aborted(): boolean {
    return this.signal.aborted;
  }

  get reason(): unknown {
    return this.signal.reason;
  }

  listen(listener: AbortListener): void {
    if (this.#listeners.length === 0) this.signal.addEventListener('abort', this.#onAbort);
    add(this.#listeners, listener);
  }

  unlisten(listener: AbortListener): void {
    if (!listener.listening) return;
    remove(this.#listeners, listener);
    if (this.#listeners.length === 0) this.signal.removeEventListener('abort', this.#onAbort);
  }

  readonly #onAbort = () => {
    this.signal.removeEventListener('abort', this.#onAbort);
    notifyAll(this.#listeners, this.signal.reason);
  };
}

const shared = new WeakMap<AbortSignal, SharedSignal>();

/** Whether the value is an AbortSignal, of any realm. */
export function isSignal(value: unknown): value is AbortSignal {
  if (value === undefined || value === null) return false;
  if (value instanceof AbortSignal) return true;
  const { aborted, addEventListener, removeEventListener } = value as Partial<AbortSignal>;
  const listens = typeof addEventListener === 'function' && typeof removeEventListener === 'function';
  return listens && typeof aborted === 'boolean';
}

/** Throws unless the value is an AbortSignal, or null, which counts as none, as with `fetch`. */
export function checkSignal(value: unknown, option: string): void {
  if (value === null || isSignal(value)) return;
  const hint = value instanceof AbortController ? ' (give the `signal` of the controller)' : '';
  throw new TypeError(
    `${option} must be an AbortSignal${hint}; got ${typeof value === 'string' ? 'a string' : shown(value)}`,
  );
}

/**
 * Gives the one Abortable that stands for an AbortSignal.
 *
 * @throws TypeError if the value is no AbortSignal
 */
export function toAbortable(signal: AbortSignal): Abortable {
  let abortable = shared.get(signal);
  if (abortable === undefined) {
    checkSignal(signal, "the call option 'signal'");
    abortable = new SharedSignal(signal);
    shared.set(signal, abortable);
  }
  return abortable;
}

/**
 * A part of a call that can be aborted by itself, as by a timeout, and is aborted with the call
 * that it belongs to. It makes an AbortController only when its signal is read.
 */
export class AbortScope implements Abortable, AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  aborted = false;
  reason: unknown = undefined;
  readonly #parent: Abortable | undefined;
  readonly #owner: AbortOwner;
  /** Most scopes have one listener at a time, and then no list. */
  #listeners: AbortListener | LinkedList<AbortListener> | undefined = undefined;
  #controller: AbortController | undefined = undefined;

  /** @param owner is told before any listener, so that a waiting caller is released first */
  constructor(parent: Abortable | undefined, owner: AbortOwner) {
    this.#parent = parent;
    this.#owner = owner;
    parent?.listen(this);
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  onAbort(reason: unknown): void {
    this.abort(reason);
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.end();
    this.#owner.onAbort(reason);
    this.#controller?.abort(reason);
    this.#notifyListeners(reason);
  }

  /** Leaves the parent, whose abort no longer reaches it from here on. */
  end(): void {
    this.#parent?.unlisten(this);
  }

  listen(listener: AbortListener): void {
    if (this.#listeners === undefined) {
      this.#listeners = listener;
      listener.listening = true;
    } else {
      add(this.#list(this.#listeners), listener);
    }
  }

  unlisten(listener: AbortListener): void {
    if (this.#listeners === listener) {
      this.#listeners = undefined;
      listener.listening = false;
    } else if (listener.listening) {
      remove(this.#listeners as LinkedList<AbortListener>, listener);
    }
  }

  #list(listeners: AbortListener | LinkedList<AbortListener>): LinkedList<AbortListener> {
    if (listeners instanceof LinkedList) return listeners;
    const list = new LinkedList<AbortListener>();
    add(list, listeners);
    this.#listeners = list;
    return list;
  }

  #notifyListeners(reason: unknown): void {
    const listeners = this.#listeners;
    if (listeners !== undefined) notifyAll(this.#list(listeners), reason);
  }
}

keepOptimized(new AbortScope(undefined, new OnAbort(() => {})));
