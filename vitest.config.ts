import { defineConfig } from 'vitest/config';

/** What has no sockets, processes or state of a module: its files share a process, as each would take longer to start than to run. */
const LOGIC = ['policies', 'balancing', 'internal', 'simulations'].map((room) => `test/${room}/**/*.test.ts`);

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: 'logic', include: LOGIC, isolate: false } },
      { extends: true, test: { name: 'outside', include: ['test/**/*.test.ts'], exclude: LOGIC } },
    ],
    globalSetup: ['test/support/require-redis.ts'],
    setupFiles: ['test/support/real-time.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 15_000,
    hookTimeout: 15_000,
    restoreMocks: true,
  },
});
