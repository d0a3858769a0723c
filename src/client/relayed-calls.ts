import { type Linked, LinkedList } from '../internal/linked-list.ts';

export interface CallUnderWay extends Linked<CallUnderWay> {
  abort(reason?: Error): void;
}

/**
 * The relayed calls under way that one owner has to see to the end. Not a Set: V8 keeps the former tables of one that
 * is filled and emptied all the time alive through its collections of young objects, one by the other.
 */
export class RelayedCalls {
  readonly #calls = new LinkedList<CallUnderWay>();
  #whenNone: (() => void) | undefined = undefined;

  began(call: CallUnderWay): void {
    this.#calls.append(call);
  }

  ended(call: CallUnderWay): void {
    this.#calls.remove(call);
    if (this.#calls.length === 0) this.#whenNone?.();
  }

  /** Resolves when none is under way; no more must begin by then. */
  async done(): Promise<void> {
    if (this.#calls.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenNone = resolve;
    });
  }

  abort(reason: Error): void {
    for (let call = this.#calls.head; call !== undefined; call = this.#calls.head) call.abort(reason);
  }
}
