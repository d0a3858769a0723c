import type { Redis } from 'ioredis';

/** Milliseconds before the first try to connect again; twice as long each time after, up to the longest. */
const FIRST_WAIT = 20;
export const LONGEST_WAIT = 500;
/** The longest where Redis is there and refuses, as for a wrong password: it will not change its mind soon. */
const LONGEST_WAIT_REFUSED = 5_000;

/** When to connect again after a connection was lost. */
export class Reconnection {
  readonly #connect: () => void;
  #tries = 0;
  #connectedAt = Infinity;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(connect: () => void) {
    this.#connect = connect;
  }

  /** Whether it is going to connect again. */
  get pending(): boolean {
    return this.#timer !== undefined;
  }

  succeeded(): void {
    this.#connectedAt = performance.now();
  }

  /** After at least half of the wait, at random. A connection that did not last counts as a failed try. */
  schedule(lastError: unknown): void {
    if (performance.now() - this.#connectedAt >= LONGEST_WAIT) this.#tries = 0;
    this.#connectedAt = Infinity;
    const longest = isRefusal(lastError) ? LONGEST_WAIT_REFUSED : LONGEST_WAIT;
    const wait = Math.min(longest, FIRST_WAIT * 2 ** Math.min(this.#tries++, 10));
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#connect();
      },
      wait * (0.5 + Math.random() / 2),
    ).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * What ioredis leaves undone for a connection that we make: it does not hold the process open, and it is given up if
 * whoever takes it says nothing.
 */
export function takeCareOf(redis: Redis, timeout: number): void {
  let greeting: NodeJS.Timeout | undefined;
  redis.on('connect', () => {
    redis.stream.unref();
    greeting = abandonAfter(redis, timeout);
  });
  redis.on('ready', () => clearTimeout(greeting));
  redis.on('end', () => clearTimeout(greeting));
}

/** Ends the connection unless the timer that it gives is cleared within so many milliseconds. */
export function abandonAfter(redis: Redis, timeout: number): NodeJS.Timeout {
  const giveUp = () => abandon(redis, new Error(`no answer within ${timeout} ms`));
  return setTimeout(giveUp, timeout).unref();
}

/** Ends the connection at once: the other end, for which ioredis waits, may not be there any more. */
export function abandon(redis: Redis, reason?: Error): void {
  if (redis.status === 'end') return;
  redis.disconnect();
  redis.stream?.destroy(reason);
}

/**
 * The error without the command that ioredis attaches, and that Redis repeats where it does not know it, with all its
 * arguments: one of them may be the password.
 */
export function withoutArguments(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if ('command' in error) delete error.command;
  const [message, ...repeated] = error.message.split(', with args beginning with: ');
  return repeated.length === 0 ? error : Object.assign(new Error(message), { name: error.name });
}

/** Whether it is the answer of Redis, rather than the lack of one. */
export function isRefusal(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

const DENIALS = /^(WRONGPASS|NOAUTH|NOPERM|DENIED|ERR AUTH|ERR invalid password)|user executing the script/;

/** Whether Redis answers that this client may not do it: a wrong password, a right that it has not. */
export function isDenial(error: unknown): boolean {
  return isRefusal(error) && DENIALS.test((error as Error).message);
}

/** What an error says. */
export function messageOf(error: unknown): string {
  // Of a host name with several addresses: it has no message of its own.
  if (error instanceof AggregateError) return error.errors.map(messageOf).join(', ');
  return error instanceof Error ? error.message : String(error);
}
