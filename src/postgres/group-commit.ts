import { DatabaseError } from '../errors.ts';
import { type Deferred, deferred } from '../internal/deferred.ts';

/** The most items that share a statement, and the most bytes of them; an item may be larger by itself. */
const MAX_BATCH = 100;
const MAX_SIZE = 4 * 1_048_576;

interface Pending<Item, Result> extends Deferred<Result> {
  readonly item: Item;
}

/**
 * Writes items together that are due together: while one statement is under way the next ones gather,
 * and so its round trip and its commit are shared by as many as there are. Nothing waits for company.
 */
export class GroupCommit<Item, Result> {
  readonly #commit: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #sizeOf: (item: Item) => number;
  readonly #pending: Pending<Item, Result>[] = [];
  #committing = false;

  /**
   * @param commit writes items, all or none of them, and gives a result for each
   * @param sizeOf gives about the bytes of an item, for items that may be large
   */
  constructor(
    commit: (items: readonly Item[]) => Promise<readonly Result[]>,
    sizeOf: (item: Item) => number = () => 0,
  ) {
    this.#commit = commit;
    this.#sizeOf = sizeOf;
  }

  run(item: Item): Promise<Result> {
    const pending = { item, ...deferred<Result>() };
    this.#pending.push(pending);
    if (!this.#committing) void this.#commitAll();
    return pending.promise;
  }

  async #commitAll(): Promise<void> {
    this.#committing = true;
    // What is asked for in the same turn belongs together too.
    await undefined;
    while (this.#pending.length > 0) await this.#settle(this.#pending.splice(0, this.#nextCount()));
    this.#committing = false;
  }

  #nextCount(): number {
    let size = 0;
    const end = this.#pending.findIndex(({ item }, index) => {
      size += this.#sizeOf(item);
      return index === MAX_BATCH || (index > 0 && size > MAX_SIZE);
    });
    return end === -1 ? this.#pending.length : end;
  }

  async #settle(batch: readonly Pending<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#commit(batch.map(({ item }) => item));
      for (const [index, { resolve }] of batch.entries()) resolve(results[index]!);
    } catch (error) {
      if (batch.length > 1 && wasRejected(error)) await Promise.all(batch.map((one) => this.#settle([one])));
      else for (const { reject } of batch) reject(error);
    }
  }
}

/** Whether an item was rejected, so that others may succeed without it. A lost connection is another matter. */
function wasRejected(error: unknown): boolean {
  return !(error instanceof DatabaseError) || error.sqlState !== undefined;
}
