import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DiscoveryUnavailableError } from '../errors.ts';

/** Bytes: room for some 40,000 origins. */
const MAX_SIZE = 2 ** 20;

/**
 * Reads a file of JSON again and again, so that every change is seen: the file is edited in place,
 * replaced by another, reached through a symbolic link that was swapped, or on a file system
 * without events.
 */
export class JsonFile {
  readonly path: string;
  readonly #onContent: (content: unknown) => void;
  #accepted: string | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #closed = false;

  /**
   * @param onContent receives the content if it is another than the last accepted one, and throws
   * if it is invalid.
   */
  constructor(path: string | URL, onContent: (content: unknown) => void) {
    this.path = path instanceof URL ? fileURLToPath(path) : resolve(path);
    this.#onContent = onContent;
  }

  /**
   * Reads the file.
   *
   * @throws DiscoveryUnavailableError naming the file and what is wrong with it.
   */
  async read(): Promise<void> {
    try {
      const text = await readText(this.path);
      if (this.#closed || text === this.#accepted) return;
      this.#onContent(JSON.parse(text));
      this.#accepted = text;
    } catch (cause) {
      throw new DiscoveryUnavailableError(
        `the instances in '${this.path}' cannot be used: ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  /**
   * Reads the file every `interval` milliseconds until this is closed, and reports a failure once
   * while it lasts.
   */
  follow(interval: number, onFailure: (error: DiscoveryUnavailableError) => void): void {
    let reported: string | undefined;
    const check = async () => {
      const failure = await this.read().then(
        () => undefined,
        (error: DiscoveryUnavailableError) => error,
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

async function readText(path: string): Promise<string> {
  // One byte more than allowed shows that the file is too large.
  const chunks: Buffer[] = await createReadStream(path, { end: MAX_SIZE }).toArray();
  const bytes = Buffer.concat(chunks);
  if (bytes.length > MAX_SIZE) throw new RangeError('it is larger than 1 MiB');
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}
