/** The data that the instances of a service share, in whatever process each of them runs. */
export interface Database {
  table<T>(name: string): Table<T>;
  /** One at a time for each key: the next action begins when the one before has ended. */
  exclusively<T>(key: string, action: () => Promise<T>): Promise<T>;
}

export interface Table<T> {
  get(key: string): Promise<T | undefined>;
  /** Adds it unless there is one with that key, in one step. Gives the one that is there then. */
  add(key: string, value: T): Promise<T>;
  /** True if there was one. */
  delete(key: string): Promise<boolean>;
  /** All of it. */
  entries(): Promise<Map<string, T>>;
}

/** For instances that share a process. */
export class MemoryDatabase implements Database {
  readonly #tables = new Map<string, Map<string, unknown>>();
  /** For each key the end of the action that was asked for last. */
  readonly #ends = new Map<string, Promise<unknown>>();

  table<T>(name: string): Table<T> {
    const rows = (this.#tables.get(name) ?? new Map()) as Map<string, T>;
    this.#tables.set(name, rows);
    return {
      get: async (key) => rows.get(key),
      async add(key, value) {
        if (!rows.has(key)) rows.set(key, value);
        return rows.get(key)!;
      },
      delete: async (key) => rows.delete(key),
      entries: async () => new Map(rows),
    };
  }

  async exclusively<T>(key: string, action: () => Promise<T>): Promise<T> {
    const before = this.#ends.get(key) ?? Promise.resolve();
    const result = before.then(action);
    const end = result.catch(() => {});
    this.#ends.set(key, end);
    try {
      return await result;
    } finally {
      if (this.#ends.get(key) === end) this.#ends.delete(key);
    }
  }
}
