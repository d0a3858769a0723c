import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about = 'a hundred thousand calls leave nothing behind in their process.';

/** It leaves nothing to chance. */
export function run(): Promise<Row[]> {
  return rowsOfTests(new URL('./leaks/situations.test.ts', import.meta.url));
}
