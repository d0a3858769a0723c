import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose';
import type { JwtOptions } from '../../../src/gateway/index.ts';

const ISSUER = 'https://id.shop.example';
const AUDIENCE = 'shop';
const ALGORITHM = 'ES256';

/** Gives tokens to customers and clerks, as the service does where they log in. */
export class IdentityProvider {
  /** The description of this issuer for the gateway. */
  readonly jwt: JwtOptions;
  readonly #key: CryptoKey;
  readonly #tokens = new Map<string, Promise<string>>();

  private constructor(key: CryptoKey, jwt: JwtOptions) {
    this.#key = key;
    this.jwt = jwt;
  }

  /** Makes a key for this run. */
  static async create(): Promise<IdentityProvider> {
    const { privateKey, publicKey } = await generateKeyPair(ALGORITHM);
    const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: ALGORITHM, use: 'sig' }] };
    // Others would give the address of the keys, such as 'https://id.shop.example/jwks'.
    return new IdentityProvider(privateKey, {
      issuer: ISSUER,
      audience: AUDIENCE,
      algorithms: [ALGORITHM],
      jwks,
    });
  }

  /** Gives the token of a user, the same one each time: it is valid for longer than the demo takes. */
  tokenOf(user: string, scopes: readonly string[]): Promise<string> {
    const scope = scopes.join(' ');
    const name = `${user} ${scope}`;
    const token = this.#tokens.get(name) ?? this.#sign(user, scope);
    this.#tokens.set(name, token);
    return token;
  }

  #sign(user: string, scope: string): Promise<string> {
    return new SignJWT({ scope })
      .setProtectedHeader({ alg: ALGORITHM, kid: 'k1', typ: 'JWT' })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject(user)
      .setIssuedAt()
      .setExpirationTime('15 minutes')
      .sign(this.#key);
  }
}
