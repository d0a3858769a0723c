/**
 * Checks that the code speaks the language of docs/glossary.md: retired identifiers in src/, and retired phrases in
 * comments, messages, docs and titles of tests. The lists are in words.ts.
 *
 *     node scripts/check-words.ts            all files
 *     node scripts/check-words.ts PATH...    files and folders
 */
import { globSync, readFileSync, statSync } from 'node:fs';
import ts from 'typescript';
import { RETIRED_BEGINNING, RETIRED_NAMES, RETIRED_PHRASES, RETIRED_WORDS } from './words.ts';

const FILES = ['{src,test,scripts,bench,examples}/**/*.ts', '*.ts', '*.md', 'docs/*.md'];

/** Files that tell of the retired words themselves. */
const ABOUT_WORDS = [
  'CHANGELOG.md',
  'docs/glossary.md',
  'scripts/words.ts',
  'test/scripts/check-words.test.ts',
];

/** A file is called by the name that it has. */
const FILE_NAME = /[\w./-]+\.(ts|md)\b/g;

/** A comment with these words allows retired words in its own line and the next, as in the check of a renamed option. */
const FORMER_NAME = /\bformer names?\b/;

/** One message for each retired word of the file. */
export function checkWords(file: string, source: string): string[] {
  const found = file.endsWith('.md') ? wordsOfDocs(source) : wordsOfCode(file, source);
  const lines = source.split('\n');
  const lineOf = (position: number) => source.slice(0, position).split('\n').length;
  const isAllowed = (line: number) =>
    lines.slice(Math.max(0, line - 2), line).some((text) => FORMER_NAME.test(text));
  return found
    .flatMap((word) =>
      problemsOf(word, file).map(({ at, problem }) => ({ line: lineOf(word.at + at), problem })),
    )
    .filter(({ line }) => !isAllowed(line))
    .sort((one, other) => one.line - other.line)
    .map(({ line, problem }) => `${file}:${line}: ${problem}`);
}

/** An identifier, or a text for people, and where it begins. `doc` marks the text of a doc comment. */
interface Word {
  readonly kind: 'identifier' | 'prose' | 'doc';
  readonly text: string;
  readonly at: number;
}

interface Problem {
  readonly at: number;
  readonly problem: string;
}

function problemsOf({ kind, text }: Word, file: string): Problem[] {
  return kind === 'identifier' ? problemsOfName(text, file) : problemsOfProse(text, kind === 'doc', file);
}

function problemsOfName(name: string, file: string): Problem[] {
  if (RETIRED_NAMES.has(name)) return [{ at: 0, problem: `the name '${name}' is retired` }];
  const words = name.split(/_|(?<=[a-z\d])(?=[A-Z])/).map((word) => word.toLowerCase());
  return RETIRED_WORDS.filter(
    ({ word, except }) => words.some((own) => word.test(own)) && !except?.test(file),
  ).map(({ use }) => ({ at: 0, problem: `the name '${name}' has a retired word; use: ${use}` }));
}

function problemsOfProse(text: string, doc: boolean, file: string): Problem[] {
  const problems = RETIRED_PHRASES.flatMap(({ phrase, use, allowed, except }) => {
    if (except?.test(file)) return [];
    const named = blank(text, FILE_NAME);
    const rest = allowed === undefined ? named : blank(named, acrossLines(allowed));
    return [...rest.matchAll(acrossLines(phrase))].map(({ 0: match, index }) => ({
      at: index,
      problem: `'${match.replace(/\s+/g, ' ')}' is retired; use: ${use}`,
    }));
  });
  const beginning = doc ? RETIRED_BEGINNING.exec(text.trimStart()) : null;
  if (beginning !== null) {
    const at = text.length - text.trimStart().length;
    problems.push({
      at,
      problem: `a doc comment begins with '${beginning[0]}'; use: a verb, or the name of the thing`,
    });
  }
  return problems;
}

/** Blanks what is allowed, instead of cutting it out, so that positions stay as they are. */
function blank(text: string, allowed: RegExp): string {
  return text.replace(allowed, (match) => ' '.repeat(match.length));
}

/** Lets a space of the pattern match the end of a line and what begins the next one, which `unwrapped` blanks. */
function acrossLines({ source, flags }: RegExp): RegExp {
  return new RegExp(source.replaceAll(' ', '\\s+'), flags);
}

