import { type CryptoKey, exportJWK, generateKeyPair, type JSONWebKeySet, type JWK, SignJWT } from 'jose';
import type { JwtOptions } from '../../../src/gateway/auth/auth-options.ts';

/** An issuer of tokens with one key. */
export interface TestIssuer {
  /** The private key of the issuer. */
  readonly key: CryptoKey;
  readonly publicKey: CryptoKey;
  /** The public key, as the issuer publishes it. */
  readonly jwk: JWK;
  readonly jwks: JSONWebKeySet;
  readonly options: JwtOptions;
  sign(claims?: object, header?: object): Promise<string>;
}

export const AUDIENCE = 'shop';

export async function createIssuer(
  name = 'https://id.example',
  kid = 'k1',
  alg = 'ES256',
): Promise<TestIssuer> {
  const { privateKey: key, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' };
  const jwks = { keys: [jwk] };
  return {
    key,
    publicKey,
    jwk,
    jwks,
    options: { issuer: name, audience: AUDIENCE, algorithms: [alg], jwks },
    sign(claims = {}, header = {}) {
      const now = Math.floor(Date.now() / 1000);
      const all = { iss: name, sub: 'u1', aud: AUDIENCE, iat: now, exp: now + 300, ...claims };
      // jose would have a claim that is undefined left out, too.
      const protectedHeader = { alg, kid, typ: 'JWT', ...header };
      return new SignJWT(JSON.parse(JSON.stringify(all))).setProtectedHeader(protectedHeader).sign(key);
    },
  };
}

export const bearer = (token: string) => ['Host', 'shop.example', 'Authorization', `Bearer ${token}`];

export function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}

/** An Ed25519 key that all know. */
export const IDENTITY_KEY = {
  kty: 'OKP',
  crv: 'Ed25519',
  d: 'eoilECxUVV3OyfJGf_qibyVuY8937jmoK433qFbc1tY',
  x: '5wj2vUiKepQ0EpB21ezWCpB9c5xWvEOMgD-Uruj1X8U',
};
