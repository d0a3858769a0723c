import type { HoldfastError } from '../errors.ts';
import { deferred } from '../internal/deferred.ts';
import { emitWarning } from '../internal/emitter.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { type Backoff, computeWait } from '../policies/backoff.ts';
import { Bulkhead } from '../policies/bulkhead.ts';
import { createAttemptError } from './attempt-error.ts';
import type { Delivery, DeliveryLog, DeliveryState } from './delivery.ts';
import type { DomainEvent } from './domain-event.ts';
import type { EventReader } from './event-reader.ts';

/** The latest failures of an event that are kept. */
const MAX_ERRORS = 10;
/** Milliseconds before a retry where the backoff of the user failed. */
const FALLBACK_WAIT = 1_000;
/**
 * Milliseconds that an event which was under way when a process died has to itself. What kills a
 * process does so sooner; a handler that takes longer, or hangs, must not hold up the others.
 */
const ALONE = 5_000;

/** Is told of the work of a processor. */
export interface ProcessorListener {
  handled(event: DomainEvent, attempt: number): void;
  /** An attempt failed; `retryIn` is undefined if it was the last one. */
  failed(event: DomainEvent, error: unknown, attempt: number, retryIn: number | undefined): void;
  /** An event, and the rest of its aggregate, waits for a process that knows its version. */
  held(event: DomainEvent, until: number): void;
  died(event: DomainEvent, state: DeliveryState): void;
}

export interface ProcessorOptions {
  /** Handles an event. */
  readonly handle: (event: DomainEvent, attempt: number, signal: AbortSignal) => Promise<unknown>;
  readonly reader: EventReader;
  readonly log: DeliveryLog;
  readonly listener: ProcessorListener;
  /** Bounds the handlers under way, of all partitions of the subscription. */
  readonly slots: Bulkhead;
  readonly maxAttempts: number;
  readonly backoff: Backoff;
  readonly ordered: boolean;
  readonly prefetch: number;
  /** Whether the partition is still owned: false as soon as its lease has run out. */
  readonly isOwned: () => boolean;
}

/**
 * Handles the events that were under way when a process died: of all partitions of this process, one
 * at a time.
 */
const recovery = new Bulkhead({ maxConcurrent: 1, maxQueue: Number.MAX_SAFE_INTEGER });

/**
 * Hands the events of one partition to the handler of a group. Events of one aggregate form a lane:
 * they are handled one after the other, over retries too, while other lanes go on.
 *
 * The death of a process is a failed attempt as well, or an event that kills its handler would kill
 * one process after the other. Events that a dead process may have had under way are suspect: that
 * their attempt begins is written before it does. What was under way when a process died is handled
 * alone for a while, so that the next death tells which event it was. No other death is the last
 * attempt of an event: it may have been the fault of one beside it.
 */
export class PartitionProcessor {
  readonly #options: ProcessorOptions;
  /** #lanes holds the deliveries that are not done, by aggregate, the head of each lane first. */
  readonly #lanes = new Map<string, Task[]>();
  readonly #lost = new AbortController();
  /** #stopped is aborted when no attempt may begin any more. */
  readonly #stopped = new AbortController();
  readonly #running = new Set<Promise<void>>();
  /** #recovered resolves when no delivery has the partition to itself any more. */
  #recovered: Promise<void> = Promise.resolve();
  #size = 0;

  constructor(options: ProcessorOptions) {
    this.#options = options;
  }

  /** How many more deliveries may be accepted now. */
  get room(): number {
    return this.#options.prefetch - this.#size;
  }

