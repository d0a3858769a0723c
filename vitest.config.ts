import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const TESTS = globSync('test/**/*.test.ts', { cwd: import.meta.dirname })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => !file.startsWith('test/trials/'));

const startsWithOneOf = (folders: readonly string[]) => (file: string) =>
  folders.some((folder) => file.startsWith(folder));

/** Pure logic, but with minutes of simulated load or thousands of instances, which takes seconds. */
const SIMULATIONS = select(
  startsWithOneOf([
    'test/simulations/',
    'test/balancing/subsetting.test.ts',
    ...['consistent-hash', 'hash-ring', 'weighted-round-robin'].map(
      (name) => `test/balancing/strategies/${name}.test.ts`,
    ),
  ]),
);

/** Tests of pure logic: they open no socket and start no process. `npm run check` runs them alone. */
const LOGIC = without(select(startsWithOneOf(['test/policies/', 'test/balancing/', 'test/internal/'])), [
  ...SIMULATIONS,
  'test/policies/process-exit.test.ts',
  'test/policies/stack.test.ts',
]);

/** Tests that measure or change their whole process: its memory, its open handles, the dispatcher of all fetches. */
const ALONE = select(
  startsWithOneOf([
    'test/integration/',
    'test/policies/stack.test.ts',
    ...['create-fetch', 'fetched-response', 'mesh-dispatcher', 'relay-leaks'].map(
      (name) => `test/client/${name}.test.ts`,
    ),
    ...['http-agent', 'http-agent-nock', 'nock'].map((name) => `test/middleware/${name}.test.ts`),
  ]),
);

/** Tests that import the helpers of Redis. Only a run that includes one of them starts a Redis, or installs it. */
const REDIS = select((file) =>
  /from '(\.\.?\/)+(support\/)?(redis|registry-troubles)\.ts'/.test(
    readFileSync(new URL(file, import.meta.url), 'utf8'),
  ),
);

/** Node's compile cache halves the time that a process takes to start. */
const NODE_COMPILE_CACHE = fileURLToPath(new URL('./node_modules/.cache/compiled-by-tests', import.meta.url));

const REQUIRE_REDIS = 'test/support/require-redis.ts';

export default defineConfig({
  test: {
    // Vitest runs the projects in the order of their names, so the slowest begin first. Files share a process
    // (`isolate: false`) where starting one for each would take longer than running them.
    projects: [
      project('alone', without(ALONE, REDIS)),
      project('alone-redis', both(ALONE, REDIS), { globalSetup: REQUIRE_REDIS }),
      project('logic', LOGIC, { isolate: false }),
      project('outside', without(TESTS, [...ALONE, ...LOGIC, ...REDIS, ...SIMULATIONS]), { isolate: false }),
      project('redis', without(REDIS, ALONE), { isolate: false, globalSetup: REQUIRE_REDIS }),
      project('simulations', SIMULATIONS, { isolate: false }),
    ],
    env: { NODE_COMPILE_CACHE },
    setupFiles: ['test/support/real-time.ts', 'test/support/patience.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 15_000,
    hookTimeout: 15_000,
    restoreMocks: true,
  },
});

function project(
  name: string,
  include: string[],
  settings: { isolate?: boolean; globalSetup?: string } = {},
) {
  return { extends: true as const, test: { name, include, ...settings } };
}

function select(matches: (file: string) => boolean): string[] {
  return TESTS.filter(matches);
}

function without(files: readonly string[], others: readonly string[]): string[] {
  return files.filter((file) => !others.includes(file));
}

function both(files: readonly string[], others: readonly string[]): string[] {
  return files.filter((file) => others.includes(file));
}
