import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { checkWords } from '../../scripts/check-words.ts';

const found = (message: string) => [expect.stringContaining(message)];

describe('the check of words', () => {
  it.each([
    ['a retired name', 'const conduct = 1;', "the name 'conduct' has a retired word"],
    [
      'a retired word within a name',
      'const maxAnswerSize = 1;',
      "the name 'maxAnswerSize' has a retired word",
    ],
    ['a retired word of a constant', 'const FIRST_ANSWER = 1;', "the name 'FIRST_ANSWER' has a retired word"],
    ['a private name', 'class A { #refuse() {} }', "the name 'refuse' has a retired word"],
    ['a name in a string', "const mode = 'refuse';", "the name 'refuse' has a retired word"],
    ['a type', 'interface StandingOrder {}', "the name 'StandingOrder' is retired"],
    ['a message', "throw new Error('it was refused');", "'refused' is retired; use: reject, rejection"],
    ['a message with parts', 'const a = `$' + '{1} in vain`;', "'in vain' is retired; use: without success"],
  ])('finds %s in src', (_, source, message) => {
    expect(checkWords('src/client/a.ts', `\n${source}`)).toEqual(found(`src/client/a.ts:2: ${message}`));
  });

  it('looks for retired names and messages in src alone', () => {
    expect(checkWords('test/client/a.test.ts', "const answer = 'it was refused';")).toEqual([]);
  });

  it.each([
    ['a doc comment', '/** Waits for the answer. */', "'answer' is retired"],
    ['a comment at the end of a line', 'const a = 1; // each try', "'each try' is retired; use: attempt"],
    ['a comment that counts', '// It makes three tries.', "'three tries' is retired; use: attempt"],
    ['a comment within an expression', 'const a = [\n  // tried again\n];', "'tried again' is retired"],
    ['a phrase that goes on in the next line', '/**\n * It was in\n * vain.\n */', "'in vain' is retired"],
    ['a comment at the end of the file', 'const a = 1;\n// as a rule', "'as a rule' is retired"],
    ['a relative clause that begins a doc comment', '/** Those that wait. */', "begins with 'Those'"],
  ])('finds a retired phrase in %s', (_, source, message) => {
    expect(checkWords('bench/a.ts', source)).toEqual(found(message));
  });

  it.each([
    "it('gives the answer', () => {});",
    "describe('an answer', () => {});",
    "it.each([1])('gives %s as its answer', () => {});",
    'test(`gives $' + '{name} the answer`, () => {});',
  ])('finds a retired phrase in the title of %s', (source) => {
    expect(checkWords('test/a.test.ts', source)).toEqual(found("test/a.test.ts:1: 'answer' is retired"));
  });

  it('finds retired phrases and retired names in docs, each with its line', () => {
    expect(checkWords('docs/a.md', '# A\n\nIt is tried\nagain up to `maxAnswerSize`.\n')).toEqual([
      expect.stringContaining("docs/a.md:3: 'tried again' is retired"),
      expect.stringContaining("docs/a.md:4: the name 'maxAnswerSize' has a retired word"),
    ]);
  });

  it.each([
    ['src/client/a.ts', '// The connection was refused: nothing was sent.'],
    ['src/client/a.ts', '// A host that refuses connections is down.'],
    ['src/client/a.ts', "if (code === 'ECONNREFUSED') tryAcquire();"],
    ['src/client/a.ts', '// The balancer tries the next instance.'],
    ['src/discovery/dns-lookup.ts', '/** Reads the answer of a resolver. */\nconst answer = 1;'],
    ['docs/a.md', 'The resolver gives an answer without addresses.'],
    ['docs/a.md', 'An answer without addresses comes from DNS.'],
    ['docs/a.md', 'A client that tries the next instance has two of them.'],
    ['src/client/a.ts', 'const pattern = /answer/; const value = { response: 1 };'],
    ['src/client/a.ts', "import './refuse-answers.ts';"],
    [
      'src/client/a.ts',
      "// The former name of the option.\nconst renamed = { maxAnswerSize: 'maxResponseSize' };",
    ],
    ['docs/a.md', 'See `src/client/stored-answer.ts`.'],
  ])('lets %s say %s', (file, source) => {
    expect(checkWords(file, source)).toEqual([]);
  });

  it.each([
    ['passes', '// a response', 0],
    ['fails', '// an answer', 1],
  ])('%s the command for a tree that says "%s"', (_, source, status) => {
    const project = mkdtempSync(join(tmpdir(), 'holdfast-words-'));
    onTestFinished(() => rmSync(project, { recursive: true }));
    mkdirSync(join(project, 'src/policies'), { recursive: true });
    writeFileSync(join(project, 'src/policies/a.ts'), source);

    const run = spawnSync(process.execPath, [resolve('scripts/check-words.ts'), 'src'], {
      cwd: project,
      encoding: 'utf8',
    });

    expect(run.stdout).toContain('Checked the words of 1 files');
    expect(run.stderr.includes("src/policies/a.ts:1: 'answer' is retired")).toBe(status === 1);
    expect(run.status).toBe(status);
  });
});
