/** Shared by the checks of the package: the tarball, and projects that use it as its users do. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';

/** npm, as the script that runs this has been started by it. */
export const npm = process.env.npm_execpath ?? '';

/** Programs that use each entry of the package, for the compiler alone. */
const TYPED = 'scripts/consumer/typed';

/** The packages that the typed programs import besides this one. */
export const TYPED_PEERS = ['@types/node@24', 'ioredis', 'fastify'];

/** Runs a program to its end. A program that starts another Node, as bins do, starts the one that it runs with. */
export function runTo(exitCode: number, cwd: string, command: string, ...args: string[]) {
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

export function run(cwd: string, command: string, ...args: string[]): { stdout: string; stderr: string } {
  return runTo(0, cwd, command, ...args);
}

export function readJson(path: string) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Builds and packs the package; gives the path of its tarball. */
export function pack(folder: string): string {
  run('.', process.execPath, npm, 'pack', '--pack-destination', folder);
  const { name, version } = readJson('package.json');
  return join(folder, `${name}-${version}.tgz`);
}

/** Installs packages in a new project. */
export function createProject(folder: string, ...packages: string[]): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "private": true }');
  const quick = ['--prefer-offline', '--no-audit', '--no-fund'];
  run(folder, process.execPath, npm, 'install', ...quick, ...packages);
}

/** Copies the typed programs, each under the ending that says which kind of module it is; gives their names. */
export function copyTyped(folder: string, ending: 'mts' | 'cts' | 'ts'): string[] {
  mkdirSync(folder, { recursive: true });
  return readdirSync(TYPED).map((file) => {
    const name = file.replace(/\.ts$/, `.${ending}`);
    copyFileSync(resolve(TYPED, file), join(folder, name));
    return name;
  });
}
