import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'while this process is blocked nobody is judged by what lies unread, through whichever client a call is sent.';

/** It leaves nothing to chance. */
export function run(): Promise<Row[]> {
  return rowsOfTests(new URL('./event-loop-stall/situations.test.ts', import.meta.url));
}
