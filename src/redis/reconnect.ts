import type { Redis } from 'ioredis';
import { exponentialBackoff } from '../policies/backoff.ts';
import { isReplyError } from './ioredis-errors.ts';

/**
 * Milliseconds before the first attempt to connect again; twice as long before each further one, up
 * to `MAX_WAIT`.
 */
const FIRST_WAIT = 20;
export const MAX_WAIT = 500;
/**
 * The longest wait while Redis rejects the connection, as for a wrong password: that does not
 * change soon.
 */
const MAX_WAIT_REJECTED = 5_000;

const lostBackoff = exponentialBackoff({ base: FIRST_WAIT, max: MAX_WAIT, jitter: 'equal' });
const rejectedBackoff = exponentialBackoff({ base: FIRST_WAIT, max: MAX_WAIT_REJECTED, jitter: 'equal' });

/** Decides when to connect again after a connection was lost. */
export class Reconnection {
  readonly #connect: () => void;
  #attempts = 0;
  #connectedAt = Infinity;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(connect: () => void) {
    this.#connect = connect;
  }

  /** Whether an attempt to connect is scheduled. */
  get pending(): boolean {
    return this.#timer !== undefined;
  }

  succeeded(): void {
    this.#connectedAt = performance.now();
  }

  /**
   * Schedules the next attempt, after at least half of the wait, at random. A connection that did
   * not last counts as a failed attempt.
   */
  schedule(lastError: unknown): void {
    if (performance.now() - this.#connectedAt >= MAX_WAIT) this.#attempts = 0;
    this.#connectedAt = Infinity;
    const backoff = isReplyError(lastError) ? rejectedBackoff : lostBackoff;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#connect();
      },
      backoff(++this.#attempts, 0),
    ).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * Does what ioredis leaves undone for a connection that this package makes: the connection does not
 * hold the process open, and is destroyed if the other end accepts it and then says nothing.
 */
export function superviseHandshake(redis: Redis, timeout: number): void {
  let handshake: NodeJS.Timeout | undefined;
  redis.on('connect', () => {
    redis.stream.unref();
    handshake = destroyAfter(redis, timeout);
  });
  redis.on('ready', () => clearTimeout(handshake));
  redis.on('end', () => clearTimeout(handshake));
}

/**
 * Destroys the connection after `timeout` milliseconds, unless the timer that is given back is
 * cleared before.
 */
export function destroyAfter(redis: Redis, timeout: number): NodeJS.Timeout {
  const expire = () => destroy(redis, new Error(`no response within ${timeout} ms`));
  return setTimeout(expire, timeout).unref();
}

/**
 * Ends the connection at once: the other end, for which ioredis would wait, may not be there any
 * more.
 */
export function destroy(redis: Redis, reason?: Error): void {
  if (redis.status === 'end' || isEnding(redis)) return;
  redis.disconnect();
  redis.stream?.destroy(reason);
}

/** Whether the connection was destroyed, and the client was not told yet; its next one is another stream. */
function isEnding({ status, stream }: Redis): boolean {
  return status !== 'connecting' && stream?.destroyed === true;
}
