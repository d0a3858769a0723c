import { isDeepStrictEqual } from 'node:util';
import { withDefaults } from '../../internal/with-defaults.ts';
import type { Rejection } from '../problem.ts';
import { type ApiKeys, createApiKeys } from './api-keys.ts';
import { AuthFailure } from './auth-failure.ts';
import { type AuthOptions, type JwtOptions, jwtIssuers, type RouteAuth } from './auth-options.ts';
import { rejectAmbiguous, rejectAnonymous, rejectFailed, rejectForbidden, type Scheme } from './challenge.ts';
import { IdentitySigner } from './identity-signer.ts';
import type { KeySource } from './key-set.ts';
import { toKeySource } from './key-source.ts';
import { type Principal, toTokenPrincipal } from './principal.ts';
import { type TokenIssuer, TokenVerifier } from './token-verifier.ts';

const API_KEY_HEADER = 'x-api-key';

/** The types of access tokens: `at+jwt` is that of RFC 9068, and many providers say JWT, or nothing. */
const TOKEN_TYPES = ['at+jwt', 'jwt', undefined];

interface Credentials {
  readonly authorization: string | undefined;
  readonly apiKey: string | undefined;
}

/** The sources of keys, by issuer and place: no two issuers share one. */
type KeySources = ReadonlyMap<string, KeySource>;

/** The parts that an authenticator hands on to the one that replaces it. */
interface AuthenticatorState {
  readonly options: AuthOptions;
  readonly signer: IdentitySigner;
  readonly keySources: KeySources;
  readonly tokens: TokenVerifier<Principal> | undefined;
  readonly apiKeys: ApiKeys | undefined;
}

/**
 * Finds out who makes a request, by the token in its `Authorization` or the key in its `X-API-Key`.
 * It keeps no timer and no connection, so that nothing has to be closed.
 */
export class Authenticator {
  /** The names of headers with credentials, in lower case, that do not go on to services. */
  readonly droppedHeaders: ReadonlySet<string>;
  /** Signs who the caller is, for services. */
  readonly signer: IdentitySigner;
  readonly #state: AuthenticatorState;
  readonly #scheme: Scheme;

  /**
   * @param options that were validated
   * @param previous the authenticator that this one replaces: what it has fetched, verified and
   *   signed stays, as far as its options are the same
   */
  constructor(options: AuthOptions, previous?: Authenticator) {
    const own = takeSnapshot(options);
    const { apiKeys, forwardAuthorization = true, identity } = own;
    const former = previous === undefined ? undefined : previous.#state;
    const unchanged = (name: keyof AuthOptions) =>
      isDeepStrictEqual(own[name], former?.options[name]) ? former : undefined;
    const issuers = jwtIssuers(own);
    const keySources = createKeySources(issuers, former?.keySources);
    this.signer = unchanged('identity')?.signer ?? new IdentitySigner(identity?.key, former?.signer);
    this.#state = {
      options: own,
      signer: this.signer,
      keySources,
      tokens: unchanged('jwt')?.tokens ?? createVerifier(issuers, keySources),
      apiKeys: unchanged('apiKeys')?.apiKeys ?? (apiKeys && createApiKeys(apiKeys)),
    };
    this.#scheme = issuers.length === 0 ? 'ApiKey' : 'Bearer';
    this.droppedHeaders = new Set([
      ...(apiKeys === undefined ? [] : [API_KEY_HEADER]),
      ...(forwardAuthorization ? [] : ['authorization']),
    ]);
  }

  /**
   * Gives who makes a request: at once for a token that was verified before, or a hashed API key.
   *
   * @param rawHeaders names and values in turn, as `rawHeaders` of Node: it shows what comes twice
   * @throws Rejection 401, 400 for ambiguous credentials, 503 while they cannot be verified
   */
  authenticate(rawHeaders: readonly string[]): Principal | Promise<Principal> {
    const { authorization, apiKey } = this.#readCredentials(rawHeaders);
    const { tokens, apiKeys } = this.#state;
    const token = tokens && readBearerToken(authorization);
    const key = apiKeys && apiKey;
    if (token !== undefined && key !== undefined) {
      throw rejectAmbiguous(this.#scheme, 'The request has both a token and an API key.');
    }
    if (token !== undefined) return settle('Bearer', tokens!.verify(token));
    if (key !== undefined) return settle('ApiKey', apiKeys!.find(key));
    throw rejectAnonymous(this.#scheme);
  }

  /** Two headers of a name are an error: who comes after the gateway might look at the other one. */
  #readCredentials(rawHeaders: readonly string[]): Credentials {
    let authorization: string | undefined;
    let apiKey: string | undefined;
    for (let index = 0; index < rawHeaders.length; index += 2) {
      const name = rawHeaders[index]!;
      if (name.length === 'authorization'.length && name.toLowerCase() === 'authorization') {
        if (authorization !== undefined) throw this.#rejectDuplicate('Authorization');
        authorization = rawHeaders[index + 1]!;
      } else if (name.length === API_KEY_HEADER.length && name.toLowerCase() === API_KEY_HEADER) {
        if (apiKey !== undefined) throw this.#rejectDuplicate('X-API-Key');
        apiKey = rawHeaders[index + 1]!;
      }
    }
    return { authorization, apiKey };
  }

  #rejectDuplicate(name: string): Rejection {
    return rejectAmbiguous(this.#scheme, `The request has two headers ${name}.`);
  }
}

