import type { JSONWebKeySet, JWK } from 'jose';
import {
  anObject,
  boolean,
  type Check,
  duration,
  either,
  isFunction,
  listOf,
  matching,
  nonEmptyString,
  oneOf,
  readByName,
  requireOption,
  validateOptions,
} from '../../internal/validate.ts';
import { readSigningKey } from './identity-signer.ts';
import { checkKeys } from './key-source.ts';

export interface AuthOptions {
  /** One issuer of tokens, or several with a name each. */
  jwt?: JwtOptions | readonly JwtOptions[];
  /**
   * Hashes of the keys, or a function that looks a key up within 5 seconds. What the function gives
   * for a key is kept for 10 seconds.
   */
  apiKeys?: readonly ApiKeyOptions[] | ApiKeyLookup;
  /** Whether `Authorization` goes on to services. Default true. `X-API-Key` never does. */
  forwardAuthorization?: boolean;
  /**
   * The key with which the gateway signs who the caller is: see `verifyIdentity`. It is an Ed25519
   * JWK with its private part, which all replicas of the gateway share. Default: one that is made at
   * the start, with a warning.
   */
  identity?: { key: JWK };
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
  clockTolerance?: number;
}

export interface ApiKeyOptions {
  /** The SHA-256 of the key, in hexadecimal. The key itself must be random: at least 128 bits. */
  hash: string;
  /** The name of the caller that has the key. */
  subject: string;
  /** The scopes of the key. Default: none. */
  scopes?: readonly string[];
}

/** The holder of an API key. Other fields, such as those of a row in a database, are not looked at. */
export interface ApiKeyCaller {
  subject: string;
  scopes?: readonly string[];
}

/** Nobody has the key. Clients of databases say it by any of these. */
type NoCaller = undefined | null | false;

/** Finds out who has an API key. */
export type ApiKeyLookup = (key: string) => ApiKeyCaller | NoCaller | Promise<ApiKeyCaller | NoCaller>;

/** Which callers a route lets in. */
export interface RouteAuth {
  /** Scopes that a caller must have, all of them. */
  scopes?: readonly string[];
}

/** Algorithms with a public key (RFC 7518, RFC 8037, RFC 9864): with a secret one, who verifies can sign. */
const PUBLIC_KEY_ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];

/** A scope as RFC 6749 allows it, section 3.3: it can stand in a header between quotes. */
const scope = matching(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'a scope without spaces and quotes');
const scopes = listOf(scope, 'a list of scopes');

const nonEmptyList =
  (check: Check, expected: string): Check =>
  (value, option) => {
    listOf(check, expected)(value, option);
    if ((value as unknown[]).length === 0) throw new TypeError(`${option} must be ${expected}; got none`);
  };

/** @throws TypeError or RangeError that names the option that is not allowed */
export function checkAuthOptions(options: AuthOptions): void {
  validateOptions('auth', options, {
    jwt: checkJwt,
    apiKeys: either('a list of hashed keys, or a function', isFunction, listOf(anObject, 'a list')),
    forwardAuthorization: boolean,
    identity: anObject,
  });
  const { jwt, apiKeys, identity } = options;
  if (jwt === undefined && apiKeys === undefined) {
    throw new TypeError("auth needs the option 'jwt' or 'apiKeys'");
  }
  if (Array.isArray(apiKeys)) checkApiKeys(apiKeys);
  if (identity === undefined) return;
  validateOptions('auth.identity', identity, { key: (key, option) => void readSigningKey(key, option) });
  requireOption('auth.identity', identity, 'key');
}

/** @throws TypeError that names the option that is not allowed */
export function checkRouteAuth(auth: RouteAuth, owner: string): void {
  validateOptions(owner, auth, { scopes });
}

export function jwtIssuers({ jwt = [] }: AuthOptions): readonly JwtOptions[] {
  // Array.isArray() does not tell a read-only list.
  return Array.isArray(jwt) ? jwt : [jwt as JwtOptions];
}

function checkJwt(value: unknown, option: string): void {
  const several = Array.isArray(value);
  const issuers = several ? value : [value];
  nonEmptyList(anObject, 'an issuer, or a list of them')(issuers, option);
  issuers.forEach((issuer, index) => void checkIssuer(issuer, several ? `auth.jwt[${index}]` : 'auth.jwt'));
  if (new Set(issuers.map(({ issuer }) => issuer)).size < issuers.length) {
    throw new TypeError(`${option} has two of one issuer`);
  }
}

function checkIssuer(options: JwtOptions, owner: string): void {
  validateOptions(owner, options, {
    issuer: nonEmptyString,
    audience: either('a name, or a list of names', nonEmptyString, nonEmptyList(nonEmptyString, 'names')),
    algorithms: nonEmptyList(oneOf(...PUBLIC_KEY_ALGORITHMS), 'a list of algorithms'),
    jwks: checkKeys,
    clockTolerance: duration,
  });
  for (const name of ['issuer', 'audience', 'algorithms', 'jwks']) requireOption(owner, options, name);
}

function checkApiKeys(keys: readonly ApiKeyOptions[]): void {
  keys.forEach((key, index) => {
    const owner = `auth.apiKeys[${index}]`;
    validateOptions(owner, key, { hash: keyHash, subject: nonEmptyString, scopes });
    for (const name of ['hash', 'subject']) requireOption(owner, key, name);
  });
  if (new Set(keys.map(({ hash }) => hash.toLowerCase())).size < keys.length) {
    throw new TypeError("auth option 'apiKeys' has a key twice");
  }
}

/** Checks what a function of the user gives for a key. */
export function checkApiKeyCaller(caller: ApiKeyCaller): void {
  const given = "what the function 'auth.apiKeys' gives";
  readByName(caller, given);
  nonEmptyString(caller.subject, `'subject' of ${given}`);
  if (caller.scopes !== undefined) scopes(caller.scopes, `'scopes' of ${given}`);
}

/** Keeps the value out of its message: it may be the key itself, given in place of its hash. */
const keyHash: Check = (value, option) => {
  if (typeof value !== 'string' || !/^[\da-f]{64}$/i.test(value)) {
    throw new TypeError(`${option} must be the SHA-256 of a key, in hexadecimal`);
  }
};
