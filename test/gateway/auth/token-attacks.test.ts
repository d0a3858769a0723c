import { createHmac } from 'node:crypto';
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose';
import { beforeAll, describe, expect, it } from 'vitest';
import { Authenticator } from '../../../src/gateway/auth/authenticator.ts';
import type { Principal } from '../../../src/gateway/auth/principal.ts';
import { Rejection } from '../../../src/gateway/problem.ts';
import { json, startServer } from '../../support/server.ts';
import { AUDIENCE, bearer, createIssuer, encode, IDENTITY_KEY, type TestIssuer } from './issuer.ts';

let issuer: TestIssuer;
let other: TestIssuer;
beforeAll(async () => {
  issuer = await createIssuer('https://id.example');
  // It uses the same key id: ids are unique within an issuer only.
  other = await createIssuer('https://other.example');
});

/** The gateway under attack, with the keys of both issuers at addresses of their own. */
async function startGateway() {
  const provider = await startServer((request, response) =>
    json(response, request.url === '/other' ? other.jwks : issuer.jwks),
  );
  const jwt = [
    { ...issuer.options, jwks: `${provider.origin}/jwks` },
    { ...other.options, jwks: `${provider.origin}/other` },
  ];
  const authenticator = new Authenticator({ jwt, identity: { key: IDENTITY_KEY } });
  return { provider, authenticator };
}

async function statusOf(authenticator: Authenticator, token: string): Promise<number> {
  return (await outcomeOf(authenticator, bearer(token))).status;
}

async function outcomeOf(authenticator: Authenticator, headers: readonly string[]) {
  try {
    const principal = await authenticator.authenticate(headers);
    return { status: 200, principal, challenge: undefined };
  } catch (error) {
    expect(error).toBeInstanceOf(Rejection);
    const rejection = error as Rejection;
    return { status: rejection.status, rejection, challenge: rejection.headers['www-authenticate'] };
  }
}

const now = () => Math.floor(Date.now() / 1000);
const claims = () => ({ iss: 'https://id.example', sub: 'admin', aud: AUDIENCE, exp: now() + 300 });

/** Joins a header and claims that nobody checks to a signature. */
const forge = (header: object, signature = '', payload: object = claims()) =>
  `${encode(header)}.${encode(payload)}.${signature}`;

function forgeHmac(header: object, secret: string | Uint8Array): string {
  const input = `${encode(header)}.${encode(claims())}`;
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
}

/** Signs with a key of the attacker's. */
async function forgeSigned(header: object, alg = 'ES256'): Promise<string> {
  const { privateKey } = await generateKeyPair(alg);
  return new SignJWT(claims()).setProtectedHeader({ alg, kid: 'k1', ...header }).sign(privateKey);
}

type Attack = (origin: string) => Promise<string> | string;

