const ends: (() => unknown)[] = [];

/**
 * Has `end` called after the last test of the file that runs, and after the `afterAll` of the file. It may be
 * registered in a `beforeAll`, where Vitest takes an `afterAll` and never calls it.
 */
export function onFileFinished(end: () => unknown): void {
  ends.push(end);
}

/** Calls what was registered for the file that runs, the latest first. */
export async function endFile(): Promise<void> {
  for (const end of ends.splice(0).reverse()) await end();
}
