import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'a Redis that is full, evicts keys, cuts clients off or takes no writes costs no client a live instance.';

/** It leaves nothing to chance. */
export function run(): Promise<Row[]> {
  return rowsOfTests(new URL('./registry-trouble/situations.test.ts', import.meta.url));
}
