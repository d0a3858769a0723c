/** Checks the package as its users get it: packed, then installed, run and compiled against. Run it with npm. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { checkExamples } from './check-examples.ts';
import { copyTyped, npm, pack, readJson, run, runTo } from './consumers.ts';

interface Release {
  readonly version: string;
  /** The majors of our dependencies that npm has to pick there. */
  readonly majors: Readonly<Record<'undici' | 'p-retry', string>>;
  /** Whether it warns of each `require()` of a module, as 22.12 does alone. */
  readonly warnsOfRequire?: boolean;
}

/** The oldest release of each line that is supported, and where another major of a dependency begins. */
const nodes: readonly Release[] = [
  { version: '20.19.0', majors: { undici: '7', 'p-retry': '7' } },
  { version: '22.12.0', majors: { undici: '7', 'p-retry': '9' }, warnsOfRequire: true },
  { version: '22.19.0', majors: { undici: '8', 'p-retry': '9' } },
  { version: '24.0.0', majors: { undici: '8', 'p-retry': '9' } },
  { version: '26.0.0', majors: { undici: '8', 'p-retry': '9' } },
];

const npx = join(dirname(npm), 'npx-cli.js');
const bin = resolve('node_modules/.bin');
const work = mkdtempSync(join(tmpdir(), 'holdfast-package-'));

function passed(what: string): void {
  console.log(`✓ ${what}`);
}

/** The path of a Node of this version, from npm's own `node` package. */
function nodeBinary(version: string): string {
  const folder = resolve('node_modules/.cache/holdfast-nodes', version);
  const binary = join(folder, 'node_modules/node/bin/node');
  if (!existsSync(binary)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "allowScripts": { "node": true } }');
    run(folder, process.execPath, npm, 'install', `node@${version}`);
  }
  return binary;
}

function consumerFolder(version: string): string {
  return join(work, `node-${version}`);
}

/** Installs the tarball with npm under the given Node, and runs the consumer scripts there. */
function checkConsumer(tarball: string, release: Release): void {
  const { version, majors } = release;
  const consumer = consumerFolder(version);
  const node = nodeBinary(version);
  cpSync('scripts/consumer', consumer, { recursive: true });
  writeFileSync(join(consumer, 'package.json'), '{ "private": true }');
  run(consumer, node, npm, 'install', tarball);
  const picked = Object.entries(majors).map(([name, major]) => {
    const found: string = readJson(join(consumer, 'node_modules', name, 'package.json')).version;
    if (found.split('.')[0] !== major) {
      throw new Error(`Node ${version}: npm installed ${name} ${found}, not ${major}.x`);
    }
    return `${name} ${found}`;
  });
  passed(`Node ${version}: npm installs ${picked.join(' and ')}`);

  if (existsSync(join(consumer, 'node_modules/ioredis'))) {
    throw new Error(`Node ${version}: npm installed ioredis, which is optional`);
  }
  checkEntries(release, 'without ioredis');
  checkCommand(version, /npm install ioredis$/m);

  const ioredis = version.startsWith('20.') ? 'ioredis@5' : 'ioredis';
  run(consumer, node, npm, 'install', ioredis);
  checkEntries(release, `with ${ioredis}`);
  checkCommand(version, /^holdfast: Redis at 127\.0\.0\.1:1: there was no connection/m);
  checkDispatcher(version, majors.undici);
}

/**
 * Runs what concerns undici, with each major of it that the given Node can load: used by the package, and installed
 * beside it by somebody else.
 */
function checkDispatcher(version: string, picked: string): void {
  const consumer = consumerFolder(version);
  const node = nodeBinary(version);
  const install = (...packages: string[]) => run(consumer, node, npm, 'install', '--force', ...packages);
  const loadable = picked === '8' ? ['7', '8'] : ['7'];
  install(...loadable.map((major) => `undici-${major}@npm:undici@${major}`));
  for (const major of loadable.toReversed()) {
    if (major !== picked) install(`undici@${major}`);
    const globalsWith = (...packages: string[]) =>
      run(consumer, node, 'global-dispatcher.mjs', ...packages).stdout;
    const [none, undici] = [globalsWith(), globalsWith('undici')];
    for (const [found, expected] of [
      [globalsWith('holdfast'), none],
      [globalsWith('holdfast', 'undici'), undici],
      [globalsWith('undici', 'holdfast'), undici],
    ] as const) {
      if (found !== expected) throw new Error(`Node ${version}: not ${expected} but ${found}`);
    }
    passed(`Node ${version}, undici ${major}: importing holdfast leaves the global dispatcher alone`);
    const { stdout } = run(consumer, node, 'dispatcher.mjs');
    passed(`Node ${version}, undici ${major}: the dispatcher works with ${stdout.trim()}`);
  }
}

