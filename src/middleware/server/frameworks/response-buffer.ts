export type ChunkCallback = (error?: Error | null) => void;
export type Chunk = string | Uint8Array;

/** The bytes of a body that was sent, for as long as they are no more than may be stored. */
export class ResponseBuffer {
  readonly #maxSize: number;
  #chunks: Uint8Array[] = [];
  length = 0;

  constructor(maxSize: number) {
    this.#maxSize = maxSize;
  }

  get isTooLarge(): boolean {
    return this.length > this.#maxSize;
  }

  add(chunk: Chunk, encoding: BufferEncoding | ChunkCallback | undefined): void {
    // A copy, since the application may use its buffer again.
    const bytes =
      typeof chunk === 'string'
        ? Buffer.from(chunk, typeof encoding === 'string' ? encoding : 'utf8')
        : Buffer.from(chunk);
    this.length += bytes.length;
    if (this.isTooLarge) this.#chunks = [];
    else this.#chunks.push(bytes);
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
