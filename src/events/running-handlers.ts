import { AsyncLocalStorage } from 'node:async_hooks';
import { processState } from '../internal/process-state.ts';

/** A handler that is under way. */
interface RunningHandler {
  /** The handler within which the subscription of this one was made, if any. */
  readonly outer: RunningHandler | undefined;
  /** Whether it has called `close()`, so that it may be waiting for others. */
  closing: boolean;
  done: boolean;
}

const storage = processState('running-handler', () => new AsyncLocalStorage<RunningHandler>());

/** Has, for each who waits for other handlers, a function that looks whether it has to wait on. */
const waiting = processState('waiting-for-handlers', () => new Set<() => void>());

/** The handlers of one subscription that are under way. */
export class RunningHandlers {
  readonly #running = new Set<RunningHandler>();

  /** Runs a handler, so that a `close()` which it calls does not wait for it. */
  async run<T>(fn: () => T | Promise<T>): Promise<T> {
    const handler: RunningHandler = { outer: storage.getStore(), closing: false, done: false };
    this.#running.add(handler);
    try {
      return await storage.run(handler, fn);
    } finally {
      handler.done = true;
      this.#running.delete(handler);
      lookAgain();
    }
  }

  [Symbol.iterator](): Iterator<RunningHandler> {
    return this.#running.values();
  }
}

/**
 * Gives what a caller of `close()` waits for. That is `closed`, which waits for all handlers. A caller
 * that is a handler itself would wait for its own end: it waits for all handlers but those that have
 * called `close()`, of which it is one. Two handlers that close at once do not wait for each other.
 *
 * @param closed resolves when everything is closed
 * @param handlers the handlers for which `closed` waits
 */
export function awaitClosed(closed: Promise<void>, handlers: readonly RunningHandlers[]): Promise<void> {
  return markClosing() ? Promise.race([closed, othersDone(handlers)]) : closed;
}

/** Takes in that the current handler calls `close()`; gives whether there is one. */
function markClosing(): boolean {
  let found = false;
  for (let handler = storage.getStore(); handler !== undefined; handler = handler.outer) {
    if (handler.done) continue;
    handler.closing = true;
    found = true;
  }
  if (found) lookAgain();
  return found;
}

/** Resolves once there are handlers, and all of them have called `close()`. */
function othersDone(handlers: readonly RunningHandlers[]): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      const running = handlers.flatMap((some) => [...some]);
      if (running.some(({ closing }) => !closing)) return;
      waiting.delete(look);
      // Where there are none, everything is closed at once.
      if (running.length > 0) resolve();
    };
    waiting.add(look);
    look();
  });
}

function lookAgain(): void {
  for (const look of waiting) look();
}
