import { beforeAll, expect, vi } from 'vitest';

// No file leaves a server, a connection or a process open to the next one in the same process: what uses it would go
// on, and set its timers on the fake clock of that file. What the first hook gives is called after all others.
beforeAll(() => {
  const before = listHandles();
  return () => vi.waitFor(() => expect(listHandles(before)).toEqual([]));
});

/** Lists the servers, connections and processes that hold this process open, but for as many as `before`. */
function listHandles(before: readonly string[] = []): string[] {
  const known = [...before];
  return process.getActiveResourcesInfo().filter((kind) => {
    const index = known.indexOf(kind);
    if (index !== -1) known.splice(index, 1);
    return index === -1 && /^(TCP(Server|Socket)|Process)Wrap$/.test(kind);
  });
}
