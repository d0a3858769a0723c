/** Checks the package as its users get it: packed, then installed, run and compiled against. Run it with npm. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { checkExamples } from './check-examples.ts';

/** The oldest release of each line that is supported, and the majors of our dependencies that npm has to pick there. */
const nodes = [
  { version: '20.19.0', undici: '7', 'p-retry': '7' },
  { version: '22.12.0', undici: '7', 'p-retry': '9' },
  { version: '22.19.0', undici: '8', 'p-retry': '9' },
  { version: '24.0.0', undici: '8', 'p-retry': '9' },
  { version: '26.0.0', undici: '8', 'p-retry': '9' },
];

const typedConsumer = `
import { compose, Retry, ServiceClient, ServiceResponseError, StaticServiceDiscovery, Timeout, wrap } from 'holdfast';

export async function nameOf(id: string): Promise<string | undefined> {
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ 'user-service': ['http://127.0.0.1:8001'] }),
    callerName: 'typed-consumer',
  });
  try {
    const user = await client.call<{ name: string }>({ service: 'user-service', method: 'GET', path: '/users/' + id });
    return user.name;
  } catch (error) {
    if (error instanceof ServiceResponseError && error.status === 404) return undefined;
    throw error;
  } finally {
    await client.close();
  }
}

export const nameWithin: (id: string) => Promise<string | undefined> = wrap(
  compose(new Timeout(1_000), new Retry({ maxAttempts: 2 })),
  nameOf,
);

// @ts-expect-error the options are typed, not any
new Retry({ maxAttempts: 'three' });
`;

const typedRedisConsumer = `
import { RedisError, ServiceClient, type ServiceDiscovery } from 'holdfast';
import { RedisServiceDiscovery } from 'holdfast/redis';
import { Redis } from 'ioredis';

export async function servicesAt(redis: string | Redis): Promise<string[]> {
  const discovery = new RedisServiceDiscovery({ redis, keyPrefix: 'typed' });
  discovery.on('stale', ({ serviceName }) => console.warn(serviceName));
  try {
    return await discovery.services();
  } catch (error) {
    if (error instanceof RedisError) return [];
    throw error;
  } finally {
    await discovery.close();
  }
}

export const clientOf = (discovery: ServiceDiscovery) => new ServiceClient({ discovery });
export const client = clientOf(new RedisServiceDiscovery({ redis: { host: '127.0.0.1', port: 6379 } }));

// @ts-expect-error the options are typed, not any
new RedisServiceDiscovery({ redis: 6379 });
`;

const typedPostgresConsumer = `
import { DatabaseError, KeyRevokedError } from 'holdfast';
import { fromPg, migrate, type PgPool, PostgresInbox } from 'holdfast/postgres';

export async function chargeOnce(pool: PgPool, key: string): Promise<string | undefined> {
  const database = fromPg(pool);
  await migrate(database);
  const inbox = new PostgresInbox({ database });
  try {
    return await inbox.once(key, async (tx) => {
      const { rows } = await tx.query('insert into charges (key) values ($1) returning id', [key]);
      return String(rows[0].id);
    });
  } catch (error) {
    if (error instanceof KeyRevokedError || (error instanceof DatabaseError && error.retryable)) return undefined;
    throw error;
  }
}

// @ts-expect-error the options are typed, not any
new PostgresInbox({ database: 'postgres://127.0.0.1' });
`;

const typedGatewayConsumer = `
import Fastify from 'fastify';
import { fastifyGuard, type ServiceClient } from 'holdfast';
import { createGateway, gateway, type GatewayConfig, GatewayConfigError, verifyIdentity } from 'holdfast/gateway';

const routes = [{ path: '/users/:id', methods: ['GET'], service: 'user-service', auth: false as const }];

export async function serve(client: ServiceClient, changes: Partial<GatewayConfig>): Promise<string> {
  const server = await createGateway({ client, routes, logger: Fastify({ logger: true }).log });
  await server.reload(changes).catch((error) => {
    if (!(error instanceof GatewayConfigError)) throw error;
  });
  return server.listen({ port: 0 });
}

export async function plug(client: ServiceClient): Promise<void> {
  const app = Fastify();
  await app.register(gateway, { client, routes, prefix: '/api' });
  await app.gateway.reload({ routes });
}

export const guard = fastifyGuard({
  identity: verifyIdentity({ keys: 'https://gateway.example/.well-known/jwks.json', audience: 'user-service' }),
});

// @ts-expect-error the options are typed, not any
void createGateway({ routes: '/users' });
`;

