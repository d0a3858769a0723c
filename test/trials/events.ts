import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'no event is lost, none overtakes another of its aggregate, and with an inbox each has its effect once, though consumers are killed and Redis restarts.';

export function run(seed: number): Promise<Row[]> {
  process.env.TRIAL_SEED = String(seed);
  return rowsOfTests(new URL('./events/situations.test.ts', import.meta.url));
}
