import { DiscoveryUnavailableError } from '../errors.ts';
import { FollowedFile } from '../internal/followed-file.ts';

/** Reads a file of JSON again and again, so that every change is seen. */
export class JsonFile {
  readonly #file: FollowedFile;

  /**
   * @param onContent receives the content if it is another than the last accepted one, and throws
   * if it is invalid.
   */
  constructor(path: string | URL, onContent: (content: unknown) => void) {
    this.#file = new FollowedFile(path, (text) => onContent(JSON.parse(text)));
  }

  get path(): string {
    return this.#file.path;
  }

  /**
   * Reads the file.
   *
   * @throws DiscoveryUnavailableError naming the file and what is wrong with it.
   */
  async read(): Promise<void> {
    try {
      await this.#file.read();
    } catch (cause) {
      throw this.#toError(cause as Error);
    }
  }

  /**
   * Reads the file every `interval` milliseconds until this is closed, and reports a failure once
   * while it lasts.
   */
  follow(interval: number, onFailure: (error: DiscoveryUnavailableError) => void): void {
    this.#file.follow(interval, (cause) => onFailure(this.#toError(cause)));
  }

  close(): void {
    this.#file.close();
  }

  #toError(cause: Error): DiscoveryUnavailableError {
    return new DiscoveryUnavailableError(`the instances in '${this.path}' cannot be used: ${cause.message}`, {
      cause,
    });
  }
}
