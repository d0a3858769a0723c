/**
 * Runs the trials, each of which is a file in this folder: what takes minutes, real processes and real sockets.
 *
 *     npm run trials                        all of them
 *     npm run trials -- NAME [--seed N]     one, with the chance of an earlier run
 */
import { randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { table } from '../../bench/support/measure.ts';
import type { Row, Trial } from '../support/trial.ts';

/** Milliseconds that a trial may take. */
const LIMIT = 5 * 60_000;
const USAGE = 'Usage: npm run trials [-- NAME... [--seed N]]';

const known = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.ts') && file !== 'run.ts')
  .map((file) => file.slice(0, -'.ts'.length));
const { names, seed } = readArguments();
for (const name of names) {
  const passed = await runTrial(name, seed ?? randomInt(2 ** 31));
  if (!passed) process.exitCode = 1;
}

function readArguments(): { names: string[]; seed: number | undefined } {
  try {
    const options = { seed: { type: 'string' } } as const;
    const { values, positionals } = parseArgs({ allowPositionals: true, options });
    const unknown = positionals.find((name) => !known.includes(name));
    if (unknown !== undefined) throw new Error(`no trial '${unknown}': choose from ${known.join(', ')}`);
    const seed = values.seed === undefined ? undefined : Number(values.seed);
    if (seed !== undefined && !Number.isSafeInteger(seed)) throw new Error('a seed is a whole number');
    return { names: positionals.length > 0 ? positionals : known, seed };
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    process.exit(2);
  }
}

/** True if every row has what it requires. A trial that takes too long ends the process. */
async function runTrial(name: string, seed: number): Promise<boolean> {
  const { about, run } = (await import(`./${name}.ts`)) as Trial;
  console.log(`\n${name}, with the seed ${seed}: ${about}`);
  const limit = setTimeout(() => {
    console.error(`\n${name} has not ended within ${LIMIT / 60_000} minutes (seed ${seed}).`);
    process.exit(1);
  }, LIMIT);
  const begun = performance.now();
  let rows: Row[];
  try {
    rows = await run(seed);
  } catch (error) {
    console.error(`\n${name} could not be run to its end (seed ${seed}):`, error);
    return false;
  } finally {
    clearTimeout(limit);
  }
  const missed = rows.filter(({ ok }) => !ok);
  table(
    name,
    ['situation', 'measured', 'required', 'ok'],
    rows.map(({ situation, measured, required, ok }) => [situation, measured, required, ok ? 'yes' : 'NO']),
  );
  const seconds = ((performance.now() - begun) / 1000).toFixed(0);
  console.log(`\n${rows.length - missed.length} of ${rows.length} as required. It took ${seconds} s.`);
  return missed.length === 0;
}
