import { fork } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

/** An instance (see instance.ts) in a process of its own. */
export interface InstanceProcess {
  readonly origin: string;
  /** How many requests it has received so far. */
  readonly received: number;
  /** Sends the responses that it holds, and from now on responds at once. */
  release(): void;
  /** Ends it with SIGKILL, as a crash would. */
  kill(): Promise<void>;
}

/** A server (see held-server.ts) in a process of its own. */
export interface HeldServer {
  readonly origin: string;
  readonly port: number;
  /** How many requests it has received so far. */
  readonly received: number;
  /** From now on it holds its responses; resolves when it knows. */
  hold(): Promise<void>;
  /** Sends what it holds, and from now on responds at once. */
  release(): void;
  /** Closes the connections on which nothing is under way. */
  closeIdleConnections(): void;
  kill(): Promise<void>;
}

/** To be killed by whoever has started it. */
export async function startHeldServer(): Promise<HeldServer> {
  const child = fork(new URL('./held-server.ts', import.meta.url));
  const exited = once(child, 'exit');
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  let received = 0;
  let holding = () => {};
  child.on('message', (message) => {
    if (message === 'received') received++;
    else holding();
  });
  return {
    origin: `http://127.0.0.1:${port}`,
    port,
    get received() {
      return received;
    },
    hold() {
      return new Promise((resolve) => {
        holding = resolve;
        child.send('hold');
      });
    },
    release: () => void child.send('release'),
    closeIdleConnections: () => void child.send('close idle connections'),
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

export async function startInstance(): Promise<InstanceProcess> {
  const child = fork(new URL('./instance.ts', import.meta.url));
  const exited = once(child, 'exit');
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  let received = 0;
  child.on('message', () => received++);
  const kill = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  onTestFinished(kill);
  return {
    origin: `http://127.0.0.1:${port}`,
    get received() {
      return received;
    },
    release: () => void child.send('release'),
    kill,
  };
}
