/** Finds in the declarations of the built package what they should not show. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { checkOptional } from './check-optional.ts';

/** The classes in the declarations of a folder that none of its entries exports. */
export function internalClasses(folder: string, entries: readonly string[]): string[] {
  const files = globSync('*.d.ts', { cwd: folder }).map((file) => join(folder, file));
  const program = ts.createProgram(files, { module: ts.ModuleKind.NodeNext, types: [] });
  const checker = program.getTypeChecker();
  const sources = files.map((file) => program.getSourceFile(file)!);
  const isEntry = ({ fileName }: ts.SourceFile) =>
    entries.some((entry) => fileName.endsWith(`/${entry}.d.ts`));
  const exported = new Set(
    sources
      .filter(isEntry)
      .flatMap((source) => checker.getExportsOfModule(checker.getSymbolAtLocation(source)!))
      .map((symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol)),
  );
  return sources
    .flatMap((source) => source.statements.filter(ts.isClassDeclaration))
    .filter(({ name }) => !exported.has(checker.getSymbolAtLocation(name!)!))
    .map(({ name }) => name!.text);
}

/** The optional fields in the declarations of a folder that do not take `undefined`. */
export function fieldsWithoutUndefined(folder: string): string[] {
  return globSync('*.d.ts', { cwd: folder }).flatMap((file) =>
    checkOptional(readFileSync(join(folder, file), 'utf8')).map(
      ({ line, type }) => `${file}:${line}: ${type}`,
    ),
  );
}
