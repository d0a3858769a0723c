import type { ClaimedSaga } from './saga-store.ts';

/**
 * Gives the sagas that a store has claimed and could read. One that failed must not reject them all: each
 * would wait until its lease is over.
 *
 * @throws the first error if there is no such saga
 */
export function collectClaims(
  claims: readonly PromiseSettledResult<ClaimedSaga | undefined>[],
): ClaimedSaga[] {
  const claimed = claims.flatMap((claim) => (claim.status === 'fulfilled' ? (claim.value ?? []) : []));
  const failed = claims.find((claim) => claim.status === 'rejected');
  if (failed !== undefined && claimed.length === 0) throw failed.reason;
  return claimed;
}
