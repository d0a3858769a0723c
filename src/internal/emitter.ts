import { type Channel, channel } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import { EventEmitter } from 'eventemitter3';

type Listener = (...args: never[]) => unknown;

const guards = new WeakMap<Listener, Listener>();

/** Tells the process of what a function of the user's threw where it could not be thrown on. */
export function warnOf(error: unknown, detail: string): void {
  process.emitWarning(inspect(error), { type: 'HoldfastListenerWarning', detail });
}

function report(error: unknown): void {
  warnOf(error, 'An event listener threw. The call that it was told about is not affected.');
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

/** A message on a diagnostics channel. */
export interface DiagnosticsMessage<Source = unknown, Event = unknown> {
  /** Whose event it is: the policy, the balancer… */
  readonly source: Source;
  /** The payload that listeners get; undefined where the event has none. */
  readonly event: Event;
}

/** The channels of each kind, by event: to look one up in Node takes its whole name, and goes through a weak reference. */
const channelsOfKinds = new Map<string, Map<PropertyKey, Channel>>();

function channelsOf(kind: string): Map<PropertyKey, Channel> {
  let channels = channelsOfKinds.get(kind);
  if (channels === undefined) {
    channels = new Map();
    channelsOfKinds.set(kind, channels);
  }
  return channels;
}

/**
 * A typed event emitter whose listeners cannot disturb it or one another: what one throws, or rejects
 * with, becomes a process warning.
 *
 * Each event is also published, for all objects of a kind together, on the `node:diagnostics_channel` named
 * `holdfast:<kind>:<event>`, as a DiagnosticsMessage that is made only if someone subscribed.
 */
export class Emitter<Events extends EventEmitter.ValidEventTypes> extends EventEmitter<Events> {
  readonly #kind: string;
  readonly #channels: Map<PropertyKey, Channel>;

  constructor(kind: string) {
    super();
    this.#kind = kind;
    this.#channels = channelsOf(kind);
  }

  /** Whether anyone would be told: asked where an event comes with every call, so as not to make it for nobody. */
  isObserved<T extends EventEmitter.EventNames<Events>>(event: T): boolean {
    return this.#channelOf(event).hasSubscribers || this.listenerCount(event) > 0;
  }

  override emit<T extends EventEmitter.EventNames<Events>>(
    event: T,
    ...args: EventEmitter.EventArgs<Events, T>
  ): boolean {
    const diagnostics = this.#channelOf(event);
    if (diagnostics.hasSubscribers) {
      diagnostics.publish({ source: this, event: args[0] } satisfies DiagnosticsMessage);
    }
    return super.emit(event, ...args);
  }

  #channelOf(event: PropertyKey): Channel {
    let found = this.#channels.get(event);
    if (found === undefined) {
      found = channel(`holdfast:${this.#kind}:${String(event)}`);
      this.#channels.set(event, found);
    }
    return found;
  }

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
