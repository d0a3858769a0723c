import { resetSource } from '../postgres/source.ts';
import type { ResetSourceCommand } from './events-arguments.ts';
import type { Output } from './output.ts';
import { printableJson } from './printable.ts';
import { withPostgres } from './with-postgres.ts';

/**
 * Gives a database a new id.
 *
 * @throws CommandError if the database cannot be reached, or was never migrated
 */
export async function runResetSourceCommand(command: ResetSourceCommand, output: Output): Promise<void> {
  const source = await withPostgres(command, resetSource);
  if (command.json) output.write(`${printableJson([{ source }], 2)}\n`);
  else output.write(`the database has the id ${source} now: restart what relays its outbox\n`);
}
