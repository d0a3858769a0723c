/**
 * Reads the TypeScript of a Markdown page as programs. The words after ```` ```ts ```` say what a block is:
 *
 *     ts            continues the page: it sees the imports and names of the blocks before it, and may declare them again
 *     ts alone      is a program by itself: it sees no other block
 *     ts run        is a program by itself, which is run and prints what its comments say: `console.log(…); // this`
 *     ts continues  goes on with the program before it, before that calls `await client.close();`
 *
 * Where blocks that continue a page stand for files of their reader, an `export` is left out, and so is an import of another
 * of these files (`'./…'`): the page has its names.
 *
 * A block of ```` ```text printed ```` holds what the program before it prints.
 * A comment `<!-- ts … -->` declares, unseen, what the blocks of its page take from their readers. A block may `declare` too.
 * A block in a list may be indented as a whole.
 */
import { readFileSync } from 'node:fs';
import ts from 'typescript';
import { blocksOf, kindOf, type Line } from './doc-blocks.ts';

export interface DocProgram {
  /** The heading that it stands under, and which program it is there; for the blocks that continue a page, its path. */
  readonly name: string;
  readonly lines: readonly Line[];
  /** The lines that it prints, if it is run. */
  readonly prints?: readonly string[];
}

interface Block {
  readonly kind: string;
  readonly heading: string;
  readonly lines: readonly Line[];
}

const KINDS = ['', 'alone', 'run', 'continues'];
const CLOSING = 'await client.close();';

/** The programs of a page. */
export function programsOf(path: string, markdown: string): DocProgram[] {
  const blocks = partsOf(path, markdown);
  const unseen = blocks.filter(({ kind }) => kind === 'unseen');
  const page = blocks.filter(({ kind }) => kind === '');
  const programs: DocProgram[] = [];
  if (page.length > 0) programs.push({ name: path, lines: scopedProgram(unseen, page) });
  let before: Block | undefined;
  for (const block of blocks) {
    const { kind, heading } = block;
    if (kind === 'printed') {
      programs.push({ ...programs.pop()!, prints: block.lines.map(({ text }) => text) });
      continue;
    }
    if (kind === '' || kind === 'unseen') continue;
    const number = programs.filter(({ name }) => name.startsWith(`${heading}, `)).length + 1;
    const name = `${heading}, program ${number}`;
    const lines = kind === 'continues' ? continued(path, before, block) : block.lines;
    if (kind === 'alone') programs.push({ name, lines: scopedProgram(unseen, [block]) });
    else programs.push({ name, lines, prints: printsOf(lines) });
    if (kind === 'run') before = block;
  }
  return programs;
}

/** The programs of a page that run, each with ports of its own from `port` on. */
export function runsOf(
  path: string,
  port: number,
): { name: string; code: string; prints: readonly string[] }[] {
  let next = port;
  return programsOf(path, readFileSync(path, 'utf8')).flatMap(({ name, prints, lines }) => {
    if (prints === undefined) return [];
    const ports = new Map<string, string>();
    const code = textOf(lines).replaceAll(/\b80\d\d\b/g, (shown) => {
      if (!ports.has(shown)) ports.set(shown, String(next++));
      return ports.get(shown)!;
    });
    return [{ name, code, prints }];
  });
}

function printsOf(lines: readonly Line[]): string[] {
  return lines.flatMap(({ text }) => /console\.log\(.*\); \/\/ (.*)$/.exec(text)?.[1] ?? []);
}

function textOf(lines: readonly Line[]): string {
  return lines.map(({ text }) => text).join('\n');
}

/** The blocks of the programs of a page. */
function partsOf(path: string, markdown: string): Block[] {
  return blocksOf(markdown).flatMap((block) => {
    const kind = kindOf(block);
    if (kind === undefined) return [];
    if (/^ts\s/.test(block.info) && !KINDS.includes(kind))
      throw new Error(`${path}:${block.line}: no block is 'ts ${kind}'`);
    return [{ kind, heading: block.heading ?? path, lines: block.lines }];
  });
}

