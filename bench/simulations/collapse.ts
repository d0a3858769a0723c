import { exponential } from './chance.ts';
import {
  type Backend,
  CONTENDERS,
  type ContenderName,
  type Course,
  type Demand,
  runProcesses,
} from './client-processes.ts';
import type { World } from './harness.ts';

export type Wave = 'spike' | 'ramp';

const ATTEMPT_TIMEOUT = 3_000;
const BASE_TIME = 1_000;
/** Milliseconds that a response takes longer for each call that is worked on. */
const SLOPE = 10;
const NETWORK = 100;

/** A server whose responses take longer the more calls it works on, so that 64 a second come within the timeout. */
function contendedServer({ later }: World, instances: number): Backend {
  let inFlight = 0;
  return () => {
    inFlight++;
    const work = BASE_TIME + SLOPE * instances * inFlight;
    later(work, () => inFlight--);
    return exponential(NETWORK) + work + exponential(NETWORK);
  };
}

const gap = (rate: number) => exponential(1000 / rate);

export const WAVES: Record<Wave, (seconds: number) => Demand & { calm: number }> = {
  spike: (seconds) => ({
    seconds,
    rateAt: (second) => (second >= 20 && second < 25 ? 80 : 40),
    gap,
    calm: 25,
  }),
  ramp: (seconds) => ({
    seconds,
    rateAt: (second) => Math.max(0.1, 80 - 1.6 * Math.abs(second - 25)),
    gap,
    calm: 35,
  }),
};

export function collapse(
  wave: Wave,
  contender: ContenderName,
  processes: number,
  seed: number,
  seconds: number,
): Promise<Course> {
  return runProcesses({
    seed,
    contender: CONTENDERS[contender],
    processes,
    attemptTimeout: ATTEMPT_TIMEOUT,
    demand: WAVES[wave](seconds),
    backend: contendedServer,
  });
}
