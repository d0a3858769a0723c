import { InvalidRequestError } from '../errors.ts';
import { shown } from '../internal/shown.ts';

type Chunk = string | Uint8Array;
type Source = AsyncIterable<Chunk> | Iterable<Chunk>;

/**
 * Bytes of a body that is given chunk by chunk, up to which it is kept so that it can be sent again.
 * Source: Fetch standard, 'HTTP-network fetch', the buffer of 64 kibibytes.
 */
const MAX_KEPT = 65_536;

/**
 * The body of a request that comes chunk by chunk. It can be sent once; or again as well, if it says how long it is and
 * that is not much: then its chunks are kept as they are asked for. That is how every body comes from a fetch.
 */
export class IteratedBody implements AsyncIterable<Chunk> {
  readonly replayable: boolean;
  /** Told if the source fails, which is nobody's fault but the caller's. */
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

  /** Lets go of the source, if nobody has read it to its end. */
  close(): void {
    if (this.#iterator === undefined || this.#ended) return;
    this.#ended = true;
    void (async () => this.#iterator!.return?.())().catch(() => {});
  }

  /** What was read for an earlier try, then what is left. An earlier try may still wait for the same chunk. */
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

/** @throws InvalidRequestError if it is neither text nor bytes */
function checkChunk(chunk: Chunk): Chunk {
  if (typeof chunk === 'string' || ArrayBuffer.isView(chunk)) return chunk;
  throw new InvalidRequestError(
    `the body of a request must give strings or bytes; it gave ${typeof chunk === 'object' ? shown(chunk) : `a ${typeof chunk}`}`,
  );
}

function iteratorOf(source: Source): AsyncIterator<Chunk> | Iterator<Chunk> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
}
