import { describe, expect, it } from 'vitest';
import { checkBlocks, checkColumns, checkLinks, checkTypes } from '../../scripts/check-docs.ts';
import { programsOf } from '../../scripts/doc-programs.ts';

const fence = (kind: string, ...code: string[]) => [`\`\`\`${kind}`, ...code, '```', ''];
const page = (...lines: (string | string[])[]) => `${lines.flat().join('\n')}\n`;
const codeOf = (markdown: string) =>
  programsOf('a.md', markdown).map(({ lines }) => lines.map(({ text }) => text).join('\n'));

describe('the programs of a page', () => {
  it('are one for the blocks that continue it: each in the scope of the block before', () => {
    const markdown = page(fence('ts', 'const a = 1;'), 'Text.', fence('ts', 'const a = 2;'));
    expect(codeOf(markdown)).toEqual(['{\nconst a = 1;\n{\nconst a = 2;\n}\n}']);
  });

  it('may stand in a list, indented', () => {
    const markdown = page('- One:', '', '  ```ts', '  if (a)', '    f();', '  ```');
    expect(codeOf(markdown)).toEqual(['{\nif (a)\n  f();\n}']);
    expect(programsOf('a.md', markdown)[0]!.lines[1]).toEqual({ text: 'if (a)', line: 4 });
  });

  it.each([
    ['a block that tabs indent', page('- One:', '', '\t```ts', '\tf();', '\t```')],
    ['a last block whose end has a trailing blank', '```ts\nf();\n``` '],
    ['a block that more marks end', page('```ts', 'f();', '````')],
    ['a block whose end is less indented', page('  ```ts', '  f();', ' ```')],
    ['a block that does not end', page('```ts', 'f();')],
    ['a block behind one of another language', page(fence('sh', '<!-- ts', '# One'), fence('ts', 'f();'))],
    ['a block with lines of CR and LF', page(fence('ts', 'f();')).replaceAll('\n', '\r\n')],
  ])('hold %s, as the check of blocks sees it', (_name, markdown) => {
    expect(checkBlocks('a.md', markdown).filter((problem) => !problem.endsWith('does not end'))).toEqual([]);
    expect(programsOf('a.md', markdown).map(({ name }) => name)).toEqual(['a.md']);
    expect(codeOf(markdown)).toEqual(['{\nf();\n}']);
  });

  it('hold nothing of an example in another block', () => {
    const markdown = page('````text', '```ts', 'f();', '```', '````', '~~~text', ...fence('ts'), '~~~');
    expect(checkBlocks('a.md', markdown)).toEqual([]);
    expect(programsOf('a.md', markdown)).toEqual([]);
  });

  it('stand under the heading before them, which no comment in a block of another language is', () => {
    const markdown = page('## A', fence('sh', '# no heading'), fence('ts run', 'f();'));
    expect(programsOf('a.md', markdown).map(({ name }) => name)).toEqual(['A, program 1']);
  });

  it('may be empty', () => {
    expect(codeOf(page(fence('ts')))).toEqual(['{\n\n}']);
  });

  it('import a name once, as a value if one of the blocks needs the value', () => {
    const markdown = page(
      fence('ts', "import { A, type B } from 'x';", "import D, * as E from 'y';"),
      fence(
        'ts',
        'import type {',
        '  A,',
        '  C as F,',
        "} from 'x';",
        "import { B } from 'x';",
        "import 'z';",
      ),
    );
    expect(
      codeOf(markdown)[0]!
        .split('\n')
        .filter((line) => line.startsWith('import')),
    ).toEqual([
      "import { A } from 'x';",
      "import { B } from 'x';",
      "import D from 'y';",
      "import * as E from 'y';",
      "import type { C as F } from 'x';",
      "import 'z';",
    ]);
  });

  it('leave out exports, and imports of the files that other blocks stand for', () => {
    const markdown = page(
      fence('ts', 'export const a = 1;'),
      fence('ts', "import { a } from './a.js';", 'export { a };'),
    );
    expect(codeOf(markdown)).toEqual(['{\nconst a = 1;\n{\n\nexport { a };\n}\n}']);
  });

  it('see what they or a comment of the page declare, if they do not run', () => {
    const markdown = page(
      ['<!-- ts', 'declare const a: 1;', '-->'],
      fence('ts', 'declare const b: 2;', 'f(a, b);'),
      fence('ts alone', 'g(a);'),
      fence('ts run', 'h();'),
    );
    expect(codeOf(markdown)).toEqual([
      'declare const a: 1;\ndeclare const b: 2;\n\n{\n\nf(a, b);\n}',
      'declare const a: 1;\n\n{\ng(a);\n}',
      'h();',
    ]);
  });

  it('that continue another one stand before it closes its client', () => {
    const first = ['const client = make();', 'console.log(1); // 1', 'await client.close();'];
    const markdown = page('## A', fence('ts run', ...first), fence('ts continues', 'client.call();'));
    expect(
      programsOf('a.md', markdown).map(({ name, prints, lines }) => [name, prints, lines.length]),
    ).toEqual([
      ['A, program 1', ['1'], 3],
      ['A, program 2', ['1'], 4],
    ]);
    expect(codeOf(markdown)[1]).toBe([...first.slice(0, 2), 'client.call();', first[2]].join('\n'));
  });

  it('that run print what the block after them shows', () => {
    const markdown = page(fence('ts run', 'f();'), fence('text printed', 'one', 'two'));
    expect(programsOf('a.md', markdown)).toMatchObject([{ prints: ['one', 'two'] }]);
  });

  it.each([
    [page('Text.', fence('ts runs', 'f();')), "a.md:2: no block is 'ts runs'"],
    [page(fence('ts printed', 'f();')), "a.md:1: no block is 'ts printed'"],
    [page(fence('ts continues', 'f();')), 'a.md:2: the program before it does not call'],
  ])('are rejected in %j', (markdown, message) => {
    expect(() => programsOf('a.md', markdown)).toThrow(message);
  });
});

