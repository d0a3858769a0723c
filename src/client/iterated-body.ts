import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';

type Chunk = string | Uint8Array;
type Source = AsyncIterable<Chunk> | Iterable<Chunk>;

/**
 * The most bytes of a body that is given chunk by chunk and kept, so that it can be sent again.
 * Source: Fetch standard, 'HTTP-network fetch', the buffer of 64 kibibytes.
 */
const MAX_KEPT = 65_536;

/**
 * The body of a request that comes chunk by chunk, as every body of a fetch does. It can be sent
 * once. It can be sent again if it says how long it is, and that is short: then its chunks are kept
 * as they are read.
 */
export class IteratedBody implements AsyncIterable<Chunk> {
  readonly replayable: boolean;
  /**
   * onSourceError is called if the source fails, for which the caller is to blame, and not the
   * service.
   */
  onSourceError: ((error: Error) => void) | undefined = undefined;
  readonly #source: Source;
  #iterator: AsyncIterator<Chunk> | Iterator<Chunk> | undefined = undefined;
  readonly #kept: Chunk[] = [];
  #pulling: Promise<void> | undefined = undefined;
  #ended = false;

  constructor(source: Source, length: number) {
    this.#source = source;
    this.replayable = length <= MAX_KEPT;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Chunk, void, undefined> {
    try {
      for await (const chunk of this.replayable ? this.#replay() : this.#source) yield checkChunk(chunk);
    } catch (error) {
      this.onSourceError?.(error as Error);
      throw error;
    }
  }

  /** Closes the source, if nobody has read it to its end. */
  close(): void {
    if (this.#iterator === undefined || this.#ended) return;
    this.#ended = true;
    void (async () => this.#iterator!.return?.())().catch(() => {});
  }

  /**
   * Gives the chunks that were read for an earlier attempt, then the rest. An earlier attempt may
   * still wait for the same chunk.
   */
  async *#replay(): AsyncGenerator<Chunk, void, undefined> {
    for (let index = 0; ; index++) {
      while (index >= this.#kept.length) {
        if (this.#ended) return;
        this.#pulling ??= this.#pull().finally(() => {
          this.#pulling = undefined;
        });
        await this.#pulling;
      }
      yield this.#kept[index]!;
    }
  }

  async #pull(): Promise<void> {
    this.#iterator ??= iteratorOf(this.#source);
    const { done, value } = await this.#iterator.next();
    if (done) this.#ended = true;
    else this.#kept.push(value);
  }
}

/**
 * Gives the chunk as it is.
 *
 * @throws InvalidRequestError if it is neither text nor bytes
 */
function checkChunk(chunk: Chunk): Chunk {
  if (typeof chunk === 'string' || ArrayBuffer.isView(chunk)) return chunk;
  throw new InvalidRequestError(
    `the body of a request must give strings or bytes; it gave ${typeof chunk === 'object' ? shown(chunk) : `a ${typeof chunk}`}`,
  );
}

function iteratorOf(source: Source): AsyncIterator<Chunk> | Iterator<Chunk> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
}
