import { mkdir, writeFile } from 'node:fs/promises';
import { table } from '../support/measure.ts';
import type { Report } from './report.ts';

/** By the number that `npm run simulate 4` takes. */
const SIMULATIONS: Record<string, string> = {
  1: './slow-instance.ts',
  2: './backoff.ts',
  3: './two-choices.ts',
  4: './retry-storm.ts',
  5: './hedging.ts',
  6: './adaptive-concurrency.ts',
  7: './adaptive-throttle.ts',
  8: './returning-instance.ts',
  9: './partial-failure.ts',
  10: './false-openings.ts',
  11: './collapse.ts',
  12: './retry-study.ts',
  13: './metastable-failures.ts',
  14: './limiter-growth.ts',
  15: './cold-overload.ts',
  16: './throttle-recovery.ts',
};
const PLOTS = new URL('../../docs/plots/', import.meta.url);

const numbers = process.argv.slice(2);
const unknown = numbers.find((number) => !Object.hasOwn(SIMULATIONS, number));
if (unknown !== undefined) {
  console.error(
    `no simulation '${unknown}': choose from ${Object.keys(SIMULATIONS).join(', ')}, or none for all`,
  );
  process.exitCode = 1;
} else {
  await mkdir(PLOTS, { recursive: true });
  for (const number of numbers.length > 0 ? numbers : Object.keys(SIMULATIONS)) await show(number);
}

async function show(number: string): Promise<void> {
  const { report } = (await import(SIMULATIONS[number]!)) as { report: () => Promise<Report> };
  const { title, source, assumed, head, rows, plots } = await report();
  table(`${number}. ${title}`, head, rows);
  console.log(`\nPublished: ${source}. ${assumed}`);
  for (const [name, svg] of Object.entries(plots)) await writeFile(new URL(`${name}.svg`, PLOTS), svg);
}
