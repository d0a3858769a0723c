import { isSafeMethod } from '../../../client/methods.ts';
import type { IncomingRequest } from '../guard/incoming-request.ts';
import { COMPENSATES_KEY_INVALID, KEY_INVALID, type Rejection } from '../guard/rejection.ts';
import { parseIdempotencyKey } from './idempotency-key.ts';

/** The keys that a request carries: one of them at least. */
export interface RequestKeys {
  /** The key of the request itself. */
  readonly own: string | undefined;
  /** The key of the request that this one compensates. */
  readonly compensates: string | undefined;
}

/** A key that a request carries, if it does, or the rejection of a missing or malformed one. */
export type ReadKey = string | Rejection | undefined;

export type ReadKeys = RequestKeys | Rejection | undefined;

/**
 * Reads the `Idempotency-Key`. A PUT or DELETE that is sent twice does the same as one, and needs no
 * key; but one that comes after its compensation does harm, and is told by its key.
 */
export function readOwnKey({ method, headers }: IncomingRequest): ReadKey {
  const field = headers['idempotency-key'];
  if (field === undefined || isSafeMethod(method)) return undefined;
  return parseIdempotencyKey(field) ?? KEY_INVALID;
}

/** Reads the `Compensates-Key`, which has the form of an `Idempotency-Key`. */
export function readCompensatesKey({ headers }: IncomingRequest): ReadKey {
  const field = headers['compensates-key'];
  return field === undefined ? undefined : (parseIdempotencyKey(field) ?? COMPENSATES_KEY_INVALID);
}

/** Gives both keys, or why they are rejected; undefined if there are none. */
export function toRequestKeys(own: ReadKey, compensates: ReadKey): ReadKeys {
  if (typeof own === 'object') return own;
  if (typeof compensates === 'object') return compensates;
  if (compensates === undefined) return own === undefined ? undefined : { own, compensates };
  // The request would wait for itself.
  return own === compensates ? COMPENSATES_KEY_INVALID : { own, compensates };
}
