import { fileURLToPath } from 'node:url';
import { startVitest } from 'vitest/node';
import type { Row } from './trial.ts';

const SETUP = ['./real-time.ts', './patience.ts', './end-file.ts'].map((file) =>
  fileURLToPath(new URL(file, import.meta.url)),
);

declare module 'vitest' {
  interface TaskMeta {
    /** Goes into the table of a trial. */
    measured?: string;
  }
}

/** Runs a file of tests that take too long for `npm test`. What the title of each says is required. */
export async function rowsOfTests(file: URL): Promise<Row[]> {
  const vitest = await startVitest('test', [], {
    config: false,
    watch: false,
    reporters: [],
    include: [fileURLToPath(file)],
    setupFiles: SETUP,
    pool: 'forks',
    testTimeout: 60_000,
    restoreMocks: true,
  });
  try {
    const modules = vitest.state.getTestModules();
    const errors = [...vitest.state.getUnhandledErrors(), ...modules.flatMap((module) => module.errors())];
    if (errors.length > 0) throw new AggregateError(errors, 'there were errors outside of the tests');
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    return tests.map((test) => {
      const { state, errors = [] } = test.result();
      const { measured: told = state } = test.meta();
      const measured = errors.map(({ message }) => message).join('; ') || told;
      return { situation: test.fullName, measured, required: 'passed', ok: state === 'passed' };
    });
  } finally {
    await vitest.close();
  }
}