const typedConsumers = [typedConsumer, typedRedisConsumer, typedPostgresConsumer, typedGatewayConsumer];

const npm = process.env.npm_execpath ?? '';
const npx = join(dirname(npm), 'npx-cli.js');
const bin = resolve('node_modules/.bin');
const work = mkdtempSync(join(tmpdir(), 'holdfast-package-'));

function run(cwd: string, command: string, ...args: string[]): { stdout: string; stderr: string } {
  return runTo(0, cwd, command, ...args);
}

/** A program that starts another Node, as bins do, starts the one that it runs with. */
function runTo(exitCode: number, cwd: string, command: string, ...args: string[]) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    timeout: 120_000,
    env: { ...process.env, PATH: [dirname(command), process.env.PATH].join(delimiter) },
  });
  if (status === exitCode) return { stdout, stderr };
  const reason = error?.message ?? (signal ? `ended by ${signal}` : `exit code ${status}`);
  throw new Error(`${[command, ...args].join(' ')}\n${stdout}${stderr}${reason}`);
}

function passed(what: string): void {
  console.log(`✓ ${what}`);
}

function readJson(path: string) {
  return JSON.parse(readFileSync(path, 'utf8'));
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

function pack(): string {
  run('.', process.execPath, npm, 'pack', '--pack-destination', work);
  const { name, version } = readJson('package.json');
  return join(work, `${name}-${version}.tgz`);
}

/** Installs the tarball with npm under the given Node, and runs the consumer scripts there. */
function checkConsumer(tarball: string, { version, ...majors }: (typeof nodes)[number]): void {
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
  checkEntries(version, 'without ioredis');
  checkCommand(version, /npm install ioredis$/m);

  const ioredis = version.startsWith('20.') ? 'ioredis@5' : 'ioredis';
  run(consumer, node, npm, 'install', ioredis);
  checkEntries(version, `with ${ioredis}`);
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

function checkEntries(version: string, setting: string): void {
  for (const script of ['esm.mjs', 'commonjs.cjs']) {
    const { stderr } = run(consumerFolder(version), nodeBinary(version), script);
    if (stderr !== '') throw new Error(`Node ${version}: ${script} printed to stderr:\n${stderr}`);
    passed(`Node ${version}, ${setting}: ${script} loads, calls, retries, closes and exits`);
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

/** Compiles a typed consumer against what is installed for the given Node. */
function checkTypes({ version }: (typeof nodes)[number], source: string): void {
  const consumer = consumerFolder(version);
  for (const { module, files } of [
    { module: ['nodenext'], files: ['typed.mts', 'typed.cts'] },
    { module: ['esnext', '--moduleResolution', 'bundler'], files: ['typed.ts'] },
  ]) {
    for (const file of files) writeFileSync(join(consumer, file), source);
    const types = ['--types', 'node', '--typeRoots', resolve('node_modules/@types')];
    run(consumer, join(bin, 'tsc'), '--noEmit', '--strict', '--module', ...module, ...types, ...files);
    passed(`Node ${version}: tsc --module ${module.join(' ')} ${files.join(' ')}`);
  }
}

try {
  const tarball = pack();
  passed('npm pack');
  run('.', join(bin, 'publint'), 'run', '--strict', tarball);
  passed('publint');
  // Older ways of resolving modules know no entries but the main one.
  run('.', join(bin, 'attw'), '--profile', 'node16', tarball);
  passed('are the types wrong');
  for (const node of nodes) checkConsumer(tarball, node);
  for (const node of [nodes.at(0)!, nodes.at(-1)!]) {
    run(consumerFolder(node.version), nodeBinary(node.version), npm, 'install', 'fastify');
    for (const source of typedConsumers) checkTypes(node, source);
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
