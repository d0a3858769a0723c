/** The process of one contender: at each question it plays a round, over an empty database of Redis. */
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { deferred } from '../../src/internal/deferred.ts';
import { measurePace, type Pace } from '../support/pace.ts';
import { play } from '../support/part.ts';
import { contenders, type Messaging } from './contenders.ts';

export interface BusTask {
  readonly contender: keyof typeof contenders;
  /** The URL of a database of Redis that no other contender has. */
  readonly redis: string;
}

export interface BusRound {
  readonly publish: Pace;
  /** Events a second from a backlog; null for a contender that keeps none. */
  readonly backlog: number | null;
  readonly endToEnd: Pace;
  /** Milliseconds from publishing to the handler, one event at a time. */
  readonly alone: number;
}

/** Milliseconds. */
const TURN = 500;
/** Events under way at once. */
const AT_ONCE = 100;
const BACKLOG = 10_000;

/** Publishes and handles the events of one round. */
class Round {
  readonly #messaging: Messaging;
  readonly #handled = new Map<number, () => void>();
  #published = 0;
  #count = 0;
  #onCount = () => {};

  constructor(messaging: Messaging) {
    this.#messaging = messaging;
  }

  readonly handler = async (number: number): Promise<void> => {
    this.#count++;
    this.#handled.get(number)?.();
    this.#onCount();
  };

  publish(): Promise<Pace> {
    return measurePace(TURN, AT_ONCE, () => this.#messaging.publish(this.#published++));
  }

  /** Resolves with the pace from the moment at which an event is published to that at which it is handled. */
  endToEnd(atOnce: number): Promise<Pace> {
    return measurePace(TURN, atOnce, async () => {
      const number = this.#published++;
      const handled = deferred<void>();
      this.#handled.set(number, handled.resolve);
      await this.#messaging.publish(number);
      await handled.promise;
      this.#handled.delete(number);
    });
  }

  /** Has a backlog handled, and gives the events a second, from the first one that is handled. */
  async backlog(): Promise<number> {
    for (let left = BACKLOG; left > 0; left -= 1_000) {
      await this.#messaging.publishMany(Array.from({ length: 1_000 }, () => this.#published++));
    }
    const count = this.#published;
    let begun = 0;
    const done = deferred<void>();
    this.#onCount = () => {
      if (this.#count === 1) begun = performance.now();
      if (this.#count === count) done.resolve();
    };
    const stop = await this.#messaging.consume(this.handler);
    await done.promise;
    const perSecond = (1_000 * count) / (performance.now() - begun);
    this.#onCount = () => {};
    await stop();
    return perSecond;
  }
}

await play<BusTask>(async ({ contender, redis }) => {
  const admin = new Redis(redis);
  const playRound = async (): Promise<BusRound> => {
    await admin.flushdb();
    const messaging = await contenders[contender](redis);
    const round = new Round(messaging);
    const publish = await round.publish();
    const backlog = contender === 'textbook' ? null : await round.backlog();
    const stop = await messaging.consume(round.handler);
    await setTimeout(100);
    const endToEnd = await round.endToEnd(AT_ONCE);
    const { p99: alone } = await round.endToEnd(1);
    await stop();
    await messaging.close();
    await admin.flushdb();
    return { publish, backlog, endToEnd, alone };
  };
  return { round: playRound };
});
