import { readFile, rename, writeFile } from 'node:fs/promises';
import { type ServiceInstance, toInstance } from '../discovery/service-instance.ts';
import { InvalidInstanceError } from '../errors.ts';

/** Milliseconds in which changes are gathered before the file is written. */
const DELAY = 1_000;

/**
 * The last known instances of each service, kept in a file for a process that starts while the registry is away.
 * The file is replaced as a whole, so that a process that dies leaves the one before.
 */
export class SnapshotFile {
  readonly #path: string;
  readonly #services = new Map<string, readonly ServiceInstance[]>();
  readonly #onError: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined = undefined;
  #earlier: Promise<Record<string, unknown>> | undefined = undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, onError: (error: unknown) => void) {
    this.#path = path;
    this.#onError = onError;
  }

  /** What an earlier process knew of the service; undefined if it did not know it. */
  async recall(serviceName: string): Promise<readonly ServiceInstance[] | undefined> {
    const list = Object.entries(await this.#read()).find(([name]) => name === serviceName)?.[1];
    if (!Array.isArray(list)) return undefined;
    return list.flatMap((entry) => {
      try {
        return [toInstance({ ...entry, serviceName })];
      } catch (error) {
        this.#onError(error);
        return [];
      }
    });
  }

  remember(serviceName: string, instances: readonly ServiceInstance[]): void {
    this.#services.set(serviceName, instances);
    this.#timer ??= setTimeout(() => void this.flush(), DELAY).unref();
  }

  /** Writes what is new. */
  flush(): Promise<void> {
    const news = this.#timer !== undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (news) this.#writing = this.#writing.then(() => this.#write()).catch(this.#onError);
    return this.#writing;
  }

  #read(): Promise<Record<string, unknown>> {
    this.#earlier ??= this.#parse().catch((error) => {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#onError(error);
      return {};
    });
    return this.#earlier;
  }

  async #parse(): Promise<Record<string, unknown>> {
    const content: unknown = JSON.parse(await readFile(this.#path, 'utf8'));
    if (typeof content === 'object' && content !== null) return content as Record<string, unknown>;
    throw new InvalidInstanceError(`${this.#path} must hold an object of lists, by the name of the service`);
  }

  /** Services that were not asked for this time stay as an earlier process left them. */
  async #write(): Promise<void> {
    const content = { ...(await this.#read()), ...Object.fromEntries(this.#services) };
    const temporary = `${this.#path}.${process.pid}`;
    await writeFile(temporary, JSON.stringify(content), { mode: 0o600 });
    await rename(temporary, this.#path);
  }
}
