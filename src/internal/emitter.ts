import { inspect } from 'node:util';
import { EventEmitter } from 'eventemitter3';

type Listener = (...args: never[]) => unknown;

const guards = new WeakMap<Listener, Listener>();

function report(error: unknown): void {
  process.emitWarning(inspect(error), {
    type: 'HoldfastListenerWarning',
    detail: 'An event listener threw. The call that it was told about is not affected.',
  });
}

/** The listener, made unable to throw: what it throws, or rejects with, becomes a process warning. */
export function guard<L extends Listener>(listener: L): L {
  if (typeof listener !== 'function') throw new TypeError('an event listener must be a function');
  let guarded = guards.get(listener);
  if (guarded === undefined) {
    guarded = function (this: unknown, ...args: never[]) {
      try {
        const result = listener.apply(this, args);
        if (result instanceof Promise) result.catch(report);
      } catch (error) {
        report(error);
      }
    };
    guards.set(listener, guarded);
  }
  return guarded as L;
}

/**
 * A typed event emitter whose listeners cannot disturb it or one another: what one throws, or rejects
 * with, becomes a process warning.
 */
export class Emitter<Events extends EventEmitter.ValidEventTypes> extends EventEmitter<Events> {
  override on<T extends EventEmitter.EventNames<Events>>(
    event: T,
    listener: EventEmitter.EventListener<Events, T>,
  ): this {
    return super.on(event, guard(listener));
  }

  override addListener<T extends EventEmitter.EventNames<Events>>(
    event: T,
    listener: EventEmitter.EventListener<Events, T>,
  ): this {
    return this.on(event, listener);
  }

  override once<T extends EventEmitter.EventNames<Events>>(
    event: T,
    listener: EventEmitter.EventListener<Events, T>,
  ): this {
    return super.once(event, guard(listener));
  }

  override off<T extends EventEmitter.EventNames<Events>>(
    event: T,
    listener?: EventEmitter.EventListener<Events, T>,
  ): this {
    return super.off(event, listener && ((guards.get(listener) ?? listener) as typeof listener));
  }

  override removeListener<T extends EventEmitter.EventNames<Events>>(
    event: T,
    listener?: EventEmitter.EventListener<Events, T>,
  ): this {
    return this.off(event, listener);
  }
}
