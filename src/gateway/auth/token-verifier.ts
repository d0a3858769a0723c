import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from 'jose';
import { LRUCache } from 'lru-cache';
import { AuthFailure } from './auth-failure.ts';
import type { IssuerKey, KeySource } from './key-set.ts';

/** Whose tokens are accepted, and which of them. */
export interface TokenIssuer {
  readonly issuer: string;
  readonly audience: string | readonly string[];
  readonly algorithms: readonly string[];
  /** The media types that the header may name, in lower case without `application/`. */
  readonly types: readonly (string | undefined)[];
  /** Milliseconds by which clocks may differ. */
  readonly clockTolerance: number;
  readonly keys: KeySource;
}

interface VerifiedToken<Caller> {
  readonly caller: Caller;
  readonly key: IssuerKey;
  readonly keys: KeySource;
  /** Milliseconds since the epoch between which it is valid. */
  readonly from: number;
  readonly until: number;
}

/** The longest token: as long as all headers together may be in Node. */
const MAX_LENGTH = 16 * 1024;

/** The most bytes of verified tokens, as far as they can be estimated. */
const MAX_CACHE_SIZE = 32 * 1024 * 1024;

const MALFORMED = new AuthFailure('invalid', 'The token is malformed.');
const TOO_LONG = new AuthFailure('invalid', 'The token is too long.');
const UNKNOWN_ISSUER = new AuthFailure('invalid', 'The issuer of the token is unknown.');
const UNSUPPORTED = new AuthFailure('invalid', 'The token is of a type or algorithm that is not allowed.');
const UNKNOWN_KEY = new AuthFailure('invalid', 'The key of the token is unknown.');
const WRONG_SIGNATURE = new AuthFailure('invalid', 'The signature of the token is wrong.');
const EXPIRED = new AuthFailure('invalid', 'The token has expired.');
const WRONG_CLAIMS = new AuthFailure('invalid', 'A claim of the token is missing or wrong.');
const NO_KEYS = new AuthFailure('unavailable', 'The keys of the issuer cannot be fetched at the moment.');

/**
 * Verifies JSON Web Tokens of several issuers, and keeps those that are valid until they expire or
 * their key is withdrawn: a known token is found at once. The `iss` of a token says whose keys are
 * looked at, before its signature is verified by one of them.
 *
 * Source: RFC 8725, 'JSON Web Token Best Current Practices'. Headers of a token that bring or name a
 * key (`jwk`, `jku`, `x5u`, `x5c`) have no effect.
 */
export class TokenVerifier<Caller extends object> {
  readonly #issuers: ReadonlyMap<unknown, TokenIssuer>;
  readonly #toCaller: (claims: JWTPayload) => Caller | undefined;
  readonly #verified = new LRUCache<string, VerifiedToken<Caller>>({
    maxSize: MAX_CACHE_SIZE,
    // The claims are parsed from three quarters of the text, and take a few times as much.
    sizeCalculation: (_verified, token) => 1_000 + 4 * token.length,
  });

  /** @param toCaller reads the caller from verified claims; gives undefined if they are malformed */
  constructor(issuers: readonly TokenIssuer[], toCaller: (claims: JWTPayload) => Caller | undefined) {
    this.#issuers = new Map(issuers.map((issuer) => [issuer.issuer, issuer]));
    this.#toCaller = toCaller;
  }

  /** Gives the caller whose token it is, at once for a token that was verified before. */
  verify(token: string): Caller | AuthFailure | Promise<Caller | AuthFailure> {
    if (token.length > MAX_LENGTH) return TOO_LONG;
    const verified = this.#verified.get(token);
    return verified !== undefined && isValid(verified) ? verified.caller : this.#verify(token);
  }

  async #verify(token: string): Promise<Caller | AuthFailure> {
    try {
      const issuer = this.#issuers.get(decodeJwt(token).iss);
      if (issuer === undefined) return UNKNOWN_ISSUER;
      const header = decodeProtectedHeader(token);
      if (!isSupported(header, issuer)) return UNSUPPORTED;
      const key = await issuer.keys.find(header.kid);
      if (key === 'unknown') return UNKNOWN_KEY;
      if (key === 'unavailable') return NO_KEYS;
      return await this.#verifyBy(key, token, issuer);
    } catch (error) {
      return toFailure(error);
    }
  }

  async #verifyBy(key: IssuerKey, token: string, issuer: TokenIssuer): Promise<Caller | AuthFailure> {
    const { audience, clockTolerance, keys } = issuer;
    const { payload } = await jwtVerify(token, key.resolve, {
      issuer: issuer.issuer,
      audience: typeof audience === 'string' ? audience : [...audience],
      algorithms: [...issuer.algorithms],
      clockTolerance: clockTolerance / 1000,
      requiredClaims: ['exp'],
    });
    const caller = this.#toCaller(payload);
    if (caller === undefined) return WRONG_CLAIMS;
    const from = payload.nbf === undefined ? -Infinity : payload.nbf * 1000 - clockTolerance;
    const until = payload.exp! * 1000 + clockTolerance;
    this.#verified.set(token, { caller, key, keys, from, until });
    return caller;
  }
}

/** Looks at the clock each time: it may have been set since. */
function isValid({ key, keys, from, until }: VerifiedToken<unknown>): boolean {
  const now = Date.now();
  return now < until && now >= from && keys.keepFresh() && key.current;
}

function isSupported(header: Readonly<Record<string, unknown>>, issuer: TokenIssuer): boolean {
  const { alg, kid, typ, crit } = header;
  const type = typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : typ;
  return (
    issuer.algorithms.includes(alg as string) &&
    issuer.types.includes(type as string | undefined) &&
    (kid === undefined || typeof kid === 'string') &&
    // No extension is understood here, so one that must be is an error (RFC 7515, section 4.1.11).
    crit === undefined
  );
}

function toFailure(error: unknown): AuthFailure {
  if (error instanceof errors.JWSSignatureVerificationFailed) return WRONG_SIGNATURE;
  if (error instanceof errors.JWTExpired) return EXPIRED;
  if (error instanceof errors.JWTClaimValidationFailed) return WRONG_CLAIMS;
  if (error instanceof errors.JWKSNoMatchingKey) return UNKNOWN_KEY;
  return MALFORMED;
}
