import { globSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/errors.ts';
import * as holdfast from '../../src/index.ts';
import * as postgres from '../../src/postgres/index.ts';
import * as redis from '../../src/redis/index.ts';
import {
  A_MAP,
  CALL_TAKERS,
  ELSEWHERE,
  OPTION_TAKERS,
  type OptionTaker,
  TAKES_MAPS,
  WITHOUT_FIELDS,
  WITHOUT_OPTIONS,
} from '../support/options.ts';

/** Values that no option takes. */
const NONSENSE: readonly unknown[] = [null, Number.NaN, Symbol('nonsense'), Promise.resolve({})];

/** Stands for a promise that rejects, which nobody else handles. */
const REJECTING = Symbol('rejecting');

/** Text that would write further lines into a log, colour a terminal, or fill either. */
const HOSTILE = `a\r\n\u001b[31m\u202e\u2028${'b'.repeat(5_000)}`;

/** It is given what others have been given, and looks at that again. */
const WITHIN = [
  'client/mesh-target.ts',
  // test/middleware/server/rate-limit and test/gateway/config try these.
  'middleware/server/rate-limit/gcra.ts',
  'middleware/server/rate-limit/in-memory-rate-limit-store.ts',
  'gateway/config/gateway-file.ts',
];

/** The entries of the package. */
const ENTRIES = { 'src/index.ts': holdfast, 'src/redis/index.ts': redis, 'src/postgres/index.ts': postgres };

/** Numbers of which each option that takes a number takes one. */
const NUMBERS = [0.5, 1, 2, 20, 200, 1_000];

/** The error of the check; undefined if the options pass, or fail as valid ones do. */
function errorOf(taker: OptionTaker, options: object): Promise<Error | undefined> {
  return errorOfMaking(taker, { ...taker.required, ...options });
}

async function errorOfMaking(taker: OptionTaker, options: object): Promise<Error | undefined> {
  try {
    const made = await taker.make(options);
    await (made as { close?(): unknown } | undefined)?.close?.();
  } catch (thrown) {
    const error = toHoldfast(thrown as Error);
    return taker.fails !== undefined && (error as HoldfastError).code === taker.fails ? undefined : error;
  }
  return undefined;
}

/** fetch, and what is built on it, says that it failed, and why as the cause. */
function toHoldfast(error: Error): Error {
  const causes = [error.cause, (error.cause as Error | undefined)?.cause];
  return causes.find((cause) => cause instanceof HoldfastError) ?? error;
}

/** The options of a call stand beside what the call is, in an object that the table makes. */
function isCall({ type }: OptionTaker): boolean {
  return CALL_TAKERS.some((taker) => taker.type === type);
}

function isRejection(taker: OptionTaker, error: unknown): boolean {
  if (taker.rejects !== undefined) return (error as HoldfastError | undefined)?.code === taker.rejects;
  return error instanceof TypeError || error instanceof RangeError;
}

/** The names of its options, as it tells them to who gives another. */
async function optionsOf(taker: OptionTaker): Promise<string[]> {
  if (taker.ignoresOthers) return Object.keys(taker.wrong);
  const error = await errorOf(taker, { nonsense: 1 });
  const told = /(?:its options are|: a call has|its fields are|only its) ([\w, ]+)/.exec(error!.message);
  return told![1]!.split(', ').filter((name) => !taker.tells?.includes(name));
}

function shown(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

describe.each(
  OPTION_TAKERS.map((taker) => [`${taker.name}, of ${taker.of}, as ${taker.type}`, taker] as const),
)('%s', (_title, taker) => {
  it.skipIf(taker.ignoresOthers)(
    'rejects an option that it does not know with an error that lists those that it knows',
    async () => {
      const error = await errorOf(taker, { nonsense: 1 });
      expect(error).toSatisfy((thrown) => isRejection(taker, thrown));
      expect(error!.message).toMatch(/nonsense/);
      if (taker.rejects === undefined)
        expect(error!.message).toContain(`${taker.name} has no option 'nonsense'`);
    },
  );

  it.runIf(taker.ignoresOthers)(
    'ignores what may be an option of the client that it stands in for',
    async () => {
      expect(await errorOf(taker, { nonsense: 1 })).toBeUndefined();
    },
  );

  it('has wrong values in the table for each of its options, and for no other', async () => {
    expect(Object.keys(taker.wrong).sort()).toEqual((await optionsOf(taker)).sort());
  });

  it.each(Object.entries(taker.wrong))(
    "rejects what makes no sense as '%s' with an error that names the option",
    async (option, wrong) => {
      const allowed = taker.none?.[option] ?? [];
      const maps = TAKES_MAPS.includes(option) ? [] : [A_MAP];
      const nonsense = [...NONSENSE, ...maps, ...(taker.file === undefined ? [] : [REJECTING])];
      for (const item of [...nonsense, ...wrong]) {
        const value = item === REJECTING ? Promise.reject(new Error('late')) : item;
        const error = await errorOf(taker, { [option]: value });
        if (allowed.includes(value)) {
          expect(error, `${option}: ${shown(value)}`).toBeUndefined();
          continue;
        }
        expect(error, `${option}: ${shown(value)}`).toSatisfy((thrown) => isRejection(taker, thrown));
        const named = value !== null && typeof value === 'object' && Object.keys(value).length > 0;
        // What is wrong within the value is named itself.
        if (!named) expect(error!.message, `${option}: ${shown(value)}`).toContain(option);
      }
    },
  );

  it('shows text in its errors on one line, without control characters, and cut', async () => {
    for (const options of [
      { [HOSTILE]: 1 },
      ...Object.keys(taker.wrong).flatMap((option) =>
        [HOSTILE, [HOSTILE], { [HOSTILE]: HOSTILE }].map((value) => ({ [option]: value })),
      ),
    ]) {
      const error = await errorOf(taker, options);
      // Node writes the errors of its own as it likes.
      const message = error === undefined || 'syscall' in error ? '' : error.message;
      expect(message).not.toMatch(/[\p{Cc}\p{Cf}\u2028]/u);
      expect(message).not.toContain('b'.repeat(201));
    }
  });

  it.runIf(taker.rejects === undefined).each(Object.entries(taker.wrong))(
    "tells a wrong type of '%s' from a number out of range by the class of the error",
    async (option, wrong) => {
      const numbers = await Promise.all(NUMBERS.map((value) => errorOf(taker, { [option]: value })));
      // It may take no number alone, without another option.
      const numeric = numbers.some((error) => !error?.message.includes(option));
      for (const value of [...NONSENSE, ...wrong]) {
        if (taker.none?.[option]?.includes(value)) continue;
        // What is wrong within the value may be another option, with a type of its own.
        if (typeof value === 'object' && value !== null && Object.keys(value).length > 0) continue;
        const error = await errorOf(taker, { [option]: value });
        const expected = numeric && typeof value === 'number' ? RangeError : TypeError;
        expect(error, `${option}: ${shown(value)}`).toBeInstanceOf(expected);
      }
    },
  );

  it.skipIf(isCall(taker))(
    'rejects, in place of its options, an object that has no fields of its own',
    async () => {
      // The context of a call may come from elsewhere, with getters: it is read by name.
      const readByName = taker.type === 'CallOptions';
      for (const object of WITHOUT_FIELDS) {
        if (readByName && !(Symbol.iterator in object || object instanceof Promise)) continue;
        const error = await errorOfMaking(taker, object);
        const kind = object.constructor.name;
        expect(error, kind).toSatisfy((thrown) => thrown instanceof TypeError || isRejection(taker, thrown));
        if (taker.rejects === undefined) {
          expect(error!.message, kind).toMatch(/got an? (?:list|Map|Set|Date|Hiding)$|must not be a promise/);
        }
      }
    },
  );

  it.skipIf(isCall(taker))(
    'takes its options from an instance of a class, and from one of none',
    async () => {
      class Own {
        constructor() {
          Object.assign(this, taker.required);
        }
      }
      if (taker.required !== undefined) expect(await errorOfMaking(taker, new Own())).toBeUndefined();
      const bare = Object.assign(Object.create(null), taker.required) as object;
      expect(await errorOfMaking(taker, bare)).toBeUndefined();
    },
  );

  it('takes undefined for an option that is left out', async () => {
    for (const option of await optionsOf(taker)) {
      if (taker.required !== undefined && option in taker.required) continue;
      expect(await errorOf(taker, { [option]: undefined }), option).toBeUndefined();
    }
  });
});

/** Where options are looked at, below src/, once for each time that it is done there. */
function placesThatValidate(): string[] {
  return globSync('src/**/*.ts').flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/(?<!function )\bvalidateOptions\(/g)].map(() =>
      file.replaceAll('\\', '/').slice(4),
    ),
  );
}

