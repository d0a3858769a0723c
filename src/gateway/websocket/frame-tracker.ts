const CLOSE = 8;
const MASKED = 0x80;
const MASK_SIZE = 4;

/**
 * Follows where the frames of one direction of a WebSocket begin and end (RFC 6455, section 5.2).
 * It counts payloads without reading them, so that extensions such as permessage-deflate make no
 * difference. A frame of the gateway's own may be sent only between two frames.
 */
export class FrameTracker {
  /** Whether a Close frame has passed, after which there may be no other frame. */
  closed = false;
  /** The part of the frame that tells its opcode and length. */
  readonly #head = Buffer.alloc(10);
  #headSize = 0;
  /** The bytes of the head that are still to come, as far as that is known. */
  #headMissing = 2;
  /** The bytes of mask and payload that are still to come. */
  #payloadLeft = 0;

  /** Whether the bytes so far end with a whole frame. */
  get betweenFrames(): boolean {
    return this.#headSize === 0;
  }

  /** Takes in a chunk from `start` on, up to the end of one frame at most. Gives where it stopped. */
  advance(chunk: Buffer, start: number): number {
    let index = start;
    while (this.#headMissing > 0 && index < chunk.length) this.#addToHead(chunk[index++]!);
    if (this.#headMissing > 0) return index;
    const taken = Math.min(this.#payloadLeft, chunk.length - index);
    this.#payloadLeft -= taken;
    if (this.#payloadLeft === 0) this.#endFrame();
    return index + taken;
  }

  /** Takes in a whole chunk. */
  skip(chunk: Buffer): void {
    for (let index = 0; index < chunk.length; ) index = this.advance(chunk, index);
  }

  #addToHead(byte: number): void {
    this.#head[this.#headSize++] = byte;
    this.#headMissing--;
    if (this.#headSize === 2) this.#headMissing = extendedSize(byte & ~MASKED);
    if (this.#headMissing === 0) this.#payloadLeft = this.#readLength();
  }

  #readLength(): number {
    const head = this.#head;
    const maskSize = (head[1]! & MASKED) === 0 ? 0 : MASK_SIZE;
    if (this.#headSize === 2) return (head[1]! & ~MASKED) + maskSize;
    return (this.#headSize === 4 ? head.readUInt16BE(2) : Number(head.readBigUInt64BE(2))) + maskSize;
  }

  #endFrame(): void {
    if ((this.#head[0]! & 0x0f) === CLOSE) this.closed = true;
    this.#headSize = 0;
    this.#headMissing = 2;
  }
}

/** Gives the number of bytes with the length, where that is longer than fits the second byte. */
function extendedSize(length: number): number {
  if (length < 126) return 0;
  return length === 126 ? 2 : 8;
}
