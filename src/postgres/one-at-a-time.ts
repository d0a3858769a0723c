import { AsyncLocalStorage } from 'node:async_hooks';
import { DatabaseError } from '../errors.ts';
import { processState } from '../internal/process-state.ts';
import { shown } from '../internal/shown.ts';
import type { Transaction } from './database.ts';

/** A `once` under way in a transaction, and the one that it is called within. */
interface Call {
  readonly key: string;
  readonly outer: Call | undefined;
}

/** The innermost calls, by the connections as drivers know them. */
const innermost = processState('once-by-connection', () => new WeakMap<object, Call>());
const current = processState('current-once', () => new AsyncLocalStorage<Call>());

/**
 * Runs a `once` unless another one is under way in the transaction, but for one that it is called
 * within: the failure of one would undo what another has done.
 *
 * @throws DatabaseError otherwise, and within a call with the same key, whose result is not known yet
 */
export async function oneAtATime<T>(tx: Transaction, key: string, run: () => Promise<T>): Promise<T> {
  const connection = (tx.raw ?? tx) as object;
  const outer = innermost.get(connection);
  if (outer !== undefined && outer !== current.getStore()) {
    throw new DatabaseError('another once() is under way in this transaction: await one before the next');
  }
  if (isUnderWay(key, outer)) {
    throw new DatabaseError(`once() was called with the key ${shown(key)} within the function of that key`);
  }
  const call = { key, outer };
  innermost.set(connection, call);
  try {
    return await current.run(call, run);
  } finally {
    if (outer === undefined) innermost.delete(connection);
    else innermost.set(connection, outer);
  }
}

function isUnderWay(key: string, call: Call | undefined): boolean {
  return call !== undefined && (call.key === key || isUnderWay(key, call.outer));
}
