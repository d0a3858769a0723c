import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import * as errors from '../src/errors.ts';

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');

it('docs/errors.md lists every code with the class that has it', () => {
  const source = read('src/errors.ts');
  const listed = [...read('docs/errors.md').matchAll(/^\| `(ERR_\w+)` +\| `(\w+)` +\|/gm)];
  const codes = [
    ...source
      .slice(source.indexOf('export type ErrorCode'))
      .split(';', 1)[0]!
      .matchAll(/'(ERR_\w+)'/g),
  ].map(([, code]) => code);
  expect(codes.length).toBeGreaterThan(30);
  expect(listed.map(([, code]) => code).sort()).toEqual(codes.sort());
  for (const [, code, name] of listed) {
    const declared = source
      .slice(source.indexOf(`class ${name} extends`))
      .match(/declare readonly code: '(\w+)'/);
    expect(errors).toHaveProperty(name!);
    expect([name, declared?.[1]]).toEqual([name, code]);
  }
});
