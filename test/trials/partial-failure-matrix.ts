import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'with each strategy, and however an instance fails, the calls reach the healthy ones, in simulated time.';

/** It leaves nothing to chance. */
export function run(): Promise<Row[]> {
  process.env.WHOLE_MATRIX = 'yes';
  return rowsOfTests(new URL('../client/partial-failure.matrix.test.ts', import.meta.url));
}
