import type pg from 'pg';
import { currentRequestContext, ServerGuard, type ServerGuardOptions } from '../../src/index.ts';
import { fromPg, PostgresIdempotencyStore } from '../../src/postgres/index.ts';
import type { News } from './service.ts';
import { KEY_RETENTION } from './service-database.ts';

/**
 * Makes the guard of an instance: a request that comes again gets the response of the first one, also at
 * another instance, and one that was undone before it came is rejected.
 *
 * It keeps the response apart from the effect, so that a crash between the two can have a request handled
 * again. So what touches money or stock has a key in its own transaction as well.
 *
 * @param identity tells who a request was made for, as the gateway has signed it
 */
export function createGuard(
  service: string,
  pool: pg.Pool,
  tell: (news: News) => void,
  identity?: ServerGuardOptions['identity'],
): ServerGuard {
  const guard = new ServerGuard({
    identity,
    idempotency: {
      // On a machine that is too busy it is better to wait for a key than to have all ask again.
      store: new PostgresIdempotencyStore({ database: fromPg(pool), service, timeout: 5_000 }),
      // The shop is one application. By their credentials the process that takes over a saga would be
      // another caller than the one that has died, and what that one has asked for would be done again.
      // A customer has keys of its own, or would get what another one has got for the same key.
      scope: ({ identity }) =>
        identity === undefined ? 'shop' : JSON.stringify([identity.kind, identity.subject]),
      // The key of a process that was killed is free again before the next attempt is given up.
      lockTimeout: 1_000,
      ttl: KEY_RETENTION,
    },
  });
  guard.on('replay', () => tell({ kind: 'replay' }));
  guard.on('reject', ({ rejection }) => {
    if (rejection.code === 'ERR_IDEMPOTENCY_KEY_REVOKED') tell({ kind: 'revoked' });
  });
  return guard;
}

/** Whether this request undoes one that the service has rejected with the status: nothing was done then. */
export function undoesRejected(status: number): boolean {
  const { compensates } = currentRequestContext() ?? {};
  return compensates?.seen === true && compensates.response.status === status;
}
