import { rowsOfTests } from '../support/tests-as-trial.ts';
import type { Row } from '../support/trial.ts';

export const about = 'many calls, also cancelled ones, leave nothing behind in their process.';

/** It leaves nothing to chance. */
export async function run(): Promise<Row[]> {
  process.env.MANY_CALLS = 'yes';
  const files = ['./leaks/situations.test.ts', '../client/relay-leaks.test.ts'];
  const rows: Row[] = [];
  for (const file of files) rows.push(...(await rowsOfTests(new URL(file, import.meta.url))));
  return rows;
}
