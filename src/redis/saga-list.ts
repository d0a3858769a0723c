import { DUE_STATUSES, SAGA_STATUSES } from '../saga/saga-entry.ts';
import type { ListOptions, SummaryWithInput } from '../saga/saga-store.ts';
import type { RedisConnection } from './redis-connection.ts';
import { type SummaryReply, withInput } from './saga-replies.ts';
import { LIST } from './saga-scripts.ts';

/** The sagas of one bucket that are looked at in one round trip. */
const PAGE = 100;

interface Listed {
  readonly number: number;
  readonly saga: SummaryWithInput;
}

/** Lists the sagas of one bucket page by page. */
class BucketList {
  readonly #connection: RedisConnection;
  readonly #bucket: string;
  readonly #args: readonly (string | number)[];
  #page: Listed[] = [];
  /** #after is the number of the last saga that was looked at, '' when no more follow. */
  #after = '-inf';

  constructor(connection: RedisConnection, bucket: string, { status, name = '', dueFor }: ListOptions) {
    const statuses = dueFor === undefined ? SAGA_STATUSES : DUE_STATUSES;
    this.#connection = connection;
    this.#bucket = bucket;
    this.#args = [PAGE, name, dueFor ?? '', ...(status === undefined ? statuses : [status])];
  }

  /** The next saga, once `fill` has resolved; undefined if there is none. */
  get next(): Listed | undefined {
    return this.#page[0];
  }

  take(): void {
    this.#page.shift();
  }

  async fill(): Promise<void> {
    while (this.#page.length === 0 && this.#after !== '') {
      const reply = await this.#connection.evaluate(LIST, [this.#bucket], [this.#after, ...this.#args]);
      const [after, ...listed] = reply as [string, ...[number: string, saga: SummaryReply][]];
      this.#after = after;
      this.#page = listed.map(([number, saga]) => ({ number: Number(number), saga: withInput(saga) }));
    }
  }
}

/** Lists sagas of all buckets, the oldest first. */
export async function* listSagas(
  connection: RedisConnection,
  buckets: readonly string[],
  options: ListOptions,
): AsyncGenerator<SummaryWithInput, void, undefined> {
  const lists = buckets.map((bucket) => new BucketList(connection, bucket, options));
  for (;;) {
    await Promise.all(lists.map((list) => list.fill()));
    const [oldest] = lists
      .filter(({ next }) => next !== undefined)
      .sort((one, other) => one.next!.number - other.next!.number);
    if (oldest === undefined) return;
    yield oldest.next!.saga;
    oldest.take();
  }
}
