import type { JSONWebKeySet, JWTPayload } from 'jose';
import type { Identity } from '../../internal/request-context.ts';
import { duration, nonEmptyString, requireOption, validateOptions } from '../../internal/validate.ts';
import type { IdentityVerifier } from '../../middleware/server/guard/identity-verifier.ts';
import { AuthFailure } from './auth-failure.ts';
import { IDENTITY_HEADER, IDENTITY_ISSUER, IDENTITY_TYPE } from './identity-signer.ts';
import { checkKeys, toKeySource } from './key-source.ts';
import { readScopes } from './principal.ts';
import { TokenVerifier } from './token-verifier.ts';

export interface VerifyIdentityOptions {
  /**
   * The keys of the gateway: a JWKS, or its address, `/.well-known/jwks.json` of the gateway, by
   * https, or http on loopback.
   */
  keys: string | JSONWebKeySet;
  /** The name of this service, as the routes of the gateway have it. */
  audience: string;
  /** Milliseconds by which clocks may differ. Default 5,000. */
  clockTolerance?: number | undefined;
}

/**
 * Makes the option `identity` of a ServerGuard: requests have to come through the gateway, which
 * says in a signed header who makes them.
 *
 * @throws TypeError or RangeError that names the option that is not allowed
 *
 * @example
 * const identity = verifyIdentity({ keys: 'https://gateway/.well-known/jwks.json', audience: 'user-service' });
 * app.register(fastifyGuard({ identity }));
 */
export function verifyIdentity(options: VerifyIdentityOptions): IdentityVerifier {
  validateOptions('verifyIdentity()', options, {
    keys: checkKeys,
    audience: nonEmptyString,
    clockTolerance: duration,
  });
  for (const name of ['keys', 'audience']) requireOption('verifyIdentity()', options, name);
  const { keys, audience, clockTolerance = 5_000 } = options;
  const rules = { issuer: IDENTITY_ISSUER, algorithms: ['EdDSA'], types: [IDENTITY_TYPE] };
  const verifier = new TokenVerifier(
    [{ ...rules, audience, clockTolerance, keys: toKeySource(keys) }],
    toIdentity,
  );
  return ({ headers }) => {
    const value = headers[IDENTITY_HEADER];
    if (typeof value !== 'string') return 'missing';
    const verified = verifier.verify(value);
    return verified instanceof Promise ? verified.then(withReason) : withReason(verified);
  };
}

function withReason(verified: Identity | AuthFailure): Identity | AuthFailure['reason'] {
  return verified instanceof AuthFailure ? verified.reason : verified;
}

function toIdentity({ kind, sub: subject, scope, origin }: JWTPayload): Identity | undefined {
  const scopes = readScopes(scope);
  if ((kind !== 'jwt' && kind !== 'apiKey') || scopes === undefined) return undefined;
  return Object.freeze({ kind, subject, scopes, issuer: origin as string | undefined });
}
