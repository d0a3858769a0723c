import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface FollowedFileOptions {
  /** The text that is in use already. */
  accepted?: string | undefined;
  /**
   * Waits until two readings in a row have found the same text: a part of a text that is being written
   * could be a valid one.
   */
  settled?: boolean | undefined;
}

/** Bytes that a file may have. */
const MAX_SIZE = 2 ** 20;

/**
 * Reads a file of text, at most 1 MiB.
 *
 * @throws Error if it is no file, cannot be read, is larger, or is no UTF-8
 */
export async function readText(path: string): Promise<string> {
  // A pipe would be waited for without end.
  if (!(await stat(path)).isFile()) throw new TypeError(`'${path}' is not a file`);
  // One byte more than allowed shows that the file is too large.
  const chunks: Buffer[] = await createReadStream(path, { end: MAX_SIZE }).toArray();
  const bytes = Buffer.concat(chunks);
  if (bytes.length > MAX_SIZE) throw new RangeError('it is larger than 1 MiB');
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

/**
 * Reads a file again and again, so that every change is seen: the file is edited in place, replaced by
 * another, reached through a symbolic link that was swapped, or on a file system without events.
 */
export class FollowedFile {
  readonly path: string;
  readonly #onText: (text: string) => unknown;
  readonly #settled: boolean;
  #accepted: string | undefined;
  #seen: string | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #closed = false;

  /**
   * @param onText receives the text if it is another than the last accepted one, and throws if it is
   * invalid; it may be asynchronous
   */
  constructor(
    path: string | URL,
    onText: (text: string) => unknown,
    { accepted, settled = false }: FollowedFileOptions = {},
  ) {
    this.path = path instanceof URL ? fileURLToPath(path) : resolve(path);
    this.#onText = onText;
    this.#accepted = accepted;
    this.#settled = settled;
  }

  /** @throws what reading the file, or accepting its text, throws */
  async read(): Promise<void> {
    const text = await readText(this.path);
    const isSettled = !this.#settled || text === this.#seen;
    this.#seen = text;
    if (this.#closed || !isSettled || text === this.#accepted) return;
    await this.#onText(text);
    this.#accepted = text;
  }

  /**
   * Reads the file every `interval` milliseconds until this is closed, and reports a failure once while
   * it lasts. It does not hold the process open.
   */
  follow(interval: number, onFailure: (error: Error) => void): void {
    let reported: string | undefined;
    const check = async () => {
      const failure = await this.read().then(
        () => undefined,
        (error: Error) => error,
      );
      if (this.#closed) return;
      if (failure !== undefined && failure.message !== reported) onFailure(failure);
      reported = failure?.message;
      wait();
    };
    const wait = () => {
      this.#timer = setTimeout(() => void check(), interval).unref();
    };
    wait();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}
