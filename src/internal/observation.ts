/** Labels say what is known of a part from what it belongs to, such as the service of a breaker. */
export type Labels = Readonly<Record<string, string>>;

/** An event, as its emitter shows it to observations. */
export interface ObservedEvent {
  readonly source: object;
  /** The name of the class of the emitter, as `circuit-breaker`. */
  readonly kind: string;
  readonly name: PropertyKey;
  /** The payload that listeners get. */
  readonly payload: unknown;
  readonly labels: Labels;
}

/** Sees the events of an object and of its parts, until it is over. */
export interface Observation {
  readonly over: boolean;
  /** An event is shown once to all observations with the same audience. */
  readonly audience: object;
  /** Whether it wants to see an event, which need not be made otherwise. */
  wants(kind: string, name: PropertyKey): boolean;
  /** It must not throw. */
  see(event: ObservedEvent): void;
}

/**
 * The method by which an object shows an observation its events, and has its parts do so: the parts
 * that it has, and those that it gets later.
 */
export const OBSERVE: unique symbol = Symbol.for('holdfast.observe');

export interface Observable {
  [OBSERVE](observation: Observation, labels: Labels): void;
}

export const NO_LABELS: Labels = Object.freeze({});

export function isObservable(value: unknown): value is Observable {
  return typeof (value as Partial<Observable> | null | undefined)?.[OBSERVE] === 'function';
}

/** Has a part observed, if it can be: users give parts of their own. */
export function observePart(part: unknown, observation: Observation, labels: Labels): void {
  if (isObservable(part)) part[OBSERVE](observation, labels);
}

/**
 * Keeps the observations of an object. It drops those that are over whenever another one comes, so
 * that an observation need not know what it has reached.
 */
export class Observations {
  #entries: readonly { readonly observation: Observation; readonly labels: Labels }[] = [];

  /** Adds an observation, unless it is there by another way. */
  add(observation: Observation, labels: Labels): void {
    const current = this.#entries.filter((entry) => !entry.observation.over);
    const isKnown = current.some((entry) => entry.observation === observation);
    this.#entries = isKnown ? current : [...current, { observation, labels }];
  }

  /** Has a new part observed as well. */
  passTo(part: unknown, labels: Labels = NO_LABELS): void {
    for (const { observation, labels: own } of this.#entries) {
      if (!observation.over) observePart(part, observation, { ...own, ...labels });
    }
  }

  /** Whether one of them wants to see an event. */
  want(kind: string, name: PropertyKey): boolean {
    return this.#entries.some(({ observation }) => !observation.over && observation.wants(kind, name));
  }

  show(event: Omit<ObservedEvent, 'labels'>): void {
    const audiences = new Set<object>();
    for (const { observation, labels } of this.#entries) {
      if (observation.over || audiences.has(observation.audience)) continue;
      audiences.add(observation.audience);
      observation.see({ ...event, labels });
    }
  }
}