/** The whole text, and the camelCase names in it. */
function wordsOfDocs(source: string): Word[] {
  const names = [...source.matchAll(/\b[A-Za-z]+[a-z\d][A-Z]\w*\b/g)];
  return [
    { kind: 'prose', text: unwrapped(source), at: 0 },
    ...names.map(({ 0: text, index }): Word => ({ kind: 'identifier', text, at: index })),
  ];
}

function wordsOfCode(file: string, source: string): Word[] {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true);
  const wordOf = file.startsWith('src/') ? wordOfSource : wordOfTitle;
  const words: Word[] = [];
  const comments = new Map<number, ts.CommentRange>();

  const visit = (node: ts.Node) => {
    for (const range of commentsAround(node, source)) comments.set(range.pos, range);
    const word = wordOf(node);
    if (word !== undefined) words.push(word);
    for (const child of node.getChildren(tree)) visit(child);
  };
  visit(tree);
  return [...words, ...[...comments.values()].map((range) => wordOfComment(source, range))];
}

/** An identifier, or a string: one without spaces is a name, such as the value of an option. */
function wordOfSource(node: ts.Node): Word | undefined {
  const at = node.getStart();
  if (ts.isIdentifier(node) || ts.isPrivateIdentifier(node))
    return { kind: 'identifier', text: node.text.replace(/^#/, ''), at };
  if (!isText(node)) return undefined;
  if (/\s/.test(node.text)) return { kind: 'prose', text: node.text, at };
  if (/^[a-z][\w-]*$/i.test(node.text))
    return { kind: 'identifier', text: node.text.replaceAll('-', '_'), at };
  return undefined;
}

/** The title of a test: the first argument of `it(…)`, `describe(…)`, `it.each(…)(…)`. */
function wordOfTitle(node: ts.Node): Word | undefined {
  if (!ts.isCallExpression(node) || !/^(it|test|describe)\b/.test(node.expression.getText()))
    return undefined;
  const [title] = node.arguments;
  if (title === undefined || !(ts.isStringLiteralLike(title) || ts.isTemplateExpression(title)))
    return undefined;
  return { kind: 'prose', text: title.getText(), at: title.getStart() };
}

function commentsAround(node: ts.Node, source: string): ts.CommentRange[] {
  return [
    ...(ts.getLeadingCommentRanges(source, node.getFullStart()) ?? []),
    ...(ts.getTrailingCommentRanges(source, node.getEnd()) ?? []),
  ];
}

function wordOfComment(source: string, { pos, end }: ts.CommentRange): Word {
  const text = source.slice(pos, end);
  return { kind: text.startsWith('/**') ? 'doc' : 'prose', text: unwrapped(text), at: pos };
}

/** Blanks what marks a comment, and line ends, so that a phrase is found across two lines. Positions stay. */
function unwrapped(text: string): string {
  return text.replace(/^\/\*\*?|^\/\/|\*\/$|\n[ \t]*\*?(?!\/)|\n/g, (mark) => ' '.repeat(mark.length));
}

function isText(node: ts.Node): node is ts.StringLiteral | ts.TemplateHead {
  return (
    ts.isStringLiteral(node) ||
    ts.isNoSubstitutionTemplateLiteral(node) ||
    ts.isTemplateHead(node) ||
    ts.isTemplateMiddle(node) ||
    ts.isTemplateTail(node)
  );
}

function filesIn(paths: readonly string[]): string[] {
  return paths.flatMap((path) =>
    statSync(path).isDirectory() ? globSync(`${path.replace(/\/$/, '')}/**/*.{ts,md}`) : [path],
  );
}

if (import.meta.main) {
  const given = process.argv.slice(2);
  const files = (given.length > 0 ? filesIn(given) : globSync(FILES))
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => !ABOUT_WORDS.includes(file))
    .sort();
  const problems = files.flatMap((file) => checkWords(file, readFileSync(file, 'utf8')));
  for (const problem of problems) console.error(problem);
  console.log(`Checked the words of ${files.length} files: ${problems.length} retired.`);
  process.exitCode = files.length === 0 || problems.length > 0 ? 1 : 0;
}
