interface Shared {
  users: number;
  readonly started: Promise<{ stop(): Promise<void> }>;
}

// Vitest evaluates the modules of a global setup anew for each project.
const store = globalThis as { [key: symbol]: unknown };
const KEY = Symbol.for('holdfast.shared-by-global-setups');
store[KEY] ??= new Map<string, Shared>();
const shared = store[KEY] as Map<string, Shared>;

/**
 * Starts what the global setups of all projects share, the first time. What this gives stops it when each of them
 * has called it.
 */
export async function startOncePerRun<T extends { stop(): Promise<void> }>(
  name: string,
  start: () => Promise<T>,
): Promise<T> {
  const entry = shared.get(name) ?? { users: 0, started: start() };
  shared.set(name, entry);
  entry.users++;
  const started = (await entry.started) as T;
  return {
    ...started,
    stop: async () => {
      if (--entry.users > 0) return;
      shared.delete(name);
      await started.stop();
    },
  };
}
