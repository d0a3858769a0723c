import type { RedisConnection } from './redis-connection.ts';

/** The entries that are read at once from each stream, and the characters of them to aim at. */
const MAX_PAGE = 100;
const PAGE_SIZE = 1_048_576;

/** An entry of a stream. */
export interface ScannedEntry<Stream> {
  readonly stream: Stream;
  readonly id: string;
  readonly fields: ReadonlyMap<string, string>;
}

/**
 * Reads the entries of several streams that are there now, in the order of their ids, page by page.
 *
 * @param start the least id, or '-'
 * @param end the greatest id, or '+'
 */
export async function* scanStreams<Stream extends { readonly key: string }>(
  connection: RedisConnection,
  streams: readonly Stream[],
  start = '-',
  end = '+',
): AsyncGenerator<ScannedEntry<Stream>, void, undefined> {
  const cursors = streams.map((stream) => new StreamCursor(connection, stream, start, end));
  await Promise.all(cursors.map((cursor) => cursor.open()));
  for (;;) {
    let first: StreamCursor<Stream> | undefined;
    for (const cursor of cursors) {
      if (cursor.head === undefined) continue;
      if (first === undefined || isBefore(cursor.head.id, first.head!.id)) first = cursor;
    }
    if (first === undefined) return;
    yield first.head!;
    await first.advance();
  }
}

/** Compares ids of entries. */
export function isBefore(one: string, other: string): boolean {
  const [time, count] = one.split('-') as [string, string];
  const [otherTime, otherCount] = other.split('-') as [string, string];
  return time === otherTime ? Number(count) < Number(otherCount) : Number(time) < Number(otherTime);
}

class StreamCursor<Stream extends { readonly key: string }> {
  readonly #connection: RedisConnection;
  readonly #stream: Stream;
  #next: string;
  /** The greatest id to read; undefined if there is none. */
  #end: string | undefined;
  #page: readonly [id: string, fields: string[]][] = [];
  #index = 0;
  #count = 16;

  constructor(connection: RedisConnection, stream: Stream, start: string, end: string) {
    this.#connection = connection;
    this.#stream = stream;
    this.#next = start;
    this.#end = end;
  }

  get head(): ScannedEntry<Stream> | undefined {
    const entry = this.#page[this.#index];
    if (entry === undefined) return undefined;
    const [id, values] = entry;
    const fields = new Map<string, string>();
    for (let index = 0; index < values.length; index += 2) fields.set(values[index]!, values[index + 1]!);
    return { stream: this.#stream, id, fields };
  }

  /** Finds where the stream ends now: what is added meanwhile could have no end. */
  async open(): Promise<void> {
    const last = await this.#connection.run((client) =>
      client.xrevrange(this.#stream.key, this.#end!, this.#next, 'COUNT', 1),
    );
    this.#end = last[0]?.[0];
    await this.#readPage();
  }

  async advance(): Promise<void> {
    this.#index++;
    if (this.#index === this.#page.length) await this.#readPage();
  }

  async #readPage(): Promise<void> {
    this.#index = 0;
    this.#page = [];
    const end = this.#end;
    if (end === undefined) return;
    this.#page = await this.#connection.run((client) =>
      client.xrange(this.#stream.key, this.#next, end, 'COUNT', this.#count),
    );
    const last = this.#page.at(-1);
    if (last === undefined || this.#page.length < this.#count) this.#end = undefined;
    if (last === undefined) return;
    this.#next = `(${last[0]}`;
    const size = this.#page.reduce((sum, [, fields]) => sum + fields.join('').length, 0) / this.#page.length;
    this.#count = Math.max(1, Math.min(MAX_PAGE, Math.floor(PAGE_SIZE / Math.max(size, 1))));
  }
}
