import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { rooms } from '../scripts/check-imports.ts';

const root = new URL('../', import.meta.url);

/** Paths in code spans and links, such as `src/errors.ts` and [docs](docs/policies.md#retry). */
function pathsIn(text: string): string[] {
  const spans = [...text.matchAll(/`([^`\n]+)`/g)].map(([, span]) => span!);
  const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
  // A placeholder stands in `src/policies/<name>.ts`.
  const isPath = (span: string) =>
    /^(\.ci|src|test|bench|docs|examples|scripts)(\/|$)/.test(span) && !span.includes('<');
  const isFile = (target: string) => !/^(https?:|#)/.test(target);
  return [...spans.filter(isPath), ...links.filter(isFile)].map((path) => path.replace(/#.*$/, ''));
}

describe.each(['ARCHITECTURE.md', 'CONTRIBUTING.md', 'docs/glossary.md'])('the paths of %s', (document) => {
  const folder = new URL(document, root);
  const paths = pathsIn(readFileSync(folder, 'utf8'));

  it(`${document} names only files that exist in the repository`, () => {
    const missing = paths.filter(
      (path) => !existsSync(new URL(path, root)) && !existsSync(new URL(path, folder)),
    );
    expect(missing).toEqual([]);
  });

  it(`${document} names no file outside the repository`, () => {
    expect(paths.filter((path) => path.startsWith('/') || path.startsWith('../..'))).toEqual([]);
  });
});

describe('the rooms of ARCHITECTURE.md', () => {
  const text = readFileSync(new URL('ARCHITECTURE.md', root), 'utf8');
  const rows = [...text.matchAll(/^\| `src\/(\w+)(?:\.ts)?` +\|[^|]*\|([^|]*)\|$/gm)];
  const listed = new Map(rows.map(([, room, imports]) => [room!, imports!.trim()]));
  const present = readdirSync(new URL('src/', root)).map((name) => name.replace(/\.ts$/, ''));

  it('the table of rooms lists every room of src', () => {
    expect([...listed.keys()].sort()).toEqual(present.sort());
  });

  it.each(present)('the table of rooms says of %s what the lint rule says', (room) => {
    const allowed = rooms[room]!.filter((other) => present.includes(other.split('/')[0]!));
    expect(listed.get(room)).toBe(allowed.length === 0 ? 'nothing' : allowed.join(', '));
  });
});