const ATTACKS: Record<string, Attack> = {
  "the algorithm 'none' without a signature": () => forge({ alg: 'none', kid: 'k1' }),
  "the algorithm 'None'": () => forge({ alg: 'None', kid: 'k1' }),
  "the algorithm 'none' with the signature of another token": async () =>
    forge({ alg: 'none', kid: 'k1' }, (await issuer.sign()).split('.')[2]),
  'no algorithm': () => forge({ kid: 'k1' }),
  'the PEM of the public key as the secret of an HMAC': async () =>
    forgeHmac({ alg: 'HS256', kid: 'k1' }, await exportSPKI(issuer.publicKey)),
  'the JWK of the public key as the secret of an HMAC': () =>
    forgeHmac({ alg: 'HS256', kid: 'k1' }, JSON.stringify(issuer.jwk)),
  'an empty secret of an HMAC': () => forgeHmac({ alg: 'HS256', kid: 'k1' }, new Uint8Array()),
  'an empty signature': () => forge({ alg: 'ES256', kid: 'k1' }),
  'a signature of zeros (CVE-2022-21449)': () =>
    forge({ alg: 'ES256', kid: 'k1' }, Buffer.alloc(64).toString('base64url')),
  'claims that were changed after signing': async () => {
    const [header, , signature] = (await issuer.sign()).split('.');
    return `${header}.${encode({ ...claims(), scope: 'admin' })}.${signature}`;
  },
  'a key of the attacker in jwk': async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
    const jwk = await exportJWK(publicKey);
    return new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', kid: 'k1', jwk }).sign(privateKey);
  },
  'the address of keys in jku': (origin) => forgeSigned({ jku: `${origin}/attacker` }),
  'the address of a certificate in x5u': (origin) => forgeSigned({ x5u: `${origin}/attacker` }),
  'a certificate in x5c': () => forgeSigned({ x5c: ['MIIB'] }),
  'a kid that is a path': () => forgeSigned({ kid: '../../dev/null' }),
  'a kid that is a name of Object.prototype': () => forgeSigned({ kid: '__proto__' }),
  'a kid that is no string': () => forge({ alg: 'ES256', kid: { toString: 1 } }, 'AAAA'),
  'an algorithm of the issuer that is not allowed': () => forgeSigned({ kid: 'k1' }, 'RS256'),
  'an extension that must be understood': () =>
    new SignJWT(claims())
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', crit: ['exp'], exp: now() + 300 })
      .sign(issuer.key, { crit: { exp: true } }),
  'an extension b64 that must be understood': () =>
    new SignJWT(claims())
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', crit: ['b64'], b64: true })
      .sign(issuer.key),
  'the type of a logout token': () => issuer.sign({}, { typ: 'logout+jwt' }),
  'the type of a DPoP proof': () => issuer.sign({}, { typ: 'application/dpop+jwt' }),
  'the type of an identity of the gateway': () => issuer.sign({}, { typ: 'holdfast-identity+jwt' }),
  'a type that is no string': () => forge({ alg: 'ES256', kid: 'k1', typ: ['JWT'] }, 'AAAA'),
  'the key of another issuer with the same id': () => other.sign({ iss: 'https://id.example' }),
  'an unknown issuer': () => issuer.sign({ iss: 'https://attacker.example' }),
  'an issuer with a slash more': () => issuer.sign({ iss: 'https://id.example/' }),
  'a list of issuers': () => issuer.sign({ iss: ['https://id.example'] }),
  'no issuer': () => issuer.sign({ iss: undefined }),
  'another audience': () => issuer.sign({ aud: 'another' }),
  'no audience': () => issuer.sign({ aud: undefined }),
  'no end': () => issuer.sign({ exp: undefined }),
  'an end that is a string': () => issuer.sign({ exp: String(now() + 300) }),
  'an end that has passed': () => issuer.sign({ exp: now() - 10 }),
  'a beginning in the future': () => issuer.sign({ nbf: now() + 60 }),
  'a subject that is no string': () => issuer.sign({ sub: { admin: true } }),
  'one scope that reads as two': () => issuer.sign({ scp: ['read admin'] }),
  'scopes that are no strings': () => issuer.sign({ scope: [{ admin: true }] }),
  'a payload that is no object': () => `${encode({ alg: 'ES256', kid: 'k1' })}.${encode(['a'])}.AAAA`,
  'an encrypted token': () => `${encode({ alg: 'dir', enc: 'A128GCM' })}.a.b.c.d`,
  'two parts': () => 'a.b',
  'four parts': async () => `${await issuer.sign()}.AAAA`,
  'no token at all': () => '',
  'characters that no token has': () => 'a%b?c',
  'two tokens in one header': async () => `${await issuer.sign()}, Bearer ${await issuer.sign()}`,
};

