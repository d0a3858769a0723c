import {
  noteRetriesSpent,
  type RequestContext,
  runWithRequestContext,
  wereRetriesSpent,
} from '../../client/propagation.ts';
import { TimeoutError } from '../../errors.ts';
import { areRetriesSpent } from '../../policies/spent-retries.ts';
import type { Hold } from './hold.ts';

/** A request that is let through, until its answer is finished. */
export class Admission {
  readonly context: RequestContext;
  /** On its idempotency key, where it has one: the shim sees to it that the answer is kept. */
  readonly hold: Hold | undefined;
  readonly #slot: Slot | undefined;
  #finished = false;

  constructor(context: RequestContext, hold?: Hold, slot?: Slot) {
    this.context = context;
    this.hold = hold;
    this.#slot = slot;
  }

  /** Runs a function so that the calls that it makes inherit the context of the request. */
  run<T>(fn: () => T): T {
    return runWithRequestContext(this.context, fn);
  }

  /** Takes note of what the handler threw; to answer it is left to the framework. */
  threw(error: unknown): void {
    if (areRetriesSpent(error)) noteRetriesSpent(this.context);
  }

  /** Whether an answer of this status has to tell that trying again is in vain, by `RETRIES_SPENT_HEADER`. */
  retriesSpent(status: number): boolean {
    return status >= 500 && wereRetriesSpent(this.context);
  }

  /**
   * The answer is finished, or cannot be any more: then `status` is undefined. Calling it again does nothing.
   */
  finish(status: number | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#slot?.free(status, performance.now() > this.context.deadline);
  }
}

const LATE = new TimeoutError('the answer was finished after the deadline of the request', 0);

/** The place of a request in AdaptiveConcurrency: its operation ends when the answer is finished. */
export class Slot {
  readonly ended: Promise<{ status: number }>;
  #resolve!: (answer: { status: number }) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** An answer that comes too late is a sign of overload; a failure, however fast, says nothing. */
  free(status: number | undefined, late: boolean): void {
    if (late) this.#reject(LATE);
    else if (status !== undefined && status < 500) this.#resolve({ status });
    else this.#reject(new Error(status === undefined ? 'the connection broke' : `answered with ${status}`));
  }
}
