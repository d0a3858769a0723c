import type { JSONWebKeySet, JWK } from 'jose';
import { listOf, matching, nonEmptyString, readByName } from '../../internal/validate.ts';
import { readSigningKey } from './identity-signer.ts';
import { checkKeys } from './key-source.ts';

export interface AuthOptions {
  /** One issuer of tokens, or several with a name each. */
  jwt?: JwtOptions | readonly JwtOptions[] | undefined;
  /**
   * Hashes of the keys, or a function that looks a key up within 5 seconds. What the function gives
   * for a key is kept for 10 seconds.
   */
  apiKeys?: readonly ApiKeyOptions[] | ApiKeyLookup | undefined;
  /** Whether `Authorization` goes on to services. Default true. `X-API-Key` never does. */
  forwardAuthorization?: boolean | undefined;
  /**
   * The key with which the gateway signs who the caller is: see `verifyIdentity`. It is an Ed25519
   * JWK with its private part, which all replicas of the gateway share. Default: one that is made at
   * the start, with a warning.
   */
  identity?: { key: JWK } | undefined;
}

/** An issuer of tokens. */
export interface JwtOptions {
  /** The `iss` of its tokens. */
  issuer: string;
  /** The `aud` of tokens for this gateway: one of these. */
  audience: string | readonly string[];
  /** Algorithms that are allowed, such as `ES256`; only those of public keys. */
  algorithms: readonly string[];
  /** The address of the keys, https or http on loopback, or the keys. */
  jwks: string | JSONWebKeySet;
  /** Milliseconds by which clocks may differ. Default 5,000. */
  clockTolerance?: number | undefined;
}

export interface ApiKeyOptions {
  /** The SHA-256 of the key, in hexadecimal. The key itself must be random: at least 128 bits. */
  hash: string;
  /** The name of the caller that has the key. */
  subject: string;
  /** The scopes of the key. Default: none. */
  scopes?: readonly string[] | undefined;
}

/** The holder of an API key. Other fields, such as those of a row in a database, are not looked at. */
export interface ApiKeyCaller {
  subject: string;
  scopes?: readonly string[] | undefined;
}

/** Nobody has the key. Clients of databases say it by any of these. */
type NoCaller = undefined | null | false;

/** Finds out who has an API key. */
export type ApiKeyLookup = (key: string) => ApiKeyCaller | NoCaller | Promise<ApiKeyCaller | NoCaller>;

/** Which callers a route lets in. */
export interface RouteAuth {
  /** Scopes that a caller must have, all of them. */
  scopes?: readonly string[] | undefined;
}

/** Algorithms with a public key (RFC 7518, RFC 8037, RFC 9864): with a secret one, who verifies can sign. */
export const PUBLIC_KEY_ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];

/** A scope as RFC 6749 allows it, section 3.3: it can stand in a header between quotes. */
export const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/**
 * Checks what the shapes of the options cannot say.
 *
 * @throws TypeError that begins with the option that is not allowed
 */
export function checkAuthOptions(options: AuthOptions): void {
  const { jwt, apiKeys, identity } = options;
  if (jwt === undefined && apiKeys === undefined) {
    throw new TypeError("auth needs the option 'jwt' or 'apiKeys'");
  }
  const issuers = jwtIssuers(options);
  issuers.forEach(({ jwks }, index) => {
    checkKeys(jwks, Array.isArray(jwt) ? `auth.jwt[${index}].jwks` : 'auth.jwt.jwks');
  });
  if (hasTwice(issuers.map(({ issuer }) => issuer))) throw new TypeError('auth.jwt has two of one issuer');
  if (Array.isArray(apiKeys) && hasTwice(apiKeys.map(({ hash }) => hash.toLowerCase()))) {
    throw new TypeError('auth.apiKeys has a key twice');
  }
  if (identity !== undefined) readSigningKey(identity.key, 'auth.identity.key');
}

export function jwtIssuers({ jwt = [] }: AuthOptions): readonly JwtOptions[] {
  // Array.isArray() does not tell a read-only list.
  return Array.isArray(jwt) ? jwt : [jwt as JwtOptions];
}

function hasTwice(names: readonly string[]): boolean {
  return new Set(names).size < names.length;
}

const scopeList = listOf(matching(SCOPE, 'a scope without spaces and quotes'), 'a list of scopes');

/** Checks what a function of the user gives for a key. */
export function checkApiKeyCaller(caller: ApiKeyCaller): void {
  const given = "what the function 'auth.apiKeys' gives";
  readByName(caller, given);
  nonEmptyString(caller.subject, `'subject' of ${given}`);
  if (caller.scopes !== undefined) scopeList(caller.scopes, `'scopes' of ${given}`);
}
