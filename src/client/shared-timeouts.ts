import { type Clock, systemClock } from '../internal/clock.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { Timeout } from '../policies/timeout.ts';

const MAX_TIMEOUTS = 100;

/**
 * Holds one Timeout for each duration and use, whatever the service: each Timeout has a timer that goes on
 * for a while after its last call, and names of services may come from requests.
 */
export class SharedTimeouts {
  readonly clock: Clock;
  readonly #timeouts = {
    call: growingLru<number, Timeout>(MAX_TIMEOUTS),
    // Gives up a response that other callers wait for as well.
    'shared call': growingLru<number, Timeout>(MAX_TIMEOUTS),
    attempt: growingLru<number, Timeout>(MAX_TIMEOUTS),
  };

  constructor(clock: Clock = systemClock) {
    this.clock = clock;
  }

  get(duration: number, use: 'call' | 'shared call' | 'attempt'): Timeout {
    const known = this.#timeouts[use];
    let timeout = known.get(duration);
    if (timeout === undefined) {
      const which = `the ${use === 'attempt' ? use : 'call'}'s timeout`;
      timeout = new Timeout(duration, { strict: use === 'shared call', clock: this.clock }, which);
      known.set(duration, timeout);
    }
    return timeout;
  }
}
