import { type Channel, channel } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import { EventEmitter } from 'eventemitter3';
import { type Labels, OBSERVE, type Observation, Observations } from './observation.ts';

type Listener = (...args: never[]) => unknown;

const guards = new WeakMap<Listener, Listener>();

/** Warns of an error that a function of the user threw where nobody could catch it. */
export function emitWarning(error: unknown, detail: string): void {
  process.emitWarning(inspect(error), { type: 'HoldfastListenerWarning', detail });
}

function warnOfListener(error: unknown): void {
  emitWarning(error, 'An event listener threw. The call of its event is not affected.');
}

/** Makes a listener that cannot throw: its errors and rejections become process warnings. */
export function guard<L extends Listener>(listener: L): L {
  if (typeof listener !== 'function') throw new TypeError('an event listener must be a function');
  let guarded = guards.get(listener);
  if (guarded === undefined) {
    guarded = function (this: unknown, ...args: never[]) {
      try {
        const result = listener.apply(this, args);
        if (result instanceof Promise) result.catch(warnOfListener);
      } catch (error) {
        warnOfListener(error);
      }
    };
    guards.set(listener, guarded);
  }
  return guarded as L;
}

/** The message of a diagnostics channel. */
export interface DiagnosticsMessage<Source = unknown, Event = unknown> {
  /** The emitter of the event: the policy, the balancer… */
  readonly source: Source;
  /** The payload that its listeners get. */
  readonly event: Event;
}

/**
 * The channels of each kind, by event. To look one up in Node takes its whole name, and goes
 * through a weak reference.
 */
const channelsOfKinds = new Map<string, Map<PropertyKey, Channel>>();

function getChannels(kind: string): Map<PropertyKey, Channel> {
  let channels = channelsOfKinds.get(kind);
  if (channels === undefined) {
    channels = new Map();
    channelsOfKinds.set(kind, channels);
  }
  return channels;
}

/**
 * A typed event emitter whose listeners cannot disturb it or one another: their errors and
 * rejections become process warnings.
 *
 * Each event is also published, for all objects of a class together, on the
 * `node:diagnostics_channel` named `holdfast:<kind>:<event>`, as a DiagnosticsMessage that is made
 * only for subscribers. The kind is the name of the class: `circuit-breaker` for CircuitBreaker.
 */
export class Emitter<Events extends EventEmitter.ValidEventTypes> extends EventEmitter<Events> {
  readonly #kind: string;
  readonly #channels: Map<PropertyKey, Channel>;
  #observations: Observations | undefined = undefined;

  /** @internal */
  constructor(kind: string) {
    super();
    this.#kind = kind;
    this.#channels = getChannels(kind);
  }

  /**
   * Whether the event has a listener, subscriber or observer. An event of every call need not be
   * made without.
   */
  isObserved<T extends EventEmitter.EventNames<Events>>(event: T): boolean {
    return (
      this.#getChannel(event).hasSubscribers ||
      this.listenerCount(event) > 0 ||
      this.#observations?.want(this.#kind, event) === true
    );
  }

  /**
   * Shows the events to an observation: see `observe`. A class with parts passes it on to them.
   *
   * @internal
   */
  [OBSERVE](observation: Observation, labels: Labels): void {
    this.#observations ??= new Observations();
    this.#observations.add(observation, labels);
  }

  override emit<T extends EventEmitter.EventNames<Events>>(
    event: T,
    ...args: EventEmitter.EventArgs<Events, T>
  ): boolean {
    const diagnostics = this.#getChannel(event);
    if (diagnostics.hasSubscribers) {
      diagnostics.publish({ source: this, event: args[0] } satisfies DiagnosticsMessage);
    }
    this.#observations?.show({ source: this, kind: this.#kind, name: event, payload: args[0] });
    return super.emit(event, ...args);
  }

  #getChannel(event: PropertyKey): Channel {
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
