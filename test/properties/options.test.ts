import { globSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { OPTION_TAKERS, type OptionTaker } from '../support/options.ts';

/** What no option takes. */
const NONSENSE: readonly unknown[] = [null, Number.NaN, Symbol('nonsense')];

/** It is given what others have been given, and looks at that again. */
const WITHIN = ['client/mesh-target.ts'];

async function errorOf(taker: OptionTaker, options: object): Promise<unknown> {
  try {
    await taker.make({ ...taker.required, ...options });
  } catch (error) {
    return error;
  }
  return undefined;
}

/** The names of its options, as it tells them to who gives another. */
async function optionsOf(taker: OptionTaker): Promise<string[]> {
  const error = (await errorOf(taker, { nonsense: 1 })) as Error;
  const told = /has no option 'nonsense'; its options are (.+)$/.exec(error.message);
  return told![1]!.split(', ');
}

describe.each(OPTION_TAKERS.map((taker) => [`${taker.name} (${taker.file})`, taker] as const))(
  '%s',
  (_title, taker) => {
    it('rejects an option that it does not know with a TypeError that lists those that it knows', async () => {
      const error = await errorOf(taker, { nonsense: 1 });
      expect(error).toBeInstanceOf(TypeError);
      expect((error as Error).message).toContain(`${taker.name} has no option 'nonsense'`);
    });

    it('has wrong values in the table for each of its options', async () => {
      expect(Object.keys(taker.wrong)).toEqual(expect.arrayContaining(await optionsOf(taker)));
    });

    it.each(Object.entries(taker.wrong))(
      "rejects what makes no sense as '%s' with an error that names the option",
      async (option, wrong) => {
        const allowed = taker.none?.[option] ?? [];
        for (const value of [...NONSENSE, ...wrong]) {
          const error = await errorOf(taker, { [option]: value });
          if (allowed.includes(value)) {
            expect(error).toBeUndefined();
            continue;
          }
          const shown = typeof value === 'object' ? JSON.stringify(value) : String(value);
          expect(error, `${option}: ${shown}`).toSatisfy(
            (thrown) => thrown instanceof TypeError || thrown instanceof RangeError,
          );
          const named = value !== null && typeof value === 'object' && Object.keys(value).length > 0;
          // What is wrong within the value is named itself.
          if (!named) expect((error as Error).message, `${option}: ${shown}`).toContain(option);
        }
      },
    );

    it('takes undefined for an option that is left out', async () => {
      for (const option of await optionsOf(taker)) {
        if (taker.required !== undefined && option in taker.required) continue;
        expect(await errorOf(taker, { [option]: undefined }), option).toBeUndefined();
      }
    });
  },
);

it('every place that validates options stands in the table', () => {
  const files = globSync('src/**/*.ts').filter((file) => !file.includes('internal'));
  const places = files.flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/\bvalidateOptions\(/g)].map(() =>
      file.replaceAll('\\', '/').slice(4),
    ),
  );
  expect(places.length).toBeGreaterThan(25);
  const listed = OPTION_TAKERS.map(({ file }) => file);
  for (const file of new Set(places)) {
    if (WITHIN.includes(file)) continue;
    const count = (of: readonly string[]) => of.filter((other) => other === file).length;
    expect(count(listed), `rows of test/support/options.ts for ${file}`).toBeGreaterThanOrEqual(
      count(places),
    );
  }
});
