/** Checks the examples of README.md and docs/ against the package as its users get it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import ts from 'typescript';
import { docPages } from './check-docs.ts';
import { programsOf, runsOf } from './doc-programs.ts';

export interface ExampleChecks {
  /** A folder to make, in which the examples are compiled and run. */
  readonly folder: string;
  /** The package, and how to install it with others in the folder. */
  readonly tarball: string;
  readonly install: (...packages: string[]) => void;
  /** The Nodes to run the examples with, by version. */
  readonly nodes: ReadonlyMap<string, string>;
  readonly run: (cwd: string, command: string, ...args: string[]) => { stdout: string };
  readonly passed: (what: string) => void;
}

/** The releases of TypeScript that the examples of README.md compile under. */
const typescripts = ['5.9', '6', '7'];

/** The types that packages of the examples lack. */
const types = ['@types/node', '@types/opossum', '@types/pg'];

/**
 * Compiles the examples of README.md as a newcomer does, with and without the types of the DOM, and those of docs/, with
 * all packages that they name. Runs what is said to run, but for the example that goes on serving: a test of its own does
 * that.
 */
export function checkExamples(checks: ExampleChecks): void {
  const { folder, tarball, install, run, passed } = checks;
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  const compilers = typescripts.map((version) => `typescript-${version}@npm:typescript@${version}`);
  const [readme, ...docs] = docPages();
  install(tarball, ...types, ...new Set([readme!, ...docs].flatMap(packagesOf)), ...compilers);
  const compile = (version: string, files: string[], ...options: string[]) => {
    const tsc = join(folder, 'node_modules', `typescript-${version}`, 'bin/tsc');
    const settings = ['--strict', '--module', 'nodenext', '--target', 'es2023', '--types', 'node'];
    run(folder, process.execPath, tsc, ...settings, ...options, ...files);
  };
  const ofReadme = writePrograms(folder, readme!);
  for (const version of typescripts) {
    for (const lib of [[], ['--lib', 'es2023']]) {
      compile(version, ofReadme, ...lib);
      passed(`TypeScript ${[version, ...lib].join(' ')} compiles the examples of README.md`);
    }
  }
  const ofDocs = docs.flatMap((page) => writePrograms(folder, page));
  compile(typescripts[0]!, ofDocs, '--lib', 'es2023', '--experimentalDecorators', '--skipLibCheck');
  passed(`TypeScript ${typescripts[0]} compiles the ${ofDocs.length} programs of docs/`);
  for (const version of checks.nodes.keys()) {
    for (const page of [readme!, ...docs]) runPrograms(checks, page, version);
  }
}

/** The programs of a page as files of `folder`. */
function writePrograms(folder: string, page: string): string[] {
  return programsOf(page, readFileSync(page, 'utf8')).map(({ lines }, index) => {
    const file = `${basename(page, '.md')}-${index}.ts`;
    writeFileSync(join(folder, file), `${lines.map(({ text }) => text).join('\n')}\nexport {};\n`);
    return file;
  });
}

function runPrograms({ folder, nodes, run, passed }: ExampleChecks, page: string, version: string): void {
  const programs = runsOf(page, 24_000).filter(({ code }) => !code.includes('gracefulShutdown('));
  for (const { name, code, prints } of programs) {
    writeFileSync(join(folder, 'run.mjs'), ts.transpile(code, { target: ts.ScriptTarget.ES2023 }));
    const { stdout } = run(folder, nodes.get(version)!, 'run.mjs');
    const expected = prints.map((line) => `${line}\n`).join('');
    if (stdout === expected) continue;
    throw new Error(`Node ${version}: ${page}, ${name} printed\n${stdout}not\n${expected}`);
  }
  if (programs.length > 0) passed(`Node ${version}: the programs of ${page} print what they say`);
}

/** The packages that the TypeScript of a page imports, but for this one and those of Node. */
function packagesOf(page: string): string[] {
  return programsOf(page, readFileSync(page, 'utf8'))
    .flatMap(({ lines }) => ts.preProcessFile(lines.map(({ text }) => text).join('\n')).importedFiles)
    .map(({ fileName }) => fileName.split('/', fileName.startsWith('@') ? 2 : 1).join('/'))
    .filter((name) => name !== 'holdfast' && !name.startsWith('node:'));
}
