import { randomUUID } from 'node:crypto';
import { type PublishEvents, publishBySaga } from '../saga/publish-by-saga.ts';
import type { RedisConnection } from './redis-connection.ts';
import { SETTLE_EVENTS, TAKE_EVENTS } from './saga-scripts.ts';

/** Milliseconds after which another process may publish what one that has died was publishing. */
const LOCK_TIMEOUT = 15_000;
/** The most sagas of a bucket whose events are published at once, and the most events of each. */
const MAX_SAGAS = 20;
const MAX_EVENTS = 50;

/** A saga and its events, as JSON. */
type Taken = readonly [sagaId: string, events: readonly string[]];

/**
 * Publishes some of the kept events of each bucket that no other process has the lock of, and forgets
 * what is published; gives how many. A process that is slower than its lock publishes what another does
 * too: never out of their order, but again.
 *
 * @throws the first error of `publish`, once all sagas were taken care of
 */
export async function publishKept(
  connection: RedisConnection,
  buckets: readonly string[],
  publish: PublishEvents,
): Promise<number> {
  const token = randomUUID();
  // All buckets are locked before anything is published.
  const taken = await Promise.all(
    buckets.map(async (bucket) => {
      const args = [token, LOCK_TIMEOUT, MAX_SAGAS, MAX_EVENTS];
      return (await connection.evaluate(TAKE_EVENTS, [bucket], args)) as Taken[];
    }),
  );
  const published = await Promise.all(
    taken.map(async (sagas, index) => {
      if (sagas.length === 0) return { count: 0, errors: [] };
      const read = (event: string) => JSON.parse(event);
      const { sagaIds, count, errors } = await publishBySaga(new Map(sagas), read, publish);
      const counts = sagas.flatMap(([sagaId, { length }]) => [sagaId, sagaIds.includes(sagaId) ? length : 0]);
      await connection.evaluate(SETTLE_EVENTS, [buckets[index]!], [token, ...counts]);
      return { count, errors };
    }),
  );
  const [error] = published.flatMap(({ errors }) => errors);
  if (error !== undefined) throw error;
  return published.reduce((sum, { count }) => sum + count, 0);
}