describe('a token that an attacker has made', () => {
  it.each(Object.entries(ATTACKS))('is rejected: %s', async (_name, attack) => {
    const { authenticator, provider } = await startGateway();
    const token = await attack(provider.origin);
    for (let time = 0; time < 2; time++) {
      const { status, challenge, rejection } = await outcomeOf(authenticator, bearer(token));
      expect(status).toBe(401);
      expect(challenge).toMatch(
        /^Bearer realm="gateway", error="invalid_token", error_description="[^"\\]+"$/,
      );
      expect(rejection).toMatchObject({ code: 'invalid-credentials' });
    }
    expect(provider.requests.map(({ url }) => url)).not.toContain('/attacker');
  });

  it('is let in by neither an accepted token nor its own repetition', async () => {
    const { authenticator } = await startGateway();
    const good = await issuer.sign();
    expect(await statusOf(authenticator, good)).toBe(200);
    const [header, payload] = good.split('.');
    expect(await statusOf(authenticator, `${header}.${payload}.`)).toBe(401);
    expect(await statusOf(authenticator, good)).toBe(200);
  });

  it('has no keys fetched unless it names an issuer, an algorithm and a type that are allowed', async () => {
    const { authenticator, provider } = await startGateway();
    await statusOf(authenticator, forge({ alg: 'none', kid: 'k1' }));
    await statusOf(
      authenticator,
      forge({ alg: 'ES256', kid: 'k1' }, 'AAAA', { iss: 'https://attacker.example' }),
    );
    await statusOf(authenticator, forge({ alg: 'ES256', kid: 'k1', typ: 'logout+jwt' }, 'AAAA'));
    expect(provider.requests).toEqual([]);
  });

  it('has keys fetched once where 1,000 tokens name unknown ids, and good ones are let in meanwhile', async () => {
    const { authenticator, provider } = await startGateway();
    expect(await statusOf(authenticator, await issuer.sign())).toBe(200);
    const before = provider.requests.length;
    const forged = Array.from({ length: 1_000 }, (_, id) => forge({ alg: 'ES256', kid: `no-${id}` }, 'AAAA'));
    const statuses = await Promise.all([
      ...forged.map((token) => statusOf(authenticator, token)),
      statusOf(authenticator, await issuer.sign({ sub: 'u2' })),
    ]);
    expect(statuses.filter((status) => status === 401)).toHaveLength(1_000);
    expect(statuses.at(-1)).toBe(200);
    expect(provider.requests.length - before).toBeLessThanOrEqual(1);
  });

  it('is rejected without being read if it has 1 MB', async () => {
    const { authenticator, provider } = await startGateway();
    const token = await issuer.sign({ padding: 'x'.repeat(1_000_000) });
    const { status, rejection } = await outcomeOf(authenticator, bearer(token));
    expect(status).toBe(401);
    expect(rejection).toMatchObject({ detail: 'The token is too long.' });
    expect(provider.requests).toEqual([]);
  });

  it('gets the caller of its own issuer where two issuers have a key of one id', async () => {
    const { authenticator } = await startGateway();
    const subjectOf = async (token: string) =>
      ((await authenticator.authenticate(bearer(token))) as Principal).claims.iss;
    expect(await subjectOf(await issuer.sign())).toBe('https://id.example');
    expect(await subjectOf(await other.sign())).toBe('https://other.example');
    expect(await subjectOf(await issuer.sign({}, { kid: undefined }))).toBe('https://id.example');
  });

  it('is not let in by a secret or private key in the JWKS of its issuer', async () => {
    const secret = { kty: 'oct', k: Buffer.from('secret').toString('base64url'), kid: 'k2', alg: 'HS256' };
    const jwt = { ...issuer.options, jwks: { keys: [issuer.jwk, secret] } };
    const authenticator = new Authenticator({ jwt, identity: { key: IDENTITY_KEY } });
    expect(await statusOf(authenticator, forgeHmac({ alg: 'HS256', kid: 'k2' }, 'secret'))).toBe(401);
    expect(await statusOf(authenticator, await issuer.sign())).toBe(200);
  });
});
