import { createRequire } from 'node:module';
import { parseCommand, USAGE } from './arguments.ts';
import { CommandError } from './command-error.ts';
import type { CommandIo } from './command-io.ts';
import type { EventsCommand } from './events-arguments.ts';
import { load } from './load.ts';
import { Output } from './output.ts';
import { printable } from './printable.ts';
import type { SagasCommand } from './sagas-arguments.ts';

/** Runs a command line, and gives its exit code. */
export async function run(args: readonly string[], io: CommandIo): Promise<number> {
  const output = new Output(io.stdout);
  try {
    await dispatch(args, output, io);
    await output.finish();
    return 0;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    // An error of a file has a line for each problem.
    const lines = error.message.split('\n').map(printable);
    io.stderr.write(`holdfast: ${lines.join('\n')}\n`);
    return error.exitCode;
  }
}

async function dispatch(args: readonly string[], output: Output, io: CommandIo): Promise<void> {
  const command = parseCommand(args, io.env);
  switch (command.command) {
    case 'help':
      output.write(USAGE);
      break;
    case 'version':
      output.write(`${readVersion()}\n`);
      break;
    case 'services': {
      const { runServicesCommand } = await load('services', 'ioredis', () => import('./services-command.ts'));
      await runServicesCommand(command, output, io);
      break;
    }
    case 'events':
      await dispatchEvents(command, output);
      break;
    case 'sagas':
      await dispatchSagas(command, output);
      break;
    case 'gateway': {
      const { runGatewayCommand } = await load('gateway', 'fastify', () => import('./gateway-command.ts'));
      await runGatewayCommand(command, output, io);
      break;
    }
  }
}

async function dispatchEvents(command: EventsCommand, output: Output): Promise<void> {
  if (command.action === 'reset-source') {
    const { runResetSourceCommand } = await load(
      'events reset-source',
      'pg',
      () => import('./reset-source-command.ts'),
    );
    await runResetSourceCommand(command, output);
  } else {
    const { runEventsCommand } = await load('events', 'ioredis', () => import('./events-command.ts'));
    await runEventsCommand(command, output);
  }
}

async function dispatchSagas({ store, ...command }: SagasCommand, output: Output): Promise<void> {
  if ('postgres' in store) {
    const { runPostgresSagasCommand } = await load('sagas', 'pg', () => import('./postgres-sagas.ts'));
    await runPostgresSagasCommand(command, store, output);
  } else {
    const { runRedisSagasCommand } = await load('sagas', 'ioredis', () => import('./redis-sagas.ts'));
    await runRedisSagasCommand(command, store, output);
  }
}

function readVersion(): string {
  const load = createRequire(import.meta.url);
  return load('holdfast/package.json').version;
}
