import { createHash } from 'node:crypto';
import type { Principal } from '../auth/principal.ts';
import { toCountedAddress } from './counted-address.ts';

/** The sender of a request, as far as is known. */
export interface Client {
  /** The address of the client, which trusted proxies have told or the socket has. */
  readonly address: string | undefined;
  readonly principal: Principal | undefined;
}

/** The part of a request that a limit counts by. */
export type CountBy =
  | { readonly kind: 'address' }
  | { readonly kind: 'key' }
  | { readonly kind: 'claim'; readonly claim: string };

/** The longest value that is part of a key as it is; of a longer one, a hash is. */
const MAX_VALUE = 128;

/** Parses the option `by` of a rule, which was validated. */
export function parseCountBy(by = 'address'): CountBy {
  if (by === 'address' || by === 'key') return { kind: by };
  return { kind: 'claim', claim: by.slice('claim:'.length) };
}

/**
 * Names the client that a request is counted for. One without the key or the claim is counted by its
 * address: else a client would escape its limit by leaving its token out.
 */
export function nameClient(by: CountBy, { address, principal }: Client): string {
  const value = by.kind === 'address' ? undefined : readValue(by, principal);
  if (value === undefined) return `address:${toCountedAddress(address)}`;
  return `${by.kind}:${value.length > MAX_VALUE ? hash(value) : value}`;
}

function readValue(
  by: Exclude<CountBy, { kind: 'address' }>,
  principal: Principal | undefined,
): string | undefined {
  if (by.kind === 'key') return principal?.kind === 'apiKey' ? principal.subject : undefined;
  if (principal?.kind !== 'jwt' || !Object.hasOwn(principal.claims, by.claim)) return undefined;
  const value = principal.claims[by.claim];
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  // Two issuers may give the same subject to two people.
  return JSON.stringify([principal.claims.iss, by.claim, value]);
}

function hash(value: string): string {
  return createHash('sha256').update(value).digest('base64url');
}
