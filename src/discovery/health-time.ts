import { TimeoutError } from '../errors.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';

/** Milliseconds that the discovery, or the leases, have to do what they are asked. */
export const PATIENCE = 5_000;

/** A wait that is up to 15 % shorter at random, so that many do not fall into step. */
export function jittered(wait: number): number {
  return wait * (1 - 0.15 * Math.random());
}

/**
 * What the operation gives, or a TimeoutError after `duration` milliseconds, or the reason of `outer` when
 * that is aborted; the operation's signal is aborted with the same. Unlike a Timeout it does not hold the
 * process open; as there, what has come is read first.
 */
export function within<T>(
  duration: number,
  operation: (signal: AbortSignal) => Promise<T>,
  outer?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    const giveUp = (reason: unknown) => {
      controller.abort(reason);
      reject(reason);
    };
    const onAbort = () => giveUp(outer?.reason);
    const startedAt = performance.now();
    const timer = new StallAwareTimer(() => {
      const stalled = timer.stalledSince(startedAt, duration);
      giveUp(new TimeoutError(`timed out after ${duration} ms`, duration, 'ERR_TIMEOUT', stalled));
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