const REQUIRE_WARNING =
  /^\(node:\d+\) ExperimentalWarning: CommonJS module .* is loading ES Module [\s\S]*?\(Use `node --trace-warnings .*\n/m;

function checkEntries({ version, warnsOfRequire = false }: Release, setting: string): void {
  for (const script of ['esm.mjs', 'commonjs.cjs', 'both-builds.cjs']) {
    const printed = run(consumerFolder(version), nodeBinary(version), script).stderr;
    const stderr = warnsOfRequire ? printed.replace(REQUIRE_WARNING, '') : printed;
    if (stderr !== '') throw new Error(`Node ${version}: ${script} printed to stderr:\n${stderr}`);
    passed(`Node ${version}, ${setting}: ${script} has no complaint`);
  }
}

/** Runs the command that the package installs. There is no Redis: `failure` is what it should say then. */
function checkCommand(version: string, failure: RegExp): void {
  const holdfast = (exitCode: number, ...args: string[]) =>
    runTo(exitCode, consumerFolder(version), nodeBinary(version), npx, 'holdfast', ...args);
  const expect = (text: string, expected: RegExp) => {
    if (expected.test(text) && !/^ +at /m.test(text)) return;
    throw new Error(`Node ${version}: the command did not say ${expected}, but:\n${text}`);
  };
  expect(holdfast(0, '--help').stdout, /^Usage: holdfast /);
  expect(holdfast(0, '--version').stdout, new RegExp(`^${readJson('package.json').version}\n$`));
  expect(holdfast(1, 'services', '--redis', 'redis://127.0.0.1:1', '--timeout', '200').stderr, failure);
  passed(`Node ${version}: npx holdfast says ${failure}`);
}

/** Compiles the typed programs against what is installed for the given Node. */
function checkTypes({ version }: Release): void {
  const consumer = consumerFolder(version);
  for (const { module, endings } of [
    { module: ['nodenext'], endings: ['mts', 'cts'] as const },
    { module: ['esnext', '--moduleResolution', 'bundler'], endings: ['ts'] as const },
  ]) {
    const files = endings.flatMap((ending) => copyTyped(consumer, ending));
    const types = ['--types', 'node', '--typeRoots', resolve('node_modules/@types')];
    run(consumer, join(bin, 'tsc'), '--noEmit', '--strict', '--module', ...module, ...types, ...files);
    passed(`Node ${version}: tsc --module ${module.join(' ')} compiles ${endings.join(' and ')}`);
  }
}

try {
  const tarball = pack(work);
  passed('npm pack');
  run('.', join(bin, 'publint'), 'run', '--strict', tarball);
  passed('publint');
  // node10 knows no entries that are no modules.
  run('.', join(bin, 'attw'), tarball, '--exclude-entrypoints', 'gateway.schema.json');
  passed('are the types wrong');
  for (const node of nodes) checkConsumer(tarball, node);
  for (const node of [nodes.at(0)!, nodes.at(-1)!]) {
    run(consumerFolder(node.version), nodeBinary(node.version), npm, 'install', 'fastify');
    checkTypes(node);
  }
  const examples = join(work, 'examples');
  checkExamples({
    folder: examples,
    tarball,
    install: (...packages) => run(examples, nodeBinary(nodes[0]!.version), npm, 'install', ...packages),
    nodes: new Map([nodes.at(0)!, nodes.at(-1)!].map(({ version }) => [version, nodeBinary(version)])),
    run,
    passed,
  });
} catch (error) {
  console.error(`✗ ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true });
}
