import { type Abortable, OnAbort } from '../../../policies/abort.ts';

/** The number of requests that may wait at the same time in one scope: more are rejected. */
const MAX_WAITING_PER_SCOPE = 1_000;

/** The requests that wait for a key that another request has locked, counted by scope. */
export class WaitingRequests {
  readonly #waiting = new Map<string, number>();

  /**
   * Waits for `wait` milliseconds, or until the client disconnects. Gives false, at once, if too
   * many requests of the scope wait already.
   */
  async wait(scope: string, wait: number, disconnected: Abortable): Promise<boolean> {
    const others = this.#waiting.get(scope) ?? 0;
    if (others >= MAX_WAITING_PER_SCOPE) return false;
    this.#waiting.set(scope, others + 1);
    await pause(wait, disconnected);
    this.#end(scope);
    return true;
  }

  #end(scope: string): void {
    const others = this.#waiting.get(scope)! - 1;
    if (others === 0) this.#waiting.delete(scope);
    else this.#waiting.set(scope, others);
  }
}

function pause(wait: number, disconnected: Abortable): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      clearTimeout(timer);
      disconnected.unlisten(onAbort);
      resolve();
    };
    const onAbort = new OnAbort(stop);
    const timer = setTimeout(stop, wait).unref();
    disconnected.listen(onAbort);
  });
}