it('every place that validates options stands in the table', () => {
  const places = placesThatValidate();
  expect(places.length).toBeGreaterThan(40);
  const listed = OPTION_TAKERS.map(({ file }) => file);
  for (const file of new Set(places)) {
    if (WITHIN.includes(file)) continue;
    const count = (of: readonly (string | undefined)[]) => of.filter((other) => other === file).length;
    expect(count(listed), `rows of test/support/options.ts for ${file}`).toBeGreaterThanOrEqual(
      count(places),
    );
  }
});

it.each(Object.entries(ENTRIES))(
  'every class and function that %s exports stands in the table',
  (_path, entry) => {
    const rows = new Set(OPTION_TAKERS.map(({ of }) => of));
    const missing: string[] = [];
    for (const [name, value] of Object.entries(entry)) {
      if (typeof value !== 'function' || value.prototype instanceof HoldfastError) continue;
      const listed = Number(rows.has(name)) + Number(WITHOUT_OPTIONS.includes(name));
      if (listed !== 1) missing.push(name);
    }
    expect(missing).toEqual([]);
  },
);

it.each(Object.keys(ENTRIES))('every type of options that %s exports stands in the table', (path) => {
  const source = readFileSync(path, 'utf8');
  const types = new Set(
    [...source.matchAll(/\b\w+(?:Options|Init|Call|Registration|Changes)\b/g)].map(String),
  );
  expect(types.size).toBeGreaterThan(1);
  const known = new Set<string>([...OPTION_TAKERS.map(({ type }) => type), ...Object.keys(ELSEWHERE)]);
  expect([...types].filter((type) => !known.has(type))).toEqual([]);
});
