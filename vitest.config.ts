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
    'test/saga/simulation.test.ts',
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
const REDIS = select(importsOneOf(['redis', 'registry-troubles']));

/** Tests that import the helpers of Postgres. Only a run that includes one of them starts a Postgres. */
const POSTGRES = select(importsOneOf(['postgres', 'open-shop']));

/** Node's compile cache halves the time that a process takes to start. */
const NODE_COMPILE_CACHE = fileURLToPath(new URL('./node_modules/.cache/compiled-by-tests', import.meta.url));

const REQUIRE_REDIS = 'test/support/require-redis.ts';
const REQUIRE_POSTGRES = 'test/support/require-postgres.ts';
const REQUIRE_BOTH = [REQUIRE_REDIS, REQUIRE_POSTGRES];

/**
 * The settings of projects whose files share a process: see there. Most of their files wait for a third of their time,
 * so that three processes keep two cores busy. Those of the other projects measure, and have run before.
 */
const SHARED = {
  isolate: false,
  setupFiles: ['test/support/nothing-left.ts'],
  maxWorkers: 3,
  sequence: { groupOrder: 1 },
};

export default defineConfig({
  test: {
    // Vitest runs the projects in the order of their names, so the slowest begin first. Files share a process
    // (`isolate: false`) where starting one for each would take longer than running them.
    projects: [
      project('alone', without(ALONE, [...REDIS, ...POSTGRES])),
      project('alone-both', both(ALONE, both(REDIS, POSTGRES)), { globalSetup: REQUIRE_BOTH }),
      project('alone-postgres', both(ALONE, without(POSTGRES, REDIS)), { globalSetup: REQUIRE_POSTGRES }),
      project('alone-redis', both(ALONE, without(REDIS, POSTGRES)), { globalSetup: REQUIRE_REDIS }),
      project('both', without(both(REDIS, POSTGRES), ALONE), { ...SHARED, globalSetup: REQUIRE_BOTH }),
      project('logic', LOGIC, SHARED),
      project('outside', without(TESTS, [...ALONE, ...LOGIC, ...REDIS, ...POSTGRES, ...SIMULATIONS]), SHARED),
      project('postgres', without(POSTGRES, [...ALONE, ...REDIS]), {
        ...SHARED,
        globalSetup: REQUIRE_POSTGRES,
      }),
      project('redis', without(REDIS, [...ALONE, ...POSTGRES]), {
        ...SHARED,
        globalSetup: REQUIRE_REDIS,
      }),
      project('simulations', SIMULATIONS, SHARED),
    ],
    env: { NODE_COMPILE_CACHE },
    setupFiles: ['test/support/real-time.ts', 'test/support/patience.ts', 'test/support/end-file.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 15_000,
    hookTimeout: 15_000,
    restoreMocks: true,
    expect: { poll: { interval: 10, timeout: 10_000 } },
  },
});

function project(
  name: string,
  include: string[],
  settings: Partial<typeof SHARED> & { globalSetup?: string | string[] } = {},
) {
  return { extends: true as const, test: { name, include, ...settings } };
}

function select(matches: (file: string) => boolean): string[] {
  return TESTS.filter(matches);
}

/** Whether a test imports one of these helpers of test/support. */
function importsOneOf(helpers: readonly string[]) {
  const form = new RegExp(`from '(\\.\\.?/)+(support/)?(${helpers.join('|')})\\.ts'`);
  return (file: string) => form.test(readFileSync(new URL(file, import.meta.url), 'utf8'));
}

function without(files: readonly string[], others: readonly string[]): string[] {
  return files.filter((file) => !others.includes(file));
}

function both(files: readonly string[], others: readonly string[]): string[] {
  return files.filter((file) => others.includes(file));
}
