import { clearTimeout as clearTimeoutOfNode, setTimeout as setTimeoutOfNode } from 'node:timers';
import { processState } from './process-state.ts';
import { type Check, hasMethods, number } from './validate.ts';

/**
 * Tells the time and sets timers. The three must agree: when a timer fires, `now()` has come as far as
 * its delay, and no further.
 */
export interface Clock {
  /** Gives milliseconds since any moment, such as `performance.now()` does. */
  now(): number;
  /** Calls back once after `delay` milliseconds, and gives what `clearTimeout` takes. */
  setTimeout(callback: () => void, delay: number): unknown;
  clearTimeout(timer: unknown): void;
}

/**
 * The clock of this process. It looks up the globals at each use, so that it follows fake timers,
 * whenever a test installs them. Policies of several copies of the package have the same one.
 */
export const systemClock: Clock = processState('system-clock', () => ({
  now: () => performance.now(),
  setTimeout: (callback: () => void, delay: number) => setTimeout(callback, delay),
  clearTimeout: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout | undefined),
}));

/** The property by which a policy tells its clock; undefined or absent where it reads no time. */
export const CLOCK: unique symbol = Symbol.for('holdfast.clock');

/** Gives the clock of a policy, if it reads the time and is one of Holdfast's. */
export function clockOf(policy: unknown): Clock | undefined {
  return (policy as { readonly [CLOCK]?: Clock | undefined } | undefined)?.[CLOCK];
}

/**
 * Gives the clock of the policies of a call; undefined if none of them reads the time.
 *
 * @param nameOf gives the words for a policy, which an error alone needs
 * @throws TypeError that names two policies with different clocks
 */
export function findCommonClock<P>(
  owner: string,
  policies: readonly P[],
  nameOf: (policy: P, index: number) => string,
): Clock | undefined {
  let clock: Clock | undefined;
  let first = 0;
  for (let index = 0; index < policies.length; index++) {
    const own = clockOf(policies[index]);
    if (own === undefined || own === clock) continue;
    if (clock !== undefined) {
      const [one, other] = [first, index].map((at) => nameOf(policies[at]!, at));
      throw new TypeError(
        `${owner}: ${other} has another clock than ${one}. A deadline is a time of one clock: give all the ` +
          "same object as 'clock', or none",
      );
    }
    clock = own;
    first = index;
  }
  return clock;
}

/**
 * Checks that the policies made of options go by one clock.
 *
 * @throws TypeError that names two options with different clocks
 */
export function checkClocks(owner: string, policies: Readonly<Record<string, object | undefined>>): void {
  const names = Object.keys(policies);
  findCommonClock(owner, Object.values(policies), (_policy, index) => `option '${names[index]}'`);
}

// Kept, since fake timers replace those of the module as well.
const realSetTimeout: unknown = setTimeoutOfNode;
const clearRealTimeout = clearTimeoutOfNode;

/**
 * Gives what sets the timers of a clock now. Once it is another one, as after fake timers were installed
 * or removed, a timer that was set before may never fire.
 */
export function timerSourceOf(clock: Clock): unknown {
  return clock === systemClock ? setTimeout : clock;
}

/**
 * Whether a timer of the clock may stay set while nothing needs it, which spares setting the next one. A
 * test drops or counts the timers of its own clock.
 */
export function mayLinger(clock: Clock): boolean {
  return timerSourceOf(clock) === realSetTimeout;
}

/** Clears a timer of the clock that this source has set. */
export function clearTimer(clock: Clock, timer: unknown, source: unknown): void {
  if (source === realSetTimeout) clearRealTimeout(timer as NodeJS.Timeout);
  else clock.clearTimeout(timer);
}

/** Lets the process end in spite of the timer, where timers of its clock hold the process open. */
export function unref(timer: unknown): void {
  (timer as Partial<NodeJS.Timeout> | undefined)?.unref?.();
}

/** Has the timer hold the process open again. */
export function ref(timer: unknown): void {
  (timer as Partial<NodeJS.Timeout> | undefined)?.ref?.();
}

const hasClockMethods = hasMethods('now', 'setTimeout', 'clearTimeout');
const aTime = number(-Number.MAX_VALUE);

/** Checks an option that is a clock, and that the clock tells the time. */
export const clockOption: Check = (value, option) => {
  hasClockMethods(value, option);
  aTime((value as Clock).now(), `what ${option} gives by now()`);
};
