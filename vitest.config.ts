import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/require-redis.ts'],
    pool: 'forks',
    testTimeout: 15_000,
    hookTimeout: 15_000,
    restoreMocks: true,
  },
});
