/**
 * Checks that each optional field in src/ is written `name?: T | undefined`: with `exactOptionalPropertyTypes` a user
 * could not hand on a value that may be missing otherwise.
 *
 *     node scripts/check-optional.ts [--write]
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';

/** An optional field that does not take `undefined`, and what to write for its type. */
interface Problem {
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly type: string;
}

/** One problem for each optional field of an interface or an object type that does not take `undefined`. */
export function checkOptional(source: string): Problem[] {
  const tree = ts.createSourceFile('source.ts', source, ts.ScriptTarget.Latest, true);
  const problems: Problem[] = [];
  const visit = (node: ts.Node) => {
    if (ts.isPropertySignature(node) && node.questionToken && node.type && !takesUndefined(node.type)) {
      const { type } = node;
      const [start, end] = [type.getStart(), type.getEnd()];
      const { line } = tree.getLineAndCharacterOfPosition(start);
      const own = needsParentheses(type) ? `(${type.getText()})` : type.getText();
      problems.push({ line: line + 1, start, end, type: `${own} | undefined` });
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return problems;
}

/** The source with `| undefined` wherever it is missing. */
export function writeOptional(source: string): string {
  // The types of a field may have optional fields themselves: the inner ones come last, and are written first.
  const [last] = checkOptional(source).toReversed();
  if (last === undefined) return source;
  return writeOptional(source.slice(0, last.start) + last.type + source.slice(last.end));
}

function takesUndefined(type: ts.TypeNode): boolean {
  if (ts.isUnionTypeNode(type)) return type.types.some(takesUndefined);
  const { UndefinedKeyword, UnknownKeyword, AnyKeyword } = ts.SyntaxKind;
  return [UndefinedKeyword, UnknownKeyword, AnyKeyword].includes(type.kind);
}

function needsParentheses(type: ts.TypeNode): boolean {
  return ts.isFunctionTypeNode(type) || ts.isConstructorTypeNode(type) || ts.isConditionalTypeNode(type);
}

if (import.meta.main) {
  const write = process.argv.includes('--write');
  const files = globSync('src/**/*.ts').map((file) => file.replaceAll('\\', '/'));
  let found = 0;
  for (const file of files) {
    const source = readFileSync(file, 'utf8');
    const problems = checkOptional(source);
    if (problems.length === 0) continue;
    if (write) writeFileSync(file, writeOptional(source));
    else
      for (const { line, type } of problems)
        console.error(`${file}:${line}: this optional field must be ${type}`);
    found += problems.length;
  }
  console.log(
    `Checked the optional fields of ${files.length} files: ${found} ${write ? 'written' : 'take no undefined'}.`,
  );
  process.exitCode = files.length === 0 || (found > 0 && !write) ? 1 : 0;
}
