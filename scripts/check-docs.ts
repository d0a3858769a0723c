/**
 * Compiles every block of TypeScript in README.md and docs/ against src/, with the settings of tsconfig.json, and
 * checks that there are no other programs, that links between pages and to files lead somewhere, and that no line of
 * the pages that keep to 120 columns is longer. How the blocks of a page belong together is told in doc-programs.ts.
 *
 *     node scripts/check-docs.ts             all pages
 *     node scripts/check-docs.ts PAGE...     these pages
 */
import { globSync, readFileSync, statSync } from 'node:fs';
import { join, posix, resolve } from 'node:path';
import ts from 'typescript';
import { blocksOf, kindOf } from './doc-blocks.ts';
import { type DocProgram, programsOf } from './doc-programs.ts';
import { NOT_INSTALLED } from './not-installed.ts';

/** Languages of blocks that are no programs. */
const NO_PROGRAMS = ['dockerfile', 'http', 'json', 'mermaid', 'sh', 'sql', 'text', 'yaml'];
/** A block that is checked by another script, or not at all, says why: `js unchecked: …`. */
const UNCHECKED = /^\S+ unchecked: \S/;

const ROOT = resolve(import.meta.dirname, '..');
const MAX_COLUMNS = 120;
const NARROW = ['README.md', 'docs/migration.md', 'docs/nestjs.md'];

export const docPages = (): string[] => ['README.md', ...globSync('docs/*.md', { cwd: ROOT }).sort()];

interface Module {
  readonly page: string;
  readonly lines: DocProgram['lines'];
  readonly text: string;
}

/** One message for each error of the compiler in the TypeScript of these pages, given by path and text. */
export function checkTypes(pages: ReadonlyMap<string, string>, settings: ts.CompilerOptions = {}): string[] {
  const modules = new Map<string, Module>();
  for (const [page, markdown] of pages) {
    for (const [index, { lines }] of programsOf(page, markdown).entries()) {
      const text = `${lines.map((line) => line.text).join('\n')}\nexport {};\n`;
      modules.set(join(ROOT, `${page}.${index}.ts`), { page, lines, text });
    }
  }
  const files = new Map([...modules].map(([path, { text }]) => [path, text])).set(
    join(ROOT, 'not-installed.d.ts'),
    NOT_INSTALLED,
  );
  const options = { ...compilerOptions(), ...settings };
  const program = ts.createProgram([...files.keys()], options, hostOf(files, options));
  const general = [...program.getOptionsDiagnostics(), ...program.getGlobalDiagnostics()];
  const inPages = [...modules].flatMap(([path, { page, lines }]) => {
    const source = program.getSourceFile(path)!;
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(
      ({ start = 0, messageText }) => {
        const { line } = source.getLineAndCharacterOfPosition(start);
        return `${page}:${lines[line]?.line ?? 1}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
      },
    );
  });
  return [
    ...general.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n')),
    ...inPages,
  ];
}

/** One message for each block that may be a program, and that the check of types does not see. */
export function checkBlocks(page: string, markdown: string): string[] {
  const problems: string[] = [];
  for (const block of blocksOf(markdown)) {
    const info = block.info.trim();
    const [language] = info.split(/\s/);
    const isKnown = NO_PROGRAMS.includes(language!) || UNCHECKED.test(info);
    if (kindOf(block) === undefined && !isKnown) {
      const advice = `begin it with \`\`\`ts, name a language that is no program (${NO_PROGRAMS.join(', ')})`;
      problems.push(
        `${page}:${block.line}: a block of '${language}' is not checked: ${advice}, or say why: 'js unchecked: …'`,
      );
    }
    if (!block.ends) problems.push(`${page}: the last block does not end`);
  }
  return problems;
}

/** One message for each line that is too long. */
export function checkColumns(page: string, markdown: string): string[] {
  return markdown.split('\n').flatMap((text, index) => {
    const columns = [...text].length;
    if (columns <= MAX_COLUMNS) return [];
    return [`${page}:${index + 1}: ${columns} columns; at most ${MAX_COLUMNS} are allowed`];
  });
}

/** One message for each link of a page to a file or a heading that is not there. */
export function checkLinks(page: string, markdown: string, read = readIfThere): string[] {
  return Array.from(markdown.matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)/g)).flatMap((link) => {
    const [, path, anchor] = link;
    const target = path === '' ? page : posix.join(posix.dirname(page), path!);
    const text = target === page ? markdown : read(target);
    if (text !== undefined && (anchor === undefined || anchorsOf(text).has(anchor))) return [];
    const line = markdown.slice(0, link.index).split('\n').length;
    return [`${page}:${line}: the link leads nowhere: ${path}${anchor === undefined ? '' : `#${anchor}`}`];
  });
}

/** The anchors of the headings of a page, as GitHub makes them. */
function anchorsOf(markdown: string): Set<string> {
  return new Set(
    Array.from(markdown.matchAll(/^#+ (.*)$/gm), ([, title]) =>
      title!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

/** The text of a file, or nothing for a folder; undefined if there is neither. */
function readIfThere(path: string): string | undefined {
  const stats = statSync(join(ROOT, path), { throwIfNoEntry: false });
  return stats?.isFile() ? readFileSync(join(ROOT, path), 'utf8') : stats && '';
}

function compilerOptions(): ts.CompilerOptions {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [] }, ts.sys, ROOT);
  return {
    ...options,
    noEmit: true,
    // Programs of readers, as those on NestJS, are compiled.
    experimentalDecorators: true,
    erasableSyntaxOnly: false,
    noUnusedLocals: false,
    noUnusedParameters: false,
    paths: {
      holdfast: [join(ROOT, 'src/index.ts')],
      'holdfast/*': [join(ROOT, 'src/*/index.ts')],
    },
  };
}

/** @param files the texts of files that are not on the disk */
function hostOf(files: ReadonlyMap<string, string>, options: ts.CompilerOptions): ts.CompilerHost {
  const host = ts.createCompilerHost(options);
  return {
    ...host,
    fileExists: (path) => files.has(path) || host.fileExists(path),
    readFile: (path) => files.get(path) ?? host.readFile(path),
    getSourceFile: (path, languageVersion) => {
      const text = files.get(path);
      if (text === undefined) return host.getSourceFile(path, languageVersion);
      return ts.createSourceFile(path, text, languageVersion);
    },
  };
}

if (import.meta.main) {
  const paths = process.argv.length > 2 ? process.argv.slice(2) : docPages();
  const pages = new Map(paths.map((path) => [path, readFileSync(join(ROOT, path), 'utf8')]));
  const problems = [
    ...checkTypes(pages),
    ...[...pages].flatMap(([page, text]) => checkBlocks(page, text)),
    ...[...pages].flatMap(([page, text]) => checkLinks(page, text)),
    ...[...pages].flatMap(([page, text]) => (NARROW.includes(page) ? checkColumns(page, text) : [])),
  ];
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}
