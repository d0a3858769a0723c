import type { Duplex } from 'node:stream';
import { FrameTracker } from './frame-tracker.ts';

/**
 * Tells what becomes of the bytes of a direction: they are `passed` on; once the gateway closes they
 * are passed `to-frame-end`, if they are within a frame; then they are `dropped`, since the target
 * has a Close frame, after which there may be nothing.
 */
type Mode = 'passed' | 'to-frame-end' | 'dropped';

/** Passes what one side of a WebSocket sends on to the other, at the pace of the other. */
export class Direction {
  readonly #source: Duplex;
  readonly #target: Duplex;
  readonly #tracker = new FrameTracker();
  readonly #createClose: () => Buffer;
  readonly #onClose: () => void;
  #mode: Mode = 'passed';

  /**
   * @param createClose makes the Close frame of the gateway
   * @param onClose is called when a Close frame has come from the source, or gone to the target,
   *   since `close()` was called
   */
  constructor(source: Duplex, target: Duplex, createClose: () => Buffer, onClose: () => void) {
    this.#source = source;
    this.#target = target;
    this.#createClose = createClose;
    this.#onClose = onClose;
    source.on('data', (chunk: Buffer) => this.#take(chunk)).on('end', () => target.end());
    target.on('drain', () => source.resume());
  }

  /** Whether the source has sent a Close frame. */
  get sourceClosed(): boolean {
    return this.#tracker.closed;
  }

  /** Whether the target has got a Close frame, and gets nothing more. */
  get targetClosed(): boolean {
    return this.#mode === 'dropped';
  }

  /** Sends the target a Close frame as soon as no other frame is under way, unless it has got one. */
  close(): void {
    if (this.#mode !== 'passed') return;
    if (this.#tracker.betweenFrames) this.#closeTarget();
    else this.#mode = 'to-frame-end';
  }

  #take(chunk: Buffer): void {
    if (this.#mode === 'passed') {
      this.#tracker.skip(chunk);
      this.#write(chunk);
      return;
    }
    let passed = 0;
    if (this.#mode === 'to-frame-end') {
      passed = this.#tracker.advance(chunk, 0);
      this.#write(chunk.subarray(0, passed));
      if (this.#tracker.betweenFrames) this.#closeTarget();
    }
    this.#tracker.skip(chunk.subarray(passed));
    if (this.#tracker.closed) this.#onClose();
  }

  #closeTarget(): void {
    this.#mode = 'dropped';
    if (!this.#tracker.closed && this.#target.writable) this.#target.write(this.#createClose());
    this.#source.resume();
    this.#onClose();
  }

  #write(chunk: Buffer): void {
    if (this.#target.writable && !this.#target.write(chunk)) this.#source.pause();
  }
}
