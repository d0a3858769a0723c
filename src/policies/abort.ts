import { keepOptimized } from '../internal/keep-optimized.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { shown } from '../internal/shown.ts';

/** Is told when what belongs to it is aborted. */
export interface AbortOwner {
  onAbort(reason: unknown): void;
}

/** Is told once, when what it listens to is aborted. Listens to one thing at a time. */
export interface AbortListener extends AbortOwner, Linked<AbortListener> {
  /** True while it stands in the list of something that may abort. */
  listening: boolean;
}

/** What can be aborted, and the AbortSignal that shows it to the world. */
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

function add(listeners: LinkedList<AbortListener>, listener: AbortListener): void {
  listener.listening = true;
  listeners.append(listener);
}

function remove(listeners: LinkedList<AbortListener>, listener: AbortListener): void {
  listener.listening = false;
  listeners.remove(listener);
}

function tellAll(listeners: LinkedList<AbortListener>, reason: unknown): void {
  for (let listener = listeners.shift(); listener !== undefined; listener = listeners.shift()) {
    listener.listening = false;
    listener.onAbort(reason);
  }
}

/**
 * A caller's own AbortSignal. However many calls share it, it carries one event listener while any of
 * them waits, and none otherwise; adding and removing a call is O(1).
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
    tellAll(this.#listeners, this.signal.reason);
  };
}

const shared = new WeakMap<AbortSignal, SharedSignal>();

/** Whether the value is an AbortSignal, of any realm. */
export function isSignal(value: unknown): value is AbortSignal {
  if (value instanceof AbortSignal) return true;
  const { aborted, addEventListener, removeEventListener } = Object(value) as Partial<AbortSignal>;
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
 * The one Abortable that stands for a given AbortSignal.
 *
 * @throws TypeError if it is none
 */
export function abortableOf(signal: AbortSignal): Abortable {
  let abortable = shared.get(signal);
  if (abortable === undefined) {
    checkSignal(signal, "the call option 'signal'");
    abortable = new SharedSignal(signal);
    shared.set(signal, abortable);
  }
  return abortable;
}

/**
 * A part of a call that can be aborted by itself, as by a timeout, and is aborted with the call that
 * it belongs to. It makes an AbortController only if someone asks for the signal.
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

  /** @param owner told before any listener, so that a waiting caller is released first. */
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
    this.#tellListeners(reason);
  }

  /** Leaves the parent: from here on its abort no longer comes through. */
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

  #tellListeners(reason: unknown): void {
    const listeners = this.#listeners;
    if (listeners !== undefined) tellAll(this.#list(listeners), reason);
  }
}

keepOptimized(new AbortScope(undefined, new OnAbort(() => {})));
