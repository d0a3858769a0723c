/** Checks that each `as unknown as` in src/ has a comment on the line above, or at its own, that says why it holds. */
import { globSync, readFileSync } from 'node:fs';
import ts from 'typescript';

/** Files whose casts are yet to be explained or removed. */
const EXEMPT: readonly string[] = ['src/client/connections.ts', 'src/client/mesh-response.ts'];

/** One message for each cast through `unknown` without a reason. */
export function checkCasts(file: string, source: string): string[] {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.Latest, true);
  const lines = source.split('\n');
  const problems: string[] = [];
  const visit = (node: ts.Node) => {
    if (isDoubleCast(node)) {
      const first = lineOf(tree, statementOf(node).getStart());
      const last = lineOf(tree, node.getEnd());
      const explained = lines
        .slice(Math.max(0, first - 1), last + 1)
        .some((line) => /(^|\s)\/\/|\*\//.test(line));
      if (!explained)
        problems.push(`${file}:${last + 1}: 'as unknown as' has no comment that says why it holds`);
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return problems;
}

function isDoubleCast(node: ts.Node): boolean {
  if (!ts.isAsExpression(node) || !ts.isAsExpression(node.expression)) return false;
  return node.expression.type.kind === ts.SyntaxKind.UnknownKeyword;
}

function statementOf(node: ts.Node): ts.Node {
  let statement = node;
  while (!ts.isStatement(statement) && !ts.isClassElement(statement)) statement = statement.parent;
  return statement;
}

function lineOf(tree: ts.SourceFile, position: number): number {
  return tree.getLineAndCharacterOfPosition(position).line;
}

if (import.meta.main) {
  const files = globSync('src/**/*.ts')
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => !EXEMPT.includes(file));
  const problems = files.flatMap((file) => checkCasts(file, readFileSync(file, 'utf8')));
  for (const problem of problems) console.error(problem);
  console.log(`Checked the casts of ${files.length} files: ${problems.length} without a reason.`);
  process.exitCode = files.length === 0 || problems.length > 0 ? 1 : 0;
}
