import { type Backend, CONTENDERS, type ContenderName, type Course, runProcesses } from './client-processes.ts';
import type { World } from './harness.ts';

/** A cut in the capacity of the server, in processors of two, for some seconds. */
export interface Cut {
  processors: number;
  seconds: number;
  /** Milliseconds between two calls, of all processes together. */
  interval: number;
}

const ATTEMPT_TIMEOUT = 3_000;
const PROCESSORS = 2;
const CUT_AT = 20;

/**
 * A server that works on one call after the other and finishes all of them, however long ago the caller has given up.
 *
 * @param work the mean of what a call is, in milliseconds of one processor.
 */
export function queueingServer(cut: Cut, work: number): (world: World, instances: number) => Backend {
  const from = 1000 * CUT_AT;
  const to = from + 1000 * cut.seconds;
  // What the processors can have done up to a time, and the time at which they can have done so much.
  const doneBy = (time: number) =>
    PROCESSORS * (Math.min(time, from) + Math.max(0, time - to)) +
    cut.processors * (Math.min(Math.max(time, from), to) - from);
  const timeOf = (done: number) => {
    const before = PROCESSORS * from;
    const within = cut.processors * (to - from);
    if (done <= before) return done / PROCESSORS;
    if (done <= before + within) return from + (done - before) / cut.processors;
    return to + (done - before - within) / PROCESSORS;
  };
  return (_world, instances) => {
    let busyUntil = 0;
    return () => {
      const now = performance.now();
      busyUntil = Math.max(busyUntil, doneBy(now)) + work * (0.5 + Math.random()) * instances;
      return timeOf(busyUntil) - now;
    };
  };
}

export function cutCapacity(
  cut: Cut,
  contender: ContenderName,
  processes: number,
  seed: number,
  seconds: number,
  work: number,
): Promise<Course> {
  return runProcesses({
    seed,
    contender: CONTENDERS[contender],
    processes,
    attemptTimeout: ATTEMPT_TIMEOUT,
    demand: { seconds, rateAt: () => 1000 / cut.interval, gap: () => cut.interval },
    backend: queueingServer(cut, work),
  });
}
