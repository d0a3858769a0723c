import { randomUUID } from 'node:crypto';
import { readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { isName, type ServiceInstance, toInstance } from '../discovery/service-instance.ts';
import { InvalidInstanceError } from '../errors.ts';
import { readStatus } from './registry-format.ts';

/** Milliseconds in which changes are gathered before the file is written. */
const DELAY = 5_000;
const MAX_NEWS = 1_000;

/**
 * The last known instances of each service, kept in a file for a process that starts while the registry is away.
 * The file is replaced as a whole, so that a process that dies leaves the one before; several may share it.
 */
export class SnapshotFile {
  readonly #path: string;
  readonly #onError: (error: unknown) => void;
  /** What the file does not have yet. */
  readonly #news = new Map<string, readonly ServiceInstance[]>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, onError: (error: unknown) => void) {
    this.#path = path;
    this.#onError = onError;
  }

  /** What was known of the service the last time; undefined if nothing was. */
  async recall(serviceName: string): Promise<readonly ServiceInstance[] | undefined> {
    const content = await this.#read();
    const list = Object.hasOwn(content, serviceName) ? content[serviceName] : undefined;
    if (!Array.isArray(list)) return undefined;
    return list.flatMap((entry) => {
      try {
        return [recalled(serviceName, entry)];
      } catch (error) {
        this.#onError(error);
        return [];
      }
    });
  }

  /** Names may come from requests: of services without instances no more are remembered until the file is written. */
  remember(serviceName: string, instances: readonly ServiceInstance[]): void {
    if (instances.length === 0 && this.#news.size >= MAX_NEWS && !this.#news.has(serviceName)) return;
    this.#news.set(serviceName, instances);
    this.#timer ??= setTimeout(() => void this.flush(), DELAY).unref();
  }

  /** Writes what is new. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write()).catch(this.#onError);
    return this.#writing;
  }

  /** Whatever is wrong with the file, it is as if it was not there. */
  async #read(): Promise<Record<string, unknown>> {
    try {
      const content: unknown = JSON.parse(await readFile(this.#path, 'utf8'));
      if (typeof content === 'object' && content !== null) return content as Record<string, unknown>;
      throw new InvalidInstanceError(
        `${this.#path} must hold an object of lists, by the name of the service`,
      );
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#onError(error);
      return {};
    }
  }

  /** Services of which there is no news stay as they are in the file, where another process may have written them. */
  async #write(): Promise<void> {
    if (this.#news.size === 0) return;
    const news = [...this.#news];
    const content = new Map(Object.entries(await this.#read()));
    for (const [serviceName, instances] of news) {
      // Names may come from requests: only those that mean something are kept.
      if (instances.length > 0) content.set(serviceName, instances);
      else content.delete(serviceName);
    }
    const text = JSON.stringify(Object.fromEntries(content));
    try {
      await this.#replace(text);
      this.#forget(news);
    } catch (error) {
      // The rest is tried again with the next change.
      this.#forget(news.filter(([, instances]) => instances.length === 0));
      throw error;
    }
  }

  #forget(news: readonly (readonly [string, readonly ServiceInstance[]])[]): void {
    for (const [serviceName, instances] of news) {
      if (this.#news.get(serviceName) === instances) this.#news.delete(serviceName);
    }
  }

  async #replace(text: string): Promise<void> {
    const temporary = `${this.#path}.${randomUUID()}`;
    try {
      await writeFile(temporary, text, { mode: 0o600, flag: 'wx', flush: true });
      await rename(temporary, this.#path);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
  }
}

/** @throws InvalidInstanceError */
function recalled(serviceName: string, entry: unknown): ServiceInstance {
  const known = entry as ServiceInstance | null;
  const registration = { ...(known as ServiceInstance), serviceName, status: readStatus(known?.status) };
  if (isName(registration.instanceId)) return toInstance(registration);
  throw new InvalidInstanceError(`an instance of '${serviceName}' has no instanceId`);
}
