import type { EventLoopUtilization } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import { EventLoopDelay } from './event-loop-delay.ts';

/** PressureLimits are what this process may bear; Infinity for any. */
export interface PressureLimits {
  /** Milliseconds. */
  readonly delay: number;
  /** A share, 0 to 1. */
  readonly utilization: number;
  /** Bytes. */
  readonly heapUsed: number;
}

/** Milliseconds between two samples, which are taken on demand. */
const INTERVAL = 500;
/** The share of its limit by which the heap is over it where the pressure is at its highest. */
const HEAP_SPAN = 0.1;
/**
 * The highest pressure by the heap. Some requests go on, since V8 collects garbage where something is
 * allocated: a process that rejected all of them could keep its garbage, and reject for ever.
 */
const MAX_HEAP_PRESSURE = 0.9;

/** Tells how far this process is over its limits. What has no limit is not measured. */
export class Pressure {
  readonly #limits: PressureLimits;
  readonly #delay = new EventLoopDelay();
  readonly #sampled: boolean;
  #sampledAt = -Infinity;
  #eventLoop: EventLoopUtilization | undefined = undefined;
  #utilization = 0;
  #heapUsed = 0;

  constructor(limits: PressureLimits) {
    this.#limits = limits;
    if (limits.heapUsed !== Infinity) warnOfUnreachable(limits.heapUsed);
    this.#sampled = limits.utilization !== Infinity || limits.heapUsed !== Infinity;
  }

  /** Milliseconds that the event loop is late; 0 without a limit of it. */
  get eventLoopDelay(): number {
    return this.#limits.delay === Infinity ? 0 : this.#delay.current;
  }

  /** The pressure: 0 within all limits, 1 or more where nothing should be accepted. */
  get current(): number {
    const { delay, utilization, heapUsed } = this.#limits;
    const byDelay = over(this.eventLoopDelay, delay, delay);
    if (!this.#sampled) return byDelay;
    this.#sample(performance.now());
    const byUtilization = over(this.#utilization, utilization, 1 - utilization);
    const byHeap = over(this.#heapUsed, heapUsed, heapUsed * HEAP_SPAN);
    return Math.max(byDelay, byUtilization, Math.min(MAX_HEAP_PRESSURE, byHeap));
  }

  close(): void {
    this.#delay.close();
  }

  #sample(now: number): void {
    if (now - this.#sampledAt < INTERVAL) return;
    this.#sampledAt = now;
    const { utilization, heapUsed } = this.#limits;
    if (heapUsed !== Infinity) this.#heapUsed = process.memoryUsage().heapUsed;
    if (utilization !== Infinity) this.#sampleEventLoop();
  }

  #sampleEventLoop(): void {
    const eventLoop = performance.eventLoopUtilization();
    // The first one would tell how busy the process was while it started.
    if (this.#eventLoop !== undefined) {
      this.#utilization = performance.eventLoopUtilization(eventLoop, this.#eventLoop).utilization;
    }
    this.#eventLoop = eventLoop;
  }
}

const warned = new Set<number>();

/**
 * Warns, once of each value, of a limit that the heap in use cannot reach. It is no error: V8 takes its own
 * limit from the memory of the host, so that a service which starts on one host would not on a smaller one.
 */
function warnOfUnreachable(heapUsed: number): void {
  const { heap_size_limit: limit } = getHeapStatistics();
  if (heapUsed < limit || warned.has(heapUsed)) return;
  warned.add(heapUsed);
  process.emitWarning(
    `ServerGuard option 'maxHeapUsedBytes' is ${heapUsed}, and has no effect: V8 ends this process where its heap ` +
      `reaches ${limit} bytes. Give less, or raise that limit (--max-old-space-size).`,
    { type: 'HoldfastOptionWarning' },
  );
}

/** By how many spans a value is over its limit; 0 if it is not. */
function over(value: number, limit: number, span: number): number {
  return value <= limit ? 0 : (value - limit) / span;
}
