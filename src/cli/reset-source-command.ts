import { HoldfastError } from '../errors.ts';
import { resetSource } from '../postgres/source.ts';
import { withPgClient } from '../postgres/with-pg-client.ts';
import { CommandError } from './command-error.ts';
import type { ResetSourceCommand } from './events-arguments.ts';
import type { Output } from './output.ts';
import { printableJson } from './printable.ts';
import { redactPassword } from './redact.ts';

/**
 * Gives a database a new id.
 *
 * @throws CommandError if the database cannot be reached, or was never migrated
 */
export async function runResetSourceCommand(command: ResetSourceCommand, output: Output): Promise<void> {
  const { postgres, timeout, json } = command;
  const source = await reset(postgres, timeout);
  if (json) output.write(`${printableJson([{ source }], 2)}\n`);
  else output.write(`the database has the id ${source} now: restart what relays its outbox\n`);
}

async function reset(url: string, timeout: number): Promise<string> {
  try {
    return await withPgClient(url, timeout, resetSource);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    const reason = redactPassword(error.message, url);
    throw new CommandError(`the database at ${new URL(url).host}: ${reason}`, { cause: error });
  }
}
