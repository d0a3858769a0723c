import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** What is pure logic. */
const LOGIC = ['policies', 'balancing', 'internal', 'simulations'].map((room) => `test/${room}/**/*.test.ts`);

/** What looks at its process as a whole, or changes it: its memory, what holds it, the dispatcher of all fetches. */
const ALONE = [
  'test/integration/**/*.test.ts',
  'test/client/{create-fetch,fetched-response,mesh-dispatcher,relay-leaks}.test.ts',
  'test/middleware/{http-agent,http-agent-nock,nock}.test.ts',
];

/** It halves the time that a process takes to start. */
const NODE_COMPILE_CACHE = fileURLToPath(new URL('./node_modules/.cache/compiled-by-tests', import.meta.url));

export default defineConfig({
  test: {
    // In the order of their names: what takes longest begins first. Where files share a process, it is since each
    // would take longer to start one than to run.
    projects: [
      { extends: true, test: { name: 'alone', include: ALONE } },
      { extends: true, test: { name: 'logic', include: LOGIC, isolate: false } },
      {
        extends: true,
        test: {
          name: 'outside',
          include: ['test/**/*.test.ts'],
          exclude: [...ALONE, ...LOGIC, 'test/trials/**'],
          isolate: false,
        },
      },
    ],
    env: { NODE_COMPILE_CACHE },
    globalSetup: ['test/support/require-redis.ts'],
    setupFiles: ['test/support/real-time.ts', 'test/support/patience.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 15_000,
    hookTimeout: 15_000,
    restoreMocks: true,
  },
});
