/** Checks that the imports in src/ go one way: see `rooms` for what each folder may import. */
import { globSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import ts from 'typescript';

const core = [
  'errors',
  'internal',
  'policies',
  'discovery',
  'balancing',
  'client',
  'middleware',
  'events',
  'saga',
];

/**
 * Lists what each room may import besides itself: rooms, and single files that import nothing themselves.
 * A room is a folder of src/, or a file that stands there alone.
 */
export const rooms: Record<string, readonly string[]> = {
  errors: ['internal/shown.ts'],
  internal: ['errors'],
  policies: ['errors', 'internal'],
  discovery: ['errors', 'internal', 'policies'],
  balancing: ['errors', 'internal', 'policies', 'discovery'],
  client: ['errors', 'internal', 'policies', 'discovery', 'balancing'],
  middleware: ['errors', 'internal', 'policies', 'discovery', 'balancing', 'client'],
  gateway: ['errors', 'internal', 'policies', 'discovery', 'balancing', 'client', 'middleware'],
  events: ['errors', 'internal', 'policies'],
  saga: ['errors', 'internal', 'policies', 'discovery', 'balancing', 'client', 'events'],
  observe: core,
  redis: core,
  postgres: core,
  telemetry: core,
  testing: core,
  cli: [...core, 'observe', 'redis', 'postgres', 'gateway'],
  index: [...core, 'observe'],
};

const peerRooms: Record<string, string> = {
  axios: 'middleware',
  ioredis: 'redis',
  pg: 'postgres',
  fastify: 'gateway',
  '@fastify/cors': 'gateway',
  '@fastify/helmet': 'gateway',
  yaml: 'gateway',
  '@opentelemetry/api': 'telemetry',
  'prom-client': 'telemetry',
};

function roomOf(path: string): string {
  return path.startsWith('src/') ? path.split('/')[1]!.replace(/\.ts$/, '') : path;
}

function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

/** One message for each import, re-export, dynamic import or type import of the file that is not allowed. */
export function checkImports(file: string, source: string, dependencies: readonly string[]): string[] {
  const room = roomOf(file);
  const allowedRooms = rooms[room];
  if (allowedRooms === undefined) {
    return [`${file}: no room is named '${room}'; the rooms are ${Object.keys(rooms).join(', ')}`];
  }
  const peers = Object.keys(peerRooms).filter((name) => peerRooms[name] === room);
  const allowedPackages = [...dependencies, ...peers];

  return ts.preProcessFile(source, true, true).importedFiles.flatMap(({ fileName, pos }) => {
    const relative = fileName.startsWith('.');
    if (fileName.startsWith('node:')) return [];
    const path = posix.join(posix.dirname(file), fileName);
    const target = relative ? roomOf(path) : packageOf(fileName);
    const allowed = relative ? allowedRooms : allowedPackages;
    if ((relative && target === room) || allowed.includes(target)) return [];
    if (relative && allowed.includes(path.replace(/^src\//, ''))) return [];
    const line = source.slice(0, pos).split('\n').length;
    const may = allowed.length > 0 ? `only ${allowed.join(', ')}` : 'nothing';
    return [`${file}:${line}: '${fileName}': ${room} → ${target} is not allowed; ${room} may import ${may}`];
  });
}

if (import.meta.main) {
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8'));
  const files = globSync('src/**/*.ts').map((file) => file.replaceAll('\\', '/'));
  const problems = files.flatMap((file) =>
    checkImports(file, readFileSync(file, 'utf8'), Object.keys(dependencies)),
  );
  for (const problem of problems) console.error(problem);
  console.log(`Checked the imports of ${files.length} files: ${problems.length} not allowed.`);
  process.exitCode = files.length === 0 || problems.length > 0 ? 1 : 0;
}
