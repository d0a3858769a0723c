import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'whichever process dies or freezes, and wherever, each order ends completed or compensated, and no step takes effect twice.';

export function run(seed: number): Promise<Row[]> {
  process.env.TRIAL_SEED = String(seed);
  return rowsOfTests(new URL('./sagas/situations.test.ts', import.meta.url));
}
