import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'a gateway loses no request while services restart and it is reloaded, and keeps nothing of clients that leave.';

export function run(seed: number): Promise<Row[]> {
  process.env.TRIAL_SEED = String(seed);
  return rowsOfTests(new URL('./gateway/situations.test.ts', import.meta.url));
}
