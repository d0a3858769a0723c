import { fork } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

export interface RollingInstanceOptions {
  redis: string;
  keyPrefix: string;
  serviceName: string;
  instanceId: string;
  /** Milliseconds from its deregistration until it accepts no more. */
  drainDelay: number;
}

/** An instance (see rolling-instance.ts) in a process of its own. */
export interface RollingInstance {
  /** Lets it listen and register. */
  begin(): Promise<void>;
  /** Sends SIGTERM and waits for its end; gives the orders that it has taken, and its exit code. */
  terminate(): Promise<{ orders: string[]; code: number | null }>;
}

/** Starts the process, and waits until it only has to be told to begin. */
export async function prepareInstance(options: RollingInstanceOptions): Promise<RollingInstance> {
  const child = fork(new URL('./rolling-instance.ts', import.meta.url), [JSON.stringify(options)]);
  const exited = once(child, 'exit');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  await once(child, 'message');
  return {
    async begin() {
      child.send('begin');
      await once(child, 'message');
    },
    async terminate() {
      let orders: string[] = [];
      child.once('message', (message: { orders: string[] }) => {
        orders = message.orders;
      });
      child.kill('SIGTERM');
      const [code] = await exited;
      return { orders, code };
    },
  };
}