  /** Takes deliveries, in the order of their partition. */
  accept(deliveries: readonly Delivery[]): void {
    if (this.#stopped.signal.aborted) return;
    const tasks = deliveries.map((delivery) => new Task(delivery, this.#options.maxAttempts));
    this.#size += tasks.length;
    const begun = tasks.flatMap((task) => this.#addToLane(task) ?? []);
    const interrupted = tasks.filter(({ interrupted }) => interrupted);
    if (interrupted.length > 0) this.#recovered = this.#recovered.then(() => this.#recover(interrupted));
    this.#track(this.#recovered.then(() => Promise.all(begun.map((lane) => this.#runLane(lane)))));
  }

  /** Begins no more attempts, and resolves when the handlers under way are done. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#running);
  }

  /** Aborts the handlers under way: another process owns the partition. */
  abandon(reason: HoldfastError): void {
    this.#stopped.abort();
    this.#lost.abort(reason);
  }

  /** Adds a task to the lane of its aggregate; gives the lane if it has to be begun. */
  #addToLane(task: Task): Lane | undefined {
    const { event, id } = task.delivery;
    const key = this.#options.ordered ? event.aggregateId : id;
    const tasks = this.#lanes.get(key);
    if (tasks !== undefined) {
      tasks.push(task);
      return undefined;
    }
    const lane = { key, tasks: [task] };
    this.#lanes.set(key, lane.tasks);
    return lane;
  }

  #track(running: Promise<unknown>): void {
    const tracked: Promise<void> = running.then(() => {
      this.#running.delete(tracked);
    });
    this.#running.add(tracked);
  }

  async #recover(interrupted: readonly Task[]): Promise<void> {
    for (const task of interrupted) await this.#runIn(recovery, () => this.#advanceAlone(task));
  }

  /** Begins to bring a task one step on, and resolves at the end of that, or of its time alone. */
  async #advanceAlone(task: Task): Promise<void> {
    task.isAlone = true;
    task.alone = this.#advance(task);
    this.#track(task.alone);
    const over = deferred<void>();
    const timer = setTimeout(over.resolve, ALONE);
    await Promise.race([task.alone, over.promise]);
    clearTimeout(timer);
    task.isAlone = false;
    if (task.done || !task.state.started) return;
    task.state = { ...task.state, alone: false };
    this.#options.log.save(task.delivery, task.state);
  }

  async #runLane({ key, tasks }: Lane): Promise<void> {
    while (tasks.length > 0) {
      const task = tasks[0]!;
      if (task.alone !== undefined) await task.alone;
      while (!task.done) {
        if (this.#stopped.signal.aborted) return;
        await this.#advance(task);
      }
      tasks.shift();
    }
    this.#lanes.delete(key);
  }

  /** Brings a task one step on: through a wait and an attempt, unless it is stopped before. */
  async #advance(task: Task): Promise<void> {
    const { maxAttempts, reader } = this.#options;
    if (task.state.attempts >= maxAttempts) {
      this.#bury(task);
      return;
    }
    if (task.readyAt > 0) await this.#sleepUntil(task.readyAt);
    if (this.#stopped.signal.aborted) return;
    const reading = reader.read(task.event);
    const read = reading instanceof Promise ? await reading : reading;
    if (read.kind === 'event') await this.#attempt(task, read.event);
    else if (read.kind === 'hold') this.#hold(task, read.error);
    else this.#fail(task, read.error, false);
  }

