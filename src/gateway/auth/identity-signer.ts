import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signBytes,
} from 'node:crypto';
import type { JSONWebKeySet, JWK } from 'jose';
import type { LocalResponse } from '../../middleware/server/guard/local-response.ts';
import type { Principal } from './principal.ts';

/** The header in which a service learns who the caller is. What comes in under it is removed. */
export const IDENTITY_HEADER = 'x-holdfast-identity';

/** The `iss` and `typ` of an identity, so that neither a token stands for it nor the reverse. */
export const IDENTITY_ISSUER = 'holdfast-gateway';
export const IDENTITY_TYPE = 'holdfast-identity+jwt';

/** The claims of an identity, besides `iss`, `aud`, `iat` and `exp`. */
interface IdentityClaims {
  readonly kind: Principal['kind'];
  readonly sub?: string | undefined;
  /** With spaces between them. */
  readonly scope: string;
  /** The issuer of the caller's token. */
  readonly origin?: string | undefined;
}

/** Milliseconds for which an identity is valid. */
const LIFETIME = 60_000;

/** Milliseconds that an identity has left at least when it is sent, for retries and slow clocks. */
const MIN_LEFT = 20_000;

/** Milliseconds for which a key stays published that another one has replaced. */
const RETIRED_FOR = 2 * LIFETIME;

interface PublishedKey {
  readonly jwk: JWK;
  /** On the clock of `performance.now()`. */
  readonly until: number;
}

interface SignedIdentity {
  readonly value: string;
  readonly signedAt: number;
}

/**
 * Signs who a caller is, for one service at a time: a JWS with EdDSA (RFC 8037). An identity is kept
 * with its principal, and so for as long as the token itself is kept.
 */
export class IdentitySigner {
  readonly #key: KeyObject;
  /** The key of this signer, and former ones. */
  readonly #published: readonly PublishedKey[];
  readonly #header: string;
  readonly #signed = new WeakMap<Principal, Map<string, SignedIdentity>>();

  /**
   * @param key a private JWK; one is made if it is left out, with a process warning
   * @param previous the signer that this one replaces: its key stays published for two
   *   minutes, so that requests on their way are not rejected
   */
  constructor(key: JWK | undefined, previous?: IdentitySigner) {
    this.#key = key === undefined ? generateKey() : readSigningKey(key, 'auth.identity.key');
    const { kty, crv, x } = createPublicKey(this.#key).export({ format: 'jwk' });
    const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x })).digest('base64url');
    this.#header = encode({ alg: 'EdDSA', kid, typ: IDENTITY_TYPE });
    const own: JWK = { kty, crv, x, kid, alg: 'EdDSA', use: 'sig' };
    const until = performance.now() + RETIRED_FOR;
    const retired = (previous?.jwks.keys ?? []).filter((other) => other.kid !== kid);
    this.#published = [{ jwk: own, until: Infinity }, ...retired.map((jwk) => ({ jwk, until }))];
  }

  /** The public keys with which services verify. */
  get jwks(): JSONWebKeySet {
    const now = performance.now();
    return { keys: this.#published.filter(({ until }) => now < until).map(({ jwk }) => jwk) };
  }

  /** Gives the value of the header for a request of this caller to the service. */
  sign(principal: Principal, service: string): string {
    const now = Date.now();
    let byService = this.#signed.get(principal);
    if (byService === undefined) {
      byService = new Map();
      this.#signed.set(principal, byService);
    }
    const known = byService.get(service);
    // The clock may have been set back since.
    if (known !== undefined && now >= known.signedAt && now < known.signedAt + LIFETIME - MIN_LEFT) {
      return known.value;
    }
    const value = this.#sign(principal, service, now);
    byService.set(service, { value, signedAt: now });
    return value;
  }

  /** Gives the response to a GET of `/.well-known/jwks.json`. */
  respond(): LocalResponse {
    const headers = { 'content-type': 'application/jwk-set+json', 'cache-control': 'max-age=60' };
    return { status: 200, headers, body: JSON.stringify(this.jwks) };
  }

  #sign({ kind, subject, scopes, claims }: Principal, service: string, now: number): string {
    const iat = Math.floor(now / 1000);
    const own: IdentityClaims = {
      kind,
      sub: subject,
      scope: [...scopes].join(' '),
      origin: kind === 'jwt' ? (claims.iss as string) : undefined,
    };
    const times = { iat, exp: iat + LIFETIME / 1000 };
    const input = `${this.#header}.${encode({ iss: IDENTITY_ISSUER, aud: service, ...own, ...times })}`;
    return `${input}.${signBytes(null, Buffer.from(input), this.#key).toString('base64url')}`;
  }
}

function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}

/** @throws TypeError that names the option, and tells nothing of the key */
export function readSigningKey(jwk: unknown, option: string): KeyObject {
  const { kty, crv, d, x } = (jwk ?? {}) as JWK;
  if (kty === 'OKP' && crv === 'Ed25519' && typeof d === 'string' && typeof x === 'string') {
    try {
      return createPrivateKey({ key: { kty, crv, d, x }, format: 'jwk' });
    } catch {
      // The error below tells it.
    }
  }
  throw new TypeError(`${option} must be an Ed25519 JWK with its private part`);
}

function generateKey(): KeyObject {
  process.emitWarning(
    'The gateway has made a key to sign identities with. Another replica, or the next start, has another ' +
      "one: give all of them the same with the option 'auth.identity'.",
    { type: 'HoldfastGatewayWarning' },
  );
  return generateKeyPairSync('ed25519').privateKey;
}
