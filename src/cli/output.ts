import { CommandError } from './command-error.ts';
import type { OutputStream } from './command-io.ts';

/**
 * Writes to standard output. Its reader may go away at any time, as `head` does, which is no error.
 */
export class Output {
  readonly stream: OutputStream;
  readonly #closed = new AbortController();
  #failure: Error | undefined = undefined;

  constructor(stream: OutputStream) {
    this.stream = stream;
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') this.#failure ??= error;
      this.#closed.abort();
    });
  }

  /** The signal that is aborted when nothing can be written any more. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  write(text: string): void {
    if (!this.closed.aborted) this.stream.write(text);
  }

  writeLines(lines: readonly string[]): void {
    this.write(lines.map((line) => `${line}\n`).join(''));
  }

  /**
   * Waits until everything is written.
   *
   * @throws CommandError if something could not be written, unless the reader has gone away.
   */
  async finish(): Promise<void> {
    if (!this.closed.aborted) await new Promise((resolve) => this.stream.write('', resolve));
    if (this.#failure === undefined) return;
    throw new CommandError(`the output cannot be written: ${this.#failure.message}`, {
      cause: this.#failure,
    });
  }
}
