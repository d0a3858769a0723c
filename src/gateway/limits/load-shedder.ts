import { EventLoopDelay } from '../../middleware/server/guard/event-loop-delay.ts';
import type { GatewayConfig } from '../options.ts';
import { Rejection } from '../problem.ts';

const MAX_REQUESTS = 10_000;

/** Rejects requests for which the gateway itself has no room, or no time. */
export class LoadShedder {
  readonly #eventLoop = new EventLoopDelay();
  #inFlight = 0;

  /**
   * Counts a request in, until `leave()`.
   *
   * @throws Rejection
   */
  enter({ maxRequests = MAX_REQUESTS, maxEventLoopDelay = false }: GatewayConfig): void {
    if (this.#inFlight >= maxRequests || this.#isLate(maxEventLoopDelay)) throw createOverloaded();
    this.#inFlight++;
  }

  /** Counts a request out. */
  readonly leave = (): void => {
    this.#inFlight--;
  };

  close(): void {
    this.#eventLoop.close();
  }

  /** Whether a request is one of those that a late event loop costs: none at `max`, all at twice that. */
  #isLate(max: number | false): boolean {
    return max !== false && this.#eventLoop.current > max * (1 + Math.random());
  }
}

/** Asks clients that were rejected together not to come back together. */
function createOverloaded(): Rejection {
  const seconds = 1 + Math.round(Math.random());
  return new Rejection(503, 'gateway-overloaded', 'The gateway takes no more requests at the moment.', {
    'retry-after': String(seconds),
  });
}
