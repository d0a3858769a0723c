import { createRequire } from 'node:module';
import { parseCommand, USAGE } from './arguments.ts';
import { CommandError } from './command-error.ts';
import type { CommandIo } from './command-io.ts';
import { Output } from './output.ts';
import { printable } from './printable.ts';

/** Runs a command line, and gives its exit code. */
export async function run(args: readonly string[], io: CommandIo): Promise<number> {
  const output = new Output(io.stdout);
  try {
    await dispatch(args, output, io);
    await output.finish();
    return 0;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    io.stderr.write(`holdfast: ${printable(error.message)}\n`);
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
      const { runServicesCommand } = await loadServicesCommand();
      await runServicesCommand(command, output, io);
      break;
    }
  }
}

function readVersion(): string {
  const load = createRequire(import.meta.url);
  return load('holdfast/package.json').version;
}

/** Loads the command when it is used: it imports ioredis, which need not be installed. */
async function loadServicesCommand() {
  try {
    return await import('./services-command.ts');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes("'ioredis'")) throw error;
    throw new CommandError(
      'services needs the package ioredis, which is not installed beside holdfast: npm install ioredis',
      { cause: error },
    );
  }
}
