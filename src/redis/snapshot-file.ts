import { randomUUID } from 'node:crypto';
import { readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { isName, type ServiceInstance, toInstance } from '../discovery/service-instance.ts';
import { InvalidInstanceError } from '../errors.ts';
import { readStatus } from './registry-format.ts';

/** Milliseconds in which changes are gathered before the file is written. */
const DELAY = 5_000;
/** The most services without instances that are remembered until the file is written. */
const MAX_PENDING = 1_000;

/**
 * Keeps the last known instances of each service in a file, for a process that starts while the
 * registry is away. The file is replaced as a whole, so that a process that dies leaves the file
 * before it; several processes may share the file.
 */
export class SnapshotFile {
  readonly #path: string;
  readonly #onError: (error: unknown) => void;
  /** The instances that are not written to the file yet. */
  readonly #pending = new Map<string, readonly ServiceInstance[]>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, onError: (error: unknown) => void) {
    this.#path = path;
    this.#onError = onError;
  }

  /**
   * Reads the instances that were last known of a service; undefined if the file does not have the
   * service.
   */
  async restore(serviceName: string): Promise<readonly ServiceInstance[] | undefined> {
    const content = await this.#read();
    const list = Object.hasOwn(content, serviceName) ? content[serviceName] : undefined;
    if (!Array.isArray(list)) return undefined;
    return list.flatMap((entry) => {
      try {
        return [parseEntry(serviceName, entry)];
      } catch (error) {
        this.#onError(error);
        return [];
      }
    });
  }

  /**
   * Remembers the instances of a service. Names may come from requests, so that services without
   * instances are bounded.
   */
  remember(serviceName: string, instances: readonly ServiceInstance[]): void {
    if (instances.length === 0 && this.#pending.size >= MAX_PENDING && !this.#pending.has(serviceName))
      return;
    this.#pending.set(serviceName, instances);
    this.#timer ??= setTimeout(() => void this.flush(), DELAY).unref();
  }

  /** Writes the instances that are not written yet. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write()).catch(this.#onError);
    return this.#writing;
  }

  /** Reads the file. A file that is missing or malformed counts as empty. */
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

  /**
   * Leaves the services that did not change as they are in the file, where another process may have
   * written them.
   */
  async #write(): Promise<void> {
    if (this.#pending.size === 0) return;
    const pending = [...this.#pending];
    const content = new Map(Object.entries(await this.#read()));
    for (const [serviceName, instances] of pending) {
      // Names may come from requests: only those of services with instances are kept.
      if (instances.length > 0) content.set(serviceName, instances);
      else content.delete(serviceName);
    }
    const text = JSON.stringify(Object.fromEntries(content));
    try {
      await this.#replace(text);
      this.#forget(pending);
    } catch (error) {
      // The rest is written with the next change.
      this.#forget(pending.filter(([, instances]) => instances.length === 0));
      throw error;
    }
  }

  #forget(written: readonly (readonly [string, readonly ServiceInstance[]])[]): void {
    for (const [serviceName, instances] of written) {
      if (this.#pending.get(serviceName) === instances) this.#pending.delete(serviceName);
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
function parseEntry(serviceName: string, entry: unknown): ServiceInstance {
  const known = entry as ServiceInstance | null;
  const registration = { ...(known as ServiceInstance), serviceName, status: readStatus(known?.status) };
  if (isName(registration.instanceId)) return toInstance(registration);
  throw new InvalidInstanceError(`an instance of '${serviceName}' has no instanceId`);
}
