import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { InMemoryServiceDiscovery, type ServiceDiscovery } from '../../src/index.ts';
import { type Database, MemoryDatabase } from './database.ts';
import { RedisRun, reach } from './redis-run.ts';
import { type Instance, type News, type Switches, startInstance } from './service.ts';

/** Where the instances run, and what they share. */
export interface Stage {
  readonly discovery: ServiceDiscovery;
  readonly database: Database;
  start(service: string, tell: (news: News) => void): Promise<Instance>;
  /** Once all instances have stopped. */
  close(): Promise<void>;
}

/** All of them in this process. */
export function memoryStage(): Stage {
  const discovery = new InMemoryServiceDiscovery();
  const database = new MemoryDatabase();
  return {
    discovery,
    database,
    start: (service, tell) => startInstance(service, { discovery, database, tell }),
    close: () => discovery.close(),
  };
}

/**
 * Each of them in a process of its own; Redis is what they share.
 *
 * @throws saying why, if no Redis responds.
 */
export async function redisStage(url: string): Promise<Stage> {
  await reach(url);
  const prefix = `holdfast-demo:${randomBytes(6).toString('hex')}`;
  const run = new RedisRun(url, prefix);
  return {
    discovery: run.discovery,
    database: run.database,
    start: (service, tell) => forkInstance(service, url, prefix, tell),
    close: () => run.close(),
  };
}

/**
 * A message of the process of an instance: that it is ready, its news, or what it received after a
 * command.
 */
export type FromInstance = { instanceId: string } | { news: News } | { received: number };

async function forkInstance(
  service: string,
  url: string,
  prefix: string,
  tell: (news: News) => void,
): Promise<Instance> {
  // Not by way of ts-node, which brought this process up: Node strips types by itself, and starts sooner.
  const program = new URL('./instance-process.ts', import.meta.url);
  const child = fork(program, [service, url, prefix], { execArgv: [] });
  let ending = false;
  const exited = once(child, 'exit').then(([code, signal]) => {
    if (ending) return;
    console.error(`a process of ${service} has ended by itself (${signal ?? `exit code ${code}`})`);
    process.exit(1);
  });

  const answers: ((received: number) => void)[] = [];
  const instanceId = await new Promise<string>((resolve) => {
    child.on('message', (message: FromInstance) => {
      if ('news' in message) tell(message.news);
      else if ('received' in message) answers.shift()!(message.received);
      else resolve(message.instanceId);
    });
  });
  const command = (switches: Partial<Switches>) =>
    new Promise<number>((resolve) => {
      answers.push(resolve);
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
