import { TimeoutError } from '../errors.ts';

/** Milliseconds that the discovery, or the leases, have to do what they are asked. */
export const PATIENCE = 5_000;

/** A wait that is up to 15 % shorter at random, so that many do not fall into step. */
export function jittered(wait: number): number {
  return wait * (1 - 0.15 * Math.random());
}

/**
 * What the operation gives, or a TimeoutError after `duration` milliseconds, or the reason of `outer` when
 * that is aborted; the operation's signal is aborted with the same. Unlike a Timeout it does not hold the
 * process open.
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
    const onTimeout = () => giveUp(new TimeoutError(`timed out after ${duration} ms`, duration));
    const timer = setTimeout(onTimeout, duration).unref();
    outer?.addEventListener('abort', onAbort, { once: true });
    const run = async () => {
      try {
        return await operation(controller.signal);
      } finally {
        clearTimeout(timer);
        outer?.removeEventListener('abort', onAbort);
      }
    };
    run().then(resolve, reject);
  });
}
