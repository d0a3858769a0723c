import {
  noteRetriesSpent,
  type RequestContext,
  runWithRequestContext,
  wereRetriesSpent,
} from '../../../client/propagation.ts';
import { TimeoutError } from '../../../errors.ts';
import { areRetriesSpent } from '../../../policies/spent-retries.ts';
import type { KeyLock } from '../idempotency/key-lock.ts';

/** A request that was let through, until its response is finished. */
export class Admission {
  readonly context: RequestContext;
  /** The lock on the request's idempotency key, if it has one: the response is to be stored. */
  readonly keyLock: KeyLock | undefined;
  readonly #permit: Permit | undefined;
  #finished = false;

  constructor(context: RequestContext, keyLock?: KeyLock, permit?: Permit) {
    this.context = context;
    this.keyLock = keyLock;
    this.#permit = permit;
  }

  /** Whether the response is finished, or no longer can be, as the client has disconnected. */
  get isFinished(): boolean {
    return this.#finished;
  }

  /** Runs a function so that the calls that it makes inherit the context of the request. */
  run<T>(fn: () => T): T {
    return runWithRequestContext(this.context, fn);
  }

  /** Records an error of the handler. The framework still responds to it. */
  recordError(error: unknown): void {
    if (areRetriesSpent(error)) noteRetriesSpent(this.context);
  }

  /** Whether a response of this status must carry `RETRIES_SPENT_HEADER`. */
  shouldMarkRetriesSpent(status: number): boolean {
    return status >= 500 && wereRetriesSpent(this.context);
  }

  /**
   * Gives the permit back when the response is finished, or when it no longer can be: then `status`
   * is undefined. Calling it again does nothing.
   */
  finish(status: number | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#permit?.release(status, performance.now() > this.context.deadline);
  }
}

const LATE = new TimeoutError('the response was finished after the deadline of the request', 0);

/** A request's permit of AdaptiveConcurrency: its operation ends when the response is finished. */
export class Permit {
  /** Settles as the operation of AdaptiveConcurrency does. */
  readonly released: Promise<{ status: number }>;
  #resolve!: (response: { status: number }) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    this.released = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Ends the operation. A late response is a sign of overload; a failure says nothing of it. */
  release(status: number | undefined, late: boolean): void {
    if (late) this.#reject(LATE);
    else if (status !== undefined && status < 500) this.#resolve({ status });
    else this.#reject(new Error(status === undefined ? 'the connection broke' : `responded with ${status}`));
  }
}
