import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/require-redis.ts'],
    pool: 'forks',
    // More than there are cores: many tests wait for other processes.
    maxWorkers: 3,
    testTimeout: 5_000,
    hookTimeout: 5_000,
    restoreMocks: true,
  },
});
