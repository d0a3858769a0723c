import type { Executor } from './database.ts';

/**
 * Gives the id of a database, a UUID that `migrate` wrote: the buses know by it how far they have
 * added the events of its outbox.
 */
export async function readSource(executor: Executor): Promise<string> {
  const { rows } = await executor.query('select id::text from holdfast.source');
  return rows[0].id;
}

/**
 * Gives a database a new id, and returns it. This is for a database that was restored from a backup,
 * or copied: its outbox then counts on from a position that the bus is past, and the bus would drop its
 * events as known. A relay that runs takes note when it starts again.
 */
export async function resetSource(executor: Executor): Promise<string> {
  const { rows } = await executor.query(
    'update holdfast.source set id = gen_random_uuid() returning id::text',
  );
  return rows[0].id;
}