function continued(path: string, before: Block | undefined, block: Block): readonly Line[] {
  const closing = before?.lines.findIndex(({ text }) => text === CLOSING) ?? -1;
  if (closing < 0) {
    throw new Error(`${path}:${block.lines[0]!.line}: the program before it does not call '${CLOSING}'`);
  }
  return before!.lines.toSpliced(closing, 0, ...block.lines);
}

/** Holds the lines that no scope may hold: imports, one for each name, and declarations (`declare const …`). */
interface Top {
  /** Imports, under their text without `type`. */
  readonly imports: Map<string, Line>;
  readonly declared: Line[];
}

/** A scope for each block within the scope of the block before it, so that a name can be declared again. */
function scopedProgram(unseen: readonly Block[], blocks: readonly Block[]): Line[] {
  const top: Top = { imports: new Map(), declared: [] };
  const hidden = unseen.flatMap(({ lines }) => scopeOf(lines, top));
  const scopes = blocks.flatMap(({ lines }) => [{ text: '{', line: lines[0]!.line }, ...scopeOf(lines, top)]);
  const ends = blocks.map(({ lines }) => ({ text: '}', line: lines.at(-1)!.line }));
  return [...top.imports.values(), ...top.declared, ...hidden, ...scopes, ...ends];
}

/** The lines that a scope may hold; the others go to the top. */
function scopeOf(lines: readonly Line[], top: Top): Line[] {
  const rest = lines.map(({ text, line }) => ({ text: text.replace(/^export (?!\{)/, ''), line }));
  const source = ts.createSourceFile('block.ts', textOf(lines), ts.ScriptTarget.Latest);
  const lineAt = (position: number) => source.getLineAndCharacterOfPosition(position).line;
  for (const statement of source.statements) {
    const [first, last] = [lineAt(statement.getStart(source)), lineAt(statement.end)];
    if (ts.isImportDeclaration(statement)) addImports(statement, source, lines[first]!.line, top);
    else if (isDeclared(statement)) top.declared.push(...lines.slice(first, last + 1));
    else continue;
    for (let index = first; index <= last; index++) rest[index] = { ...rest[index]!, text: '' };
  }
  return rest;
}

function isDeclared(statement: ts.Statement): boolean {
  if (!ts.canHaveModifiers(statement)) return false;
  return ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.DeclareKeyword) ?? false;
}

function addImports(
  declaration: ts.ImportDeclaration,
  source: ts.SourceFile,
  line: number,
  { imports }: Top,
): void {
  if (declaration.moduleSpecifier.getText(source).startsWith("'./")) return;
  for (const { name, type } of importsOf(declaration, source)) {
    const given = imports.get(name);
    if (given && (type || !given.text.startsWith('import type'))) continue;
    imports.set(name, { text: `import ${type ? 'type ' : ''}${name};`, line });
  }
}

function importsOf({ importClause, moduleSpecifier }: ts.ImportDeclaration, source: ts.SourceFile) {
  const from = moduleSpecifier.getText(source);
  if (importClause === undefined) return [{ name: from, type: false }];
  const { name, namedBindings } = importClause;
  const allTypes = importClause.phaseModifier === ts.SyntaxKind.TypeKeyword;
  const whole = namedBindings && ts.isNamespaceImport(namedBindings) ? [namedBindings] : [];
  const named = namedBindings && ts.isNamedImports(namedBindings) ? namedBindings.elements : [];
  return [
    ...[...(name ? [name] : []), ...whole].map((node) => ({ what: node.getText(source), type: allTypes })),
    ...named.map((element) => ({
      what: `{ ${element.getText(source).replace(/^type /, '')} }`,
      type: allTypes || element.isTypeOnly,
    })),
  ].map(({ what, type }) => ({ name: `${what} from ${from}`, type }));
}