it('the check of docs tells the line of a page that does not compile', () => {
  const markdown = page(
    'Text.',
    fence('ts', 'const a: number = parseInt;'),
    fence('ts', 'parseInt(a);'),
    fence('ts alone', 'const b = ;', 'a.b;'),
  );
  expect(checkTypes(new Map([['a.md', markdown]]), { types: [], lib: ['lib.es5.d.ts'] })).toEqual([
    expect.stringMatching(/^a\.md:3: Type .* is not assignable to type 'number'/),
    expect.stringMatching(/^a\.md:7: Argument of type 'number'/),
    'a.md:11: Expression expected.',
    "a.md:12: Cannot find name 'a'.",
  ]);
});

it('the check of docs sees other errors of a program that imports a package which is not installed', () => {
  const markdown = page(
    fence('ts', "import { Module } from '@nestjs/common';", 'Module(parse);', 'const a: number = parseInt;'),
  );
  expect(checkTypes(new Map([['a.md', markdown]]), { types: [], lib: ['lib.es5.d.ts'] })).toEqual([
    expect.stringContaining("a.md:3: Cannot find name 'parse'."),
    expect.stringMatching(/^a\.md:4: Type .* is not assignable to type 'number'/),
  ]);
});

it('the check of docs tells what is wrong with no page in particular', () => {
  expect(checkTypes(new Map([['a.md', page(fence('ts', ';'))]]), { types: [], noLib: true })).toContain(
    "Cannot find global type 'Array'.",
  );
});

it('the check of docs names each block that may be a program, and that it does not compile', () => {
  const markdown = page(
    fence('ts', 'f();', '~~~ js'),
    fence('json', '{}'),
    ['- One:', '', '  ```ts run', '  f();', '  ```', ''],
    fence('js unchecked: it runs elsewhere', 'f();'),
    ...['', 'js', 'typescript', 'tsx', 'mjs', 'TS', 'js unchecked:'].map((language) =>
      fence(language, 'f();'),
    ),
    ['~~~ts', 'f();', '~~~', '````ts', '```', '````', '> ```ts', '> f();', '> ```', '- ```ts', '  ```'],
  );
  const found = checkBlocks('a.md', markdown);
  expect(found[0]).toMatch(
    /^a\.md:20: a block of '' is not checked: begin it with ```ts, .* say why: 'js unchecked: …'$/,
  );
  expect(found.map((problem) => /of '(\w*)'/.exec(problem)?.[1])).toEqual([
    '',
    'js',
    'typescript',
    'tsx',
    'mjs',
    'TS',
    'js',
    'ts',
    'ts',
    'ts',
    'ts',
  ]);
  expect(checkBlocks('a.md', '```text\n')).toEqual(['a.md: the last block does not end']);
});

it('the check of docs tells the lines that are longer than 120 columns', () => {
  expect(checkColumns('a.md', page('…'.repeat(120), '…'.repeat(121)))).toEqual([
    'a.md:2: 121 columns; at most 120 are allowed',
  ]);
});

it('the check of docs tells the links that lead nowhere', () => {
  const there: Record<string, string> = { 'docs/b.md': '## What `b` is, and why', LICENSE: '' };
  const markdown = page(
    '# A',
    '[a](#a) [b](b.md#what-b-is-and-why) [licence](../LICENSE) [far](https://example.com/#x)',
    '[one](#one) [c](c.md)',
    '[two](b.md#two)',
  );
  expect(checkLinks('docs/a.md', markdown, (path) => there[path])).toEqual([
    'docs/a.md:3: the link leads nowhere: #one',
    'docs/a.md:3: the link leads nowhere: c.md',
    'docs/a.md:4: the link leads nowhere: b.md#two',
  ]);
});
