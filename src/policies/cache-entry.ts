import { decided } from '../internal/decision.ts';
import { jitter as spread } from '../internal/jitter.ts';
import { anObject, anyDuration, anyNumber } from '../internal/validate.ts';
import type { CacheOptions, Freshness } from './cache-options.ts';
import type { Context } from './context.ts';
import { isRejection, type Outcome } from './outcome.ts';

/** Times on the clock of the cache. */
export interface Entry {
  readonly outcome: Outcome<unknown>;
  /** begunAt is when the call that gave it began. */
  readonly begunAt: number;
  readonly freshUntil: number;
  readonly revalidateUntil: number;
  readonly errorUntil: number;
}

/** The call that gave a result, and the time at which it has ended. */
interface EndedCall {
  readonly key: string;
  readonly begunAt: number;
  readonly now: number;
}

/** Creates the entry of an outcome; gives undefined if it is not to be kept. */
export function createEntry(
  options: CacheOptions,
  outcome: Outcome<unknown>,
  context: Context,
  { key, begunAt: began, now }: EndedCall,
): Entry | undefined {
  if (!outcome.ok && (context.aborted || isRejection(outcome.error))) return undefined;
  // The time of a clock that was set back begins anew.
  const begunAt = Math.min(began, now);
  const { freshness, jitter = 0.1, random = Math.random } = options;
  const own =
    freshness === undefined
      ? {}
      : decided(freshness(outcome, context, { key, elapsed: now - begunAt }), "Cache option 'freshness'");
  if (own === undefined) return undefined;
  if (freshness !== undefined) checkFreshness(own);
  const { ttl = outcome.ok ? (options.ttl ?? 0) : (options.negativeTtl ?? 0) } = own;
  const { staleWhileRevalidate = options.staleWhileRevalidate ?? 0 } = own;
  const { staleIfError = options.staleIfError ?? 0 } = own;
  const chance = () => decided(random(), "Cache option 'random'");
  const freshUntil = now + (ttl > 0 ? spread(ttl, 1, 1 - jitter, chance) : ttl);
  const entry: Entry = {
    outcome,
    begunAt,
    freshUntil,
    revalidateUntil: outcome.ok ? freshUntil + staleWhileRevalidate : freshUntil,
    errorUntil: outcome.ok ? freshUntil + staleIfError : freshUntil,
  };
  return isUsable(entry, now) ? entry : undefined;
}

/** Checks the times of a Freshness; other fields do not matter. */
function checkFreshness(given: Freshness): void {
  const what = "what Cache option 'freshness' gives";
  anObject(given, what);
  const { ttl, staleWhileRevalidate, staleIfError } = given;
  if (ttl !== undefined) anyNumber(ttl, `${what}, 'ttl',`);
  if (staleWhileRevalidate !== undefined)
    anyDuration(staleWhileRevalidate, `${what}, 'staleWhileRevalidate',`);
  if (staleIfError !== undefined) anyDuration(staleIfError, `${what}, 'staleIfError',`);
}

/** Whether an entry may be served in any way. How old it is is not known if the clock was set back since. */
export function isUsable({ begunAt, freshUntil, revalidateUntil, errorUntil }: Entry, now: number): boolean {
  if (now < begunAt) return false;
  return now < freshUntil || now < revalidateUntil || now < errorUntil;
}

export function resultOf<T>({ outcome }: Entry): Promise<T> {
  return outcome.ok ? Promise.resolve(outcome.value as T) : Promise.reject(outcome.error);
}
