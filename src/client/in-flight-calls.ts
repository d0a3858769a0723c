import { type Linked, LinkedList } from '../internal/linked-list.ts';

export interface InFlightCall extends Linked<InFlightCall> {
  abort(reason?: Error): void;
}

/**
 * The calls under way that their owner waits for or aborts. It is a linked list instead of a Set: a
 * Set that is filled and emptied all the time leaves old tables behind, and each keeps the next
 * alive through V8's collections of young objects.
 */
export class InFlightCalls {
  readonly #calls = new LinkedList<InFlightCall>();
  #onIdle: (() => void) | undefined = undefined;

  add(call: InFlightCall): void {
    this.#calls.append(call);
  }

  remove(call: InFlightCall): void {
    this.#calls.remove(call);
    if (this.#calls.length === 0) this.#onIdle?.();
  }

  /** Resolves when no call is under way. No call must be added after this. */
  async waitUntilIdle(): Promise<void> {
    if (this.#calls.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  abort(reason?: Error): void {
    // Some calls leave the list as they are aborted, others later.
    const calls: InFlightCall[] = [];
    for (let call = this.#calls.head; call !== undefined; call = call.next) calls.push(call);
    for (const call of calls) call.abort(reason);
  }
}
