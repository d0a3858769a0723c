/**
 * Gives what all copies of the package in this process share: the ESM and the CommonJS build where both are
 * loaded, and what two packages have installed, each for itself. The first copy that asks makes it.
 *
 * The copies may be of different releases: what has another form needs another name.
 */
export function processState<T>(name: string, make: () => T): T {
  const key = Symbol.for(`holdfast.${name}`);
  const states = globalThis as unknown as Record<symbol, T | undefined>; // Only this function sets such a key.
  states[key] ??= make();
  return states[key];
}
