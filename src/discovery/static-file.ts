import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DiscoveryUnavailableError } from '../errors.ts';

/** In bytes: some 40,000 origins. */
const MAX_SIZE = 2 ** 20;

/**
 * A file of JSON that is read again and again, so that no way in which a file can change goes unseen: edited in
 * place, replaced by another, reached through a symbolic link that was swapped, or on a file system without events.
 */
export class JsonFile {
  readonly path: string;
  readonly #take: (content: unknown) => void;
  #taken: string | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #closed = false;

  /** @param take Is given the content if it is another than the last that was taken; throws if that is no good. */
  constructor(path: string | URL, take: (content: unknown) => void) {
    this.path = path instanceof URL ? fileURLToPath(path) : resolve(path);
    this.#take = take;
  }

  /** @throws DiscoveryUnavailableError naming the file and what is wrong with it. */
  async read(): Promise<void> {
    try {
      const text = await textOf(this.path);
      if (this.#closed || text === this.#taken) return;
      this.#take(JSON.parse(text));
      this.#taken = text;
    } catch (cause) {
      throw new DiscoveryUnavailableError(
        `the instances in '${this.path}' cannot be used: ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  /** Reads it every `interval` milliseconds until it is closed, and tells of a failure once while it lasts. */
  follow(interval: number, failed: (error: DiscoveryUnavailableError) => void): void {
    let told: string | undefined;
    const look = async () => {
      const failure = await this.read().then(
        () => undefined,
        (error: DiscoveryUnavailableError) => error,
      );
      if (this.#closed) return;
      if (failure !== undefined && failure.message !== told) failed(failure);
      told = failure?.message;
      wait();
    };
    const wait = () => {
      this.#timer = setTimeout(() => void look(), interval).unref();
    };
    wait();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}

async function textOf(path: string): Promise<string> {
  // One byte more than is allowed, to see that there is more.
  const chunks: Buffer[] = await createReadStream(path, { end: MAX_SIZE }).toArray();
  const bytes = Buffer.concat(chunks);
  if (bytes.length > MAX_SIZE) throw new RangeError('it is larger than 1 MiB');
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}
