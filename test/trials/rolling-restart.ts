import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about = 'while all instances of a service are restarted in turn no call is lost.';

/** It leaves nothing to chance. */
export function run(): Promise<Row[]> {
  return rowsOfTests(new URL('./rolling-restart/situations.test.ts', import.meta.url));
}
