import { setImmediate as nextImmediate } from 'node:timers';
import { seeded } from '../support/seeded.ts';

/** The tools of a scenario besides the globals, all of which keep virtual time while it runs. */
export interface World {
  /**
   * Calls back after exactly `milliseconds`; setTimeout raises a wait of less than 1 ms to 1 ms, as
   * that of Node does.
   */
  readonly later: (milliseconds: number, callback: () => void) => void;
  readonly sleep: (milliseconds: number) => Promise<void>;
}

/**
 * Runs a scenario on virtual time and seeded chance: a discrete-event simulation. While it runs,
 * `performance.now`, `Date.now`, timers, immediates and `Math.random` are those of the simulation, so that what
 * is simulated is the real code. It ends when the scenario's promise settles; the same seed gives the same
 * numbers on every machine. One runs at a time.
 */
export async function simulate<T>(seed: number, scenario: (world: World) => Promise<T>): Promise<T> {
  const clock = new VirtualClock();
  const restore = takeOver(clock, seeded(seed));
  try {
    return await clock.run(scenario);
  } finally {
    restore();
  }
}

class VirtualClock implements World {
  now = 0;
  readonly #events = new EventHeap();

  // Functions, so that a scenario can take them out of the world.
  readonly later = (milliseconds: number, callback: () => void): Event => {
    const event = new Event(milliseconds, callback);
    this.#add(event);
    return event;
  };

  readonly sleep = (milliseconds: number): Promise<void> =>
    new Promise((resolve) => {
      this.later(milliseconds, resolve);
    });

  #add(event: Event): void {
    event.time = this.now + event.delay;
    this.#events.add(event);
  }

  run<T>(scenario: (world: World) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let over = false;
      const end = () => {
        over = true;
      };
      scenario(this).finally(end).then(resolve, reject);
      const step = () => {
        if (over) return;
        const event = this.#events.take();
        if (event === undefined) {
          end();
          reject(new Error('the scenario waits for something that no event will bring'));
          return;
        }
        try {
          this.#happen(event);
        } catch (error) {
          end();
          reject(error);
        }
      };
      // All microtasks run between two immediates; many immediates in one turn of the event loop are cheap.
      const turn = () => {
        for (let count = 0; count < 500; count++) nextImmediate(step);
        if (!over) nextImmediate(turn);
      };
      turn();
    });
  }

  #happen(event: Event): void {
    if (event.cancelled) return;
    this.now = event.time;
    event.callback();
    if (event.repeats && !event.cancelled) this.#add(event);
  }
}

/** Something that will happen; also what setTimeout gives. */
class Event {
  time = 0;
  order = 0;
  cancelled = false;
  repeats = false;
  readonly delay: number;
  readonly callback: () => void;

  constructor(delay: number, callback: () => void) {
    this.delay = delay;
    this.callback = callback;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }
}

/** The next event first; of those at one time the one that was added first. A binary heap. */
class EventHeap {
  readonly #events: Event[] = [];
  #added = 0;

  add(event: Event): void {
    event.order = this.#added++;
    const events = this.#events;
    let index = events.length;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(event, events[parent]!)) break;
      events[index] = events[parent]!;
      index = parent;
    }
    events[index] = event;
  }

  take(): Event | undefined {
    const events = this.#events;
    const first = events[0];
    const last = events.pop();
    if (last === undefined || events.length === 0) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && isBefore(events[child + 1]!, events[child]!)) child++;
      if (!isBefore(events[child]!, last)) break;
      events[index] = events[child]!;
      index = child;
    }
    events[index] = last;
    return first;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.time < other.time || (one.time === other.time && one.order < other.order);
}

type Callback = (...args: unknown[]) => void;

let running = false;

/** Puts the clock and the chance of a simulation in the place of the real ones; gives what puts them back. */
function takeOver(clock: VirtualClock, random: () => number): () => void {
  const timer = (callback: Callback, delay: number, args: unknown[]) =>
    clock.later(Math.max(1, delay), args.length === 0 ? callback : () => callback(...args));
  const clear = (event: unknown) => {
    if (event instanceof Event) event.cancelled = true;
  };
  const virtual = {
    setTimeout: (callback: Callback, delay = 1, ...args: unknown[]) => timer(callback, delay, args),
    setInterval: (callback: Callback, delay = 1, ...args: unknown[]) =>
      Object.assign(timer(callback, delay, args), { repeats: true }),
    setImmediate: (callback: Callback, ...args: unknown[]) => clock.later(0, () => callback(...args)),
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear,
  };
  const changes: [object: object, changes: object][] = [
    [globalThis, virtual],
    [performance, { now: () => clock.now }],
    [Date, { now: () => Math.floor(clock.now) }],
    [Math, { random }],
    // Most of what fails in a simulation is meant to: its stacks would cost more than all the rest.
    [Error, { stackTraceLimit: 0 }],
  ];
  if (running) throw new Error('another simulation is running');
  running = true;
  const before = changes.map(
    ([object, change]) =>
      [
        object,
        Object.fromEntries(Object.keys(change).map((key) => [key, Reflect.get(object, key)])),
      ] as const,
  );
  for (const [object, change] of changes) Object.assign(object, change);
  return () => {
    for (const [object, values] of before) Object.assign(object, values);
    running = false;
  };
}
