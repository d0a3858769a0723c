import { DatabaseError } from '../errors.ts';
import { OwnTransaction } from './bound-executor.ts';
import type { Executor } from './database.ts';

/** The setting lasts as long as the transaction: outside of one, not even until the next statement. */
const MARK = `select set_config('holdfast.transaction', 'open', true)`;

/** Whether the statement runs in a marked transaction, where it has to. @param parameter `$1` or so */
export const isOpen = (parameter: string) =>
  `(not ${parameter} or coalesce(current_setting('holdfast.transaction', true), '') = 'open')`;

/**
 * Marks the transaction of a connection that somebody else commits or rolls back, so that a statement
 * that comes after its end can find that out: it must not take effect by itself, nor in a transaction of
 * whoever has the connection by then. Gives whether it did: a Database runs statements by themselves,
 * and its own transactions know when they end.
 */
export async function markOpen(tx: Executor): Promise<boolean> {
  if ('transaction' in tx || tx instanceof OwnTransaction) return false;
  await tx.query(MARK);
  return true;
}

/** Creates the error of what was to be part of a transaction and came after its end. */
export function createOutsideError(called: string): DatabaseError {
  return new DatabaseError(
    `${called} was given a connection without an open transaction: await it before the transaction ends`,
  );
}
