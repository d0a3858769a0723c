import { globSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = new URL('../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');
const { exports, files, types, typesVersions } = JSON.parse(read('package.json'));

/** Files that npm packs whatever `files` says. */
const ALWAYS = ['README.md', 'LICENSE', 'package.json'];

const entries = Object.entries<Record<string, unknown>>(exports).filter(([path]) => !path.endsWith('.json'));

describe.each(entries)('the entry %s of the package', (path, conditions) => {
  const name = path === '.' ? 'index' : path.slice('./'.length);
  const typesOf = (ending: string) => `./dist/${name}.d.${ending}`;

  it('the entry %s has an ESM and a CommonJS build with types, and Node takes the ESM one for both', () => {
    expect(Object.entries(conditions)).toEqual([
      ['import', { types: typesOf('ts'), default: `./dist/${name}.js` }],
      ['module-sync', `./dist/${name}.js`],
      ['require', { types: typesOf('cts'), default: `./dist/${name}.cjs` }],
    ]);
  });

  it('the entry %s has types where a compiler does not know exports', () => {
    const given = path === '.' ? [types] : typesVersions['*'][name];
    expect(given).toEqual([typesOf('ts')]);
  });
});

it.each(['README.md', 'CHANGELOG.md', 'ARCHITECTURE.md', 'examples/README.md', ...globSync('docs/*.md')])(
  'the links of %s lead to what is in the package',
  (document) => {
    const targets = [...read(document).matchAll(/\]\((?!https?:|#)([^)\s#]+)/g)].map(([, target]) => target!);
    const paths = targets.map((target) => posix.join(posix.dirname(document), target));
    const packed = [...ALWAYS, ...files];
    expect(paths.filter((path) => !packed.some((own) => path === own || path.startsWith(`${own}/`)))).toEqual(
      [],
    );
  },
);
