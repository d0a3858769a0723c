/** Milliseconds before a partition is read again after that failed. */
const RETRY_WAIT = 200;

export interface ReadLoopOptions {
  /** Whether the partition is still read by this process. */
  readonly isOpen: () => boolean;
  readonly hasRoom: () => boolean;
  /** Reads once, and calls `expectMore` if there may be more to read. */
  readonly read: () => Promise<void>;
  readonly onError: (error: unknown) => void;
}

/** Reads a partition while there may be events and there is room for them, one read at a time. */
export class ReadLoop {
  readonly #options: ReadLoopOptions;
  /** #more tells that there may be events to read. */
  #more = false;
  #reading = false;
  #retry: NodeJS.Timeout | undefined = undefined;

  constructor(options: ReadLoopOptions) {
    this.#options = options;
  }

  /** Reads: there may be events. */
  wake(): void {
    this.#more = true;
    this.readSoon();
  }

  /** Has the read under way followed by another one. */
  expectMore(): void {
    this.#more = true;
  }

  /** Reads when the handlers of this turn of the event loop are done, unless a read is under way. */
  readSoon(): void {
    if (this.#reading || !this.#more || !this.#options.isOpen()) return;
    this.#reading = true;
    setImmediate(() => void this.#run());
  }

  /** Reads no more after a failure. */
  stop(): void {
    clearTimeout(this.#retry);
  }

  async #run(): Promise<void> {
    const { isOpen, hasRoom, read, onError } = this.#options;
    try {
      while (this.#more && isOpen() && hasRoom()) {
        this.#more = false;
        await read();
      }
    } catch (error) {
      onError(error);
      this.#more = true;
      this.#retry = setTimeout(() => this.wake(), RETRY_WAIT).unref();
    } finally {
      this.#reading = false;
    }
  }
}
