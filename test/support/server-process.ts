import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';

/** Describes a server: by what its start is known, and what has to be done if this process dies. */
export interface ServerProcess {
  /** A text of its output by which it says that it has started. */
  readonly ready: string;
  /** A script of sh for the server's process `$1` and its directory `$2`, once this process has died. */
  readonly cleanUp: string;
  /** Empty if it is to stay. */
  readonly directory: string;
}

/** Resolves when a server has started that was just spawned; from then on it does not keep this process alive. */
export async function awaitStart(
  child: ChildProcess,
  { ready, cleanUp, directory }: ServerProcess,
): Promise<void> {
  const streams = [child.stdout, child.stderr].filter((stream): stream is Readable => stream !== null);
  let output = '';
  await new Promise<void>((resolve, reject) => {
    for (const stream of streams) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
        if (output.includes(ready)) resolve();
      });
    }
    child.once('error', reject);
    child.once('close', () => reject(new Error(`${child.spawnfile} ended at its start:\n${output}`)));
    if (child.pid !== undefined) guard(child, cleanUp, directory);
  });
  // A pipe of a child is a socket, which alone would keep this process alive.
  for (const stream of streams) (stream.removeAllListeners('data').resume() as Socket).unref();
  child.unref();
}

/** Ends a server, unless it has ended. */
export async function endProcess(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.ref();
  child.kill(signal);
  await exited;
}

/** A shell that cleans up when this process has died, however it died. */
function guard(child: ChildProcess, cleanUp: string, directory: string): void {
  const shell = spawn('sh', ['-c', `read -r _; ${cleanUp}`, 'sh', String(child.pid), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // A Ctrl-C at the terminal ends this process, and must not end the shell.
    detached: true,
  });
  shell.unref();
  child.once('exit', () => shell.kill('SIGKILL'));
}