  /** Resolves at this time, on the clock of `performance.now()`, or once the processor is stopped. */
  #sleepUntil(time: number): Promise<void> | undefined {
    const wait = time - performance.now();
    if (wait <= 0) return undefined;
    return new Promise((resolve) => {
      const { signal } = this.#stopped;
      const wake = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.min(wait, MAX_DELAY));
      signal.addEventListener('abort', wake);
    });
  }

  /** Waits for a place among the handlers under way, and makes an attempt unless it is stopped before. */
  #attempt(task: Task, event: DomainEvent): Promise<void> {
    return this.#runIn(this.#options.slots, () => this.#attemptInSlot(task, event));
  }

  /** Runs an operation once there is a place for it, unless the processor is stopped before. */
  async #runIn(places: Bulkhead, operation: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopped;
    try {
      await places.execute(operation, { signal });
    } catch (error) {
      if (error !== signal.reason) throw error;
    }
  }

  async #attemptInSlot(task: Task, event: DomainEvent): Promise<void> {
    const { isOwned, log, handle, listener } = this.#options;
    if (this.#stopped.signal.aborted) return;
    if (task.suspect && !(await this.#markStarted(task))) return;
    if (!isOwned()) {
      this.#stopped.abort();
      return;
    }
    const attempt = task.state.attempts + 1;
    try {
      await handle(event, attempt, this.#lost.signal);
    } catch (error) {
      if (!this.#lost.signal.aborted) this.#fail(task, error);
      return;
    }
    this.#finish(task);
    log.acknowledge(task.delivery);
    listener.handled(event, attempt);
  }

  /**
   * Resolves with false if the partition was lost meanwhile. Once the mark is written the attempt is
   * made, also if the processor is stopped meanwhile: the mark would count as a death.
   */
  async #markStarted(task: Task): Promise<boolean> {
    task.state = { ...task.state, started: true, alone: task.isAlone };
    try {
      await this.#options.log.markStarted(task.delivery, task.state);
    } catch {
      this.#stopped.abort();
      return false;
    }
    return !this.#lost.signal.aborted;
  }

  /** Counts a failed attempt, after which the event is retried or dead. */
  #fail(task: Task, error: unknown, retryable = true): void {
    const { maxAttempts, backoff, log, listener } = this.#options;
    const attempt = task.state.attempts + 1;
    const wait =
      retryable && attempt < maxAttempts ? waitBefore(backoff, attempt, task.state.wait) : undefined;
    const errors = [...task.state.errors, createAttemptError(error, attempt)].slice(-MAX_ERRORS);
    task.state = { attempts: attempt, errors, retryAt: Date.now() + (wait ?? 0), wait: wait ?? 0 };
    listener.failed(task.event, error, attempt, wait);
    if (wait === undefined) {
      this.#bury(task);
    } else {
      task.event = JSON.parse(task.delivery.json);
      task.readyAt = performance.now() + wait;
      log.save(task.delivery, task.state);
    }
  }

  /** Has an event of a newer version wait, and gives it up when it has waited for long enough. */
  #hold(task: Task, error: HoldfastError): void {
    const { reader, log, listener } = this.#options;
    const now = Date.now();
    const { heldSince = now } = task.state;
    const wait = Math.min(heldSince + reader.holdFor - now, reader.holdFor);
    if (wait <= 0) {
      this.#fail(task, error, false);
      return;
    }
    task.state = { ...task.state, heldSince, retryAt: now + wait, wait };
    task.readyAt = performance.now() + wait;
    log.save(task.delivery, task.state);
    listener.held(task.event, now + wait);
  }

  #bury(task: Task): void {
    const { log, listener } = this.#options;
    this.#finish(task);
    log.bury(task.delivery, task.state);
    listener.died(task.event, task.state);
  }

  #finish(task: Task): void {
    task.done = true;
    this.#size--;
  }
}

/** A delivery until it is done. */
class Task {
  readonly delivery: Delivery;
  /** interrupted tells that a process died while it handled the event. */
  readonly interrupted: boolean;
  readonly suspect: boolean;
  state: DeliveryState;
  /** event is what the next attempt is given. */
  event: DomainEvent;
  /** readyAt is when the next attempt may begin, on the clock of `performance.now()`; 0 for now. */
  readyAt = 0;
  /** isAlone tells that no other event is handled meanwhile. */
  isAlone = false;
  /** alone resolves at the end of the step that the task was brought on alone, if it was. */
  alone: Promise<void> | undefined = undefined;
  done = false;

  constructor(delivery: Delivery, maxAttempts: number) {
    const { state } = delivery;
    this.delivery = delivery;
    this.event = delivery.event;
    this.interrupted = state.started === true;
    this.suspect = delivery.suspect;
    this.state = this.interrupted ? afterDeath(state, maxAttempts) : state;
    // This process may know the version for which the event waited.
    if (state.wait === 0 || state.heldSince !== undefined) return;
    this.readyAt = performance.now() + Math.min(Math.max(state.retryAt - Date.now(), 0), state.wait);
  }
}

interface Lane {
  readonly key: string;
  readonly tasks: Task[];
}

/** Computes the wait before a retry. A backoff of the user that fails must not stop the lane. */
function waitBefore(backoff: Backoff, attempt: number, previous: number): number {
  try {
    return computeWait(backoff, "the option 'backoff' of a subscription", attempt, previous);
  } catch (error) {
    emitWarning(error, `The backoff of a subscription failed. The event is retried in ${FALLBACK_WAIT} ms.`);
    return FALLBACK_WAIT;
  }
}

/** Counts the attempt that the death of its process has ended, unless it was the last one, and not alone. */
function afterDeath(state: DeliveryState, maxAttempts: number): DeliveryState {
  const { attempts, errors, heldSince, alone } = state;
  const isLast = attempts + 1 >= maxAttempts;
  const error = { name: 'ProcessEnded', message: 'the process ended while it handled the event' };
  const failed = { attempt: attempts + 1, at: Date.now(), ...error };
  return {
    attempts: isLast && !alone ? attempts : attempts + 1,
    errors: [...errors, failed].slice(-MAX_ERRORS),
    retryAt: 0,
    wait: 0,
    heldSince,
  };
}
