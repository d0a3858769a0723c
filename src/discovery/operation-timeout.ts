import { TimeoutError } from '../errors.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';

/** Milliseconds that an operation of the discovery or of the lock service may take. */
export const OPERATION_TIMEOUT = 5_000;

/**
 * Gives the result of the operation, or rejects with a TimeoutError after `duration` milliseconds,
 * or with the reason of `outer` when that is aborted; the operation's signal is aborted with the
 * same error. Unlike a Timeout policy it does not hold the process open; like that policy it reads
 * first what arrived while this process was blocked.
 */
export function withTimeout<T>(
  duration: number,
  operation: (signal: AbortSignal) => Promise<T>,
  outer?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    const abort = (reason: unknown) => {
      controller.abort(reason);
      reject(reason);
    };
    const onAbort = () => abort(outer?.reason);
    const startedAt = performance.now();
    const timer = new StallAwareTimer(() => {
      const stalled = timer.stalledSince(startedAt, duration);
      abort(new TimeoutError(`timed out after ${Math.round(duration)} ms`, duration, 'ERR_TIMEOUT', stalled));
    });
    timer.start(duration, startedAt + duration);
    timer.unref();
    outer?.addEventListener('abort', onAbort, { once: true });
    const run = async () => {
      try {
        return await operation(controller.signal);
      } finally {
        timer.stop();
        outer?.removeEventListener('abort', onAbort);
      }
    };
    run().then(resolve, reject);
  });
}
