import { createLocalJWKSet, type JSONWebKeySet, type JWK, type JWTVerifyGetKey } from 'jose';

/** The key of one `kid`; several keys, if an issuer has one for each algorithm. */
export class IssuerKey {
  /** The JWKs as they came, to tell whether they are still the same. */
  readonly text: string;
  /** Gives the key for the algorithm of a token, imported once. */
  readonly resolve: JWTVerifyGetKey;
  /** False once the issuer has withdrawn the key: what it has signed is valid no more. */
  current = true;

  constructor(keys: JWK[], text: string) {
    this.text = text;
    this.resolve = createLocalJWKSet({ keys });
  }
}

/** Where the keys of an issuer come from. Each issuer has its own, so that a `kid` is of one only. */
export interface KeySource {
  /**
   * Whether the keys can be used without waiting. It begins to fetch them in the background when it
   * is time.
   */
  keepFresh(): boolean;
  /** Gives a key; 'unknown' if the issuer has none of this id, 'unavailable' if its keys are not known. */
  find(id: string | undefined): IssuerKey | KeyFailure | Promise<IssuerKey | KeyFailure>;
}

export type KeyFailure = 'unknown' | 'unavailable';

/** The most keys of an issuer: providers have fewer than ten. */
const MAX_KEYS = 200;

/** The public keys of an issuer at one moment. */
export class KeySet implements KeySource {
  /** By `kid`, and all of them under undefined, for tokens without one. */
  readonly #keys = new Map<string | undefined, IssuerKey>();

  private constructor(keys: readonly JWK[], former: ReadonlyMap<string | undefined, IssuerKey>) {
    const ids = new Set([undefined, ...keys.map(({ kid }) => kid)]);
    for (const id of ids) {
      const own = id === undefined ? [...keys] : keys.filter(({ kid }) => kid === id);
      const text = JSON.stringify(own);
      const known = former.get(id);
      this.#keys.set(id, known?.text === text ? known : new IssuerKey(own, text));
    }
  }

  /**
   * Reads a JWKS. Keys that are not public, or of an unknown kind, are left out (RFC 7517, section
   * 5).
   *
   * @param owner the name to show
   * @throws TypeError if it is no JWKS with a public key, or has too many
   */
  static parse(jwks: unknown, owner: string, previous?: KeySet): KeySet {
    const { keys } = (jwks ?? {}) as Partial<JSONWebKeySet>;
    const usable = Array.isArray(keys) ? keys.filter(isPublicKey) : [];
    if (usable.length === 0) throw new TypeError(`${owner} must be a JWKS with a public key`);
    if (usable.length > MAX_KEYS) throw new TypeError(`${owner} must be a JWKS of ${MAX_KEYS} keys at most`);
    return new KeySet(usable, previous === undefined ? new Map() : previous.#keys);
  }

  keepFresh(): boolean {
    return true;
  }

  find(id: string | undefined): IssuerKey | 'unknown' {
    return this.#keys.get(id) ?? 'unknown';
  }

  /** Withdraws the keys that the issuer has no more. */
  replaceBy(next: KeySet): void {
    for (const [id, key] of this.#keys) key.current = next.#keys.get(id) === key;
  }
}

function isPublicKey(value: unknown): value is JWK {
  if (typeof value !== 'object' || value === null) return false;
  const { kty, kid, d } = value as JWK;
  const isKind = kty === 'RSA' || kty === 'EC' || kty === 'OKP';
  return isKind && d === undefined && (kid === undefined || typeof kid === 'string');
}
