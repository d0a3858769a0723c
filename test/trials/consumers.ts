import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyTyped, createProject, pack, run as runProgram, TYPED_PEERS } from '../../scripts/consumers.ts';
import { fieldsWithoutUndefined, internalClasses } from '../../scripts/public-types.ts';
import type { Row } from '../support/trial.ts';

export const about =
  'the tarball in fresh projects compiles, and a test there opens a breaker while time is faked.';

const TYPESCRIPTS = ['5.9', '6', '7'];
const ENTRIES = ['index', 'redis', 'postgres', 'gateway'];
const TOOLS = [
  'jest',
  'vitest',
  ...['common', 'core', 'testing', 'platform-express'].map((name) => `@nestjs/${name}@11`),
  'reflect-metadata',
  'rxjs',
  'fastify',
  'ioredis',
  'typescript@5.9',
  '@types/node@24',
];

const TESTS = 'scripts/consumer/tests';
const STRICT = ['--strict', '--target', 'es2023', '--types', 'node'];
const EXACT = ['--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess', '--skipLibCheck', 'false'];

/** A kind of project: how its compiler is told, and the endings of its files. */
interface Kind {
  readonly name: string;
  readonly endings: readonly ('mts' | 'cts' | 'ts')[];
  readonly options: readonly string[];
}

const BOTH: Kind = { name: 'ESM and CommonJS', endings: ['mts', 'cts'], options: ['--module', 'nodenext'] };
const NODE10: Kind = {
  name: 'moduleResolution node10',
  endings: ['ts'],
  options: ['--module', 'commonjs', '--moduleResolution', 'node10', '--esModuleInterop'],
};

/** It leaves nothing to chance. */
export async function run(): Promise<Row[]> {
  const work = mkdtempSync(join(tmpdir(), 'holdfast-consumers-'));
  try {
    const tarball = pack(work);
    return [...tryCompilers(join(work, 'typescript'), tarball), ...tryTools(join(work, 'tools'), tarball)];
  } finally {
    rmSync(work, { recursive: true });
  }
}

function tryCompilers(project: string, tarball: string): Row[] {
  const aliases = TYPESCRIPTS.map((version) => `typescript-${version}@npm:typescript@${version}`);
  createProject(project, tarball, ...TYPED_PEERS, ...aliases);
  cpSync('scripts/consumer/both-builds.cjs', join(project, 'both-builds.cjs'));
  // Later ones have no node10.
  const projects = [
    { version: '5.9', kind: NODE10 },
    ...TYPESCRIPTS.map((version) => ({ version, kind: BOTH })),
  ];
  const types = join(project, 'node_modules/holdfast/dist');
  return [
    none('classes in its types that no entry exports', internalClasses(types, ENTRIES)),
    none('optional fields in its types that take no undefined', fieldsWithoutUndefined(types)),
    rowOf('both builds in one process', 'what must be one is one', () =>
      runProgram(project, process.execPath, 'both-builds.cjs'),
    ),
    ...projects.map(({ version, kind }) =>
      rowOf(
        `TypeScript ${version}, ${kind.name}, strict`,
        'it compiles; its test with node:test passes',
        () => compileAndTest(project, version, kind),
      ),
    ),
  ];
}

function compileAndTest(project: string, version: string, { name, endings, options }: Kind): void {
  const folder = join(project, `${version} ${name}`.replaceAll(' ', '-'));
  const sources = endings.flatMap((ending) => [...copyTyped(folder, ending), `node-test.${ending}`]);
  for (const ending of endings) cpSync(`${TESTS}/node-test.ts`, join(folder, `node-test.${ending}`));
  const tsc = join(project, 'node_modules', `typescript-${version}`, 'bin/tsc');
  runProgram(folder, process.execPath, tsc, ...STRICT, ...EXACT, ...options, ...sources);
  const tests = endings.map((ending) => `node-test.${ending.replace('ts', 'js')}`);
  runProgram(folder, process.execPath, '--test', ...tests);
}

function tryTools(project: string, tarball: string): Row[] {
  createProject(project, tarball, ...TOOLS);
  const bin = (path: string) => join(project, 'node_modules', path);
  const folderOf = (test: string) => {
    const folder = join(project, test.split('.')[0]!);
    mkdirSync(folder);
    cpSync(join(TESTS, test), join(folder, test));
    return folder;
  };
  const jest = (folder: string) =>
    runProgram(folder, process.execPath, bin('jest/bin/jest.js'), '--rootDir', folder);
  return [
    rowOf('Jest, CommonJS', 'its tests pass', () => jest(folderOf('jest.test.cjs'))),
    rowOf('vitest', 'its test passes', () =>
      runProgram(folderOf('vitest.test.mjs'), process.execPath, bin('vitest/vitest.mjs'), 'run'),
    ),
    rowOf('NestJS 11, CommonJS, Jest', 'compiles; its test passes', () => {
      const folder = folderOf('nestjs.test.ts');
      const decorators = ['--experimentalDecorators', '--emitDecoratorMetadata'];
      const tsc = bin('typescript/bin/tsc');
      runProgram(
        folder,
        process.execPath,
        tsc,
        ...STRICT,
        '--module',
        'nodenext',
        ...decorators,
        'nestjs.test.ts',
      );
      rmSync(join(folder, 'nestjs.test.ts'));
      jest(folder);
    }),
  ];
}

function none(situation: string, found: readonly string[]): Row {
  return { situation, measured: found.join(', ') || 'none', required: 'none', ok: found.length === 0 };
}

/** Tells how an attempt ended: of a program that failed, with what it printed. */
function rowOf(situation: string, required: string, attempt: () => unknown): Row {
  try {
    attempt();
    return { situation, measured: 'it does', required, ok: true };
  } catch (error) {
    return { situation, measured: (error as Error).message, required, ok: false };
  }
}
