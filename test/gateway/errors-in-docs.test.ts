import { globSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');

/** The codes of the problem documents in the source, each with its statuses. */
function codesInSource(): Map<string, Set<string>> {
  const codes = new Map<string, Set<string>>();
  const add = (code: string, status: string) => codes.set(code, (codes.get(code) ?? new Set()).add(status));
  for (const path of globSync('src/gateway/**/*.ts', { cwd: root })) {
    for (const [, status, code] of read(path).matchAll(/new Rejection\(\s*(\d{3}),\s*'([\w-]+)'/g)) {
      add(code!, status!);
    }
  }
  for (const [, status, code] of read('src/gateway/problem.ts').matchAll(
    /status: (\d{3}),\s*code: '([\w-]+)'/g,
  )) {
    add(code!, status!);
  }
  return codes;
}

it('docs/gateway.md lists the codes of all problem documents, with their statuses', () => {
  const docs = read('docs/gateway.md');
  const table = docs.slice(docs.indexOf('## Errors'), docs.indexOf('## When things fail'));
  const listed = [...table.matchAll(/^\| (`[^|]*`) +\| ([\d, ]+?) +\|/gm)].flatMap(([, codes, statuses]) =>
    codes!.split(', ').map((code) => [code.replaceAll('`', ''), statuses!.split(', ').sort()]),
  );
  const expected = Array.from(codesInSource(), ([code, statuses]) => [code, [...statuses].sort()]);
  expect(expected.length).toBeGreaterThan(20);
  expect(listed.sort()).toEqual(expected.sort());
});
