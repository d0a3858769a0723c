import type { JWTPayload } from 'jose';
import type { ApiKeyCaller } from './auth-options.ts';

/** The caller that makes a request, as a token or an API key has proven. */
export interface Principal {
  readonly kind: 'jwt' | 'apiKey';
  readonly subject: string | undefined;
  readonly scopes: ReadonlySet<string>;
  /** The claims of the token; of an API key its subject alone, as `sub`. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** Milliseconds since the epoch; Infinity for an API key. */
  readonly expiresAt: number;
}

/** Reads who a verified token belongs to; gives undefined if its `sub` or its scopes are malformed. */
export function toTokenPrincipal(claims: JWTPayload): Principal | undefined {
  const { sub: subject, exp } = claims;
  const scopes = readScopes(claims.scope ?? claims.scp);
  if (scopes === undefined || (subject !== undefined && typeof subject !== 'string')) return undefined;
  return { kind: 'jwt', subject, scopes, claims: Object.freeze(claims), expiresAt: exp! * 1000 };
}

/**
 * Reads scopes: a string with spaces (`scope` of RFC 9068 and RFC 8693), or a list, which is the
 * form of some providers, in `scp` often.
 */
export function readScopes(value: unknown): ReadonlySet<string> | undefined {
  if (value === undefined) return new Set();
  if (typeof value === 'string') return new Set(value.split(' ').filter((scope) => scope !== ''));
  // With a space it would be two where scopes are a string again.
  const isList =
    Array.isArray(value) && value.every((scope) => typeof scope === 'string' && !scope.includes(' '));
  return isList ? new Set(value) : undefined;
}

export function toApiKeyPrincipal({ subject, scopes = [] }: ApiKeyCaller): Principal {
  const claims = Object.freeze({ sub: subject });
  return { kind: 'apiKey', subject, scopes: new Set(scopes), claims, expiresAt: Infinity };
}