function createKeySources(issuers: readonly JwtOptions[], former: KeySources = new Map()): KeySources {
  return new Map(
    issuers.map((issuer) => {
      const place = placeOf(issuer);
      return [place, former.get(place) ?? toKeySource(issuer.jwks)];
    }),
  );
}

function createVerifier(
  issuers: readonly JwtOptions[],
  keySources: KeySources,
): TokenVerifier<Principal> | undefined {
  if (issuers.length === 0) return undefined;
  const rules = issuers.map((options): TokenIssuer => {
    const keys = keySources.get(placeOf(options))!;
    return { ...withDefaults({ clockTolerance: 5_000 }, options), types: TOKEN_TYPES, keys };
  });
  return new TokenVerifier(rules, toTokenPrincipal);
}

/**
 * Lets a caller in if it has all scopes that the route needs.
 *
 * @throws Rejection 403
 */
export function authorize({ kind, scopes }: Principal, { scopes: needed = [] }: RouteAuth): void {
  for (const scope of needed) {
    if (!scopes.has(scope)) throw rejectForbidden(kind === 'jwt' ? 'Bearer' : 'ApiKey', needed);
  }
}

/** Another scheme counts as no credentials (RFC 6750, section 3.1). */
function readBearerToken(authorization: string | undefined): string | undefined {
  if (authorization === undefined || authorization.slice(0, 7).toLowerCase() !== 'bearer ') return undefined;
  return authorization.slice(7).trimStart();
}

type Found = Principal | AuthFailure;

function settle(scheme: Scheme, found: Found | Promise<Found>): Principal | Promise<Principal> {
  if (found instanceof Promise) return found.then((late) => toPrincipal(scheme, late));
  return toPrincipal(scheme, found);
}

function toPrincipal(scheme: Scheme, found: Found): Principal {
  if (found instanceof AuthFailure) throw rejectFailed(scheme, found);
  return found;
}

/** Copies the options: those of a reload are compared with them, whatever became of the object. */
function takeSnapshot({ apiKeys, ...options }: AuthOptions): AuthOptions {
  return {
    ...structuredClone(options),
    apiKeys: typeof apiKeys === 'function' ? apiKeys : structuredClone(apiKeys),
  };
}

function placeOf({ issuer, jwks }: JwtOptions): string {
  return JSON.stringify([issuer, jwks]);
}
