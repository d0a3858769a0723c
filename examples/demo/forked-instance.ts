import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { Instance, News, Switches } from './service.ts';

/**
 * A message of the process of an instance: that it is ready, its news, or what it received after a
 * command.
 */
export type FromInstance = { instanceId: string } | { news: News } | { received: number };

/** Starts an instance in a process of its own. */
export async function forkInstance(
  service: string,
  args: readonly string[],
  tell: (news: News) => void,
): Promise<Instance> {
  // Not by way of ts-node, which brought this process up: Node strips types by itself, and starts sooner.
  const program = new URL('./instance-process.ts', import.meta.url);
  const child = fork(program, [service, ...args], { execArgv: [] });
  let ending = false;
  const exited = once(child, 'exit').then(([code, signal]) => {
    if (ending) return;
    console.error(`a process of ${service} has ended by itself (${signal ?? `exit code ${code}`})`);
    process.exit(1);
  });

  const pending: ((received: number) => void)[] = [];
  const instanceId = await new Promise<string>((resolve) => {
    child.on('message', (message: FromInstance) => {
      if ('news' in message) tell(message.news);
      else if ('received' in message) pending.shift()!(message.received);
      else resolve(message.instanceId);
    });
  });
  const command = (switches: Partial<Switches>) =>
    new Promise<number>((resolve) => {
      pending.push(resolve);
      child.send(switches);
    });
  const end = (how: () => void) => {
    if (!ending) how();
    ending = true;
    return exited;
  };

  return {
    service,
    instanceId,
    async set(switches) {
      await command(switches);
    },
    received: () => command({}),
    kill: () => end(() => child.kill('SIGKILL')),
    stop: () => end(() => child.disconnect()),
  };
}
