import type { LimitSample } from '../../../src/policies/concurrency-limit.ts';

/** Makes the sample of a window of 100 calls. */
export function sample(rtt: number | undefined, inFlight: number, dropped = 0): LimitSample {
  return { rtt, inFlight, calls: 100, dropped, elapsed: 500, demand: 0.2, firstRtt: undefined };
}
