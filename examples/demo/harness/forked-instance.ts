import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { Switches } from '../misbehaviour.ts';
import type { Instance, News } from '../service.ts';

/**
 * A message of the process of an instance: that it is ready, its news, or what it received after a
 * command.
 */
export type FromInstance = { instanceId: string } | { news: News } | { received: number };

/** A message to it: a question for what it has received, before which switches may be set. */
export interface ToInstance {
  readonly switches?: Partial<Switches>;
}

/** Starts an instance in a process of its own. */
export async function forkInstance(
  service: string,
  args: readonly string[],
  tell: (news: News) => void,
): Promise<Instance> {
  // Not by way of ts-node, which brought this process up: Node strips types by itself, and starts sooner.
  const program = new URL('./instance-process.ts', import.meta.url);
  // Ctrl-C reaches every process of a terminal's group: what becomes of this one is for the demo to say.
  const child = fork(program, [service, ...args], { execArgv: [], detached: true });
  let ending = false;
  const exited = once(child, 'exit').then(([code, signal]) => {
    if (ending) return;
    ending = true;
    throw new Error(`a process of ${service} has ended by itself (${signal ?? `exit code ${code}`})`);
  });

  const pending: ((received: number) => void)[] = [];
  const ready = new Promise<string>((resolve) => {
    child.on('message', (message: FromInstance) => {
      if ('news' in message) tell(message.news);
      else if ('received' in message) pending.shift()!(message.received);
      else resolve(message.instanceId);
    });
  });
  const instanceId = (await Promise.race([ready, exited])) as string;
  const command = (message: ToInstance) =>
    new Promise<number>((resolve) => {
      pending.push(resolve);
      child.send(message);
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
      await command({ switches });
    },
    received: () => command({}),
    kill: () => end(() => child.kill('SIGKILL')),
    stop: () => end(() => child.disconnect()),
  };
}
