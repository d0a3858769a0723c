import { fork } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

/** An instance (see instance.ts) in a process of its own. */
export interface InstanceProcess {
  readonly origin: string;
  /** How many requests it has received so far. */
  readonly received: number;
  /** Answers what it holds, and from now on at once. */
  release(): void;
  /** Ends it with SIGKILL, as a crash would. */
  kill(): Promise<void>;
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
