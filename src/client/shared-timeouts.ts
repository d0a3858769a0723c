import { growingLru } from '../internal/growing-lru.ts';
import { Timeout } from '../policies/timeout.ts';

const MAX_TIMEOUTS = 100;

/**
 * Holds one Timeout for each duration, whatever the service: each Timeout has a timer that goes on
 * for a while after its last call, and names of services may come from requests.
 */
export class SharedTimeouts {
  readonly #strict = growingLru<number, Timeout>(MAX_TIMEOUTS);
  readonly #cooperative = growingLru<number, Timeout>(MAX_TIMEOUTS);

  get(duration: number, strict: boolean): Timeout {
    const known = strict ? this.#strict : this.#cooperative;
    let timeout = known.get(duration);
    if (timeout === undefined) {
      timeout = new Timeout(duration, { strict });
      known.set(duration, timeout);
    }
    return timeout;
  }
}
