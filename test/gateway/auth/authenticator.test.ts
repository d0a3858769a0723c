import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { AuthOptions } from '../../../src/gateway/auth/auth-options.ts';
import { Authenticator, authorize } from '../../../src/gateway/auth/authenticator.ts';
import type { Principal } from '../../../src/gateway/auth/principal.ts';
import { Rejection } from '../../../src/gateway/problem.ts';
import { fakeTime, pass } from '../../policies/helpers.ts';
import { json, startServer } from '../../support/server.ts';
import { bearer, createIssuer, IDENTITY_KEY, type TestIssuer } from './issuer.ts';

let issuer: TestIssuer;
beforeAll(async () => {
  issuer = await createIssuer();
});

const KEY_HASH = '2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683'; // of 'key'

function create(options: AuthOptions, previous?: Authenticator): Authenticator {
  return new Authenticator({ identity: { key: IDENTITY_KEY }, ...options }, previous);
}

const byToken = () => create({ jwt: issuer.options });
const byKey = (options = {}) =>
  create({ apiKeys: [{ hash: KEY_HASH, subject: 'partner', scopes: ['pay'] }], ...options });

async function rejectionOf(run: () => unknown): Promise<Rejection> {
  try {
    await run();
  } catch (error) {
    expect(error).toBeInstanceOf(Rejection);
    return error as Rejection;
  }
  throw new Error('it was not rejected');
}

describe('a request with a token', () => {
  it('is of the subject of the token, with its scopes and claims', async () => {
    const token = await issuer.sign({ scope: 'read pay', tenant: 'a' });
    expect(await byToken().authenticate(bearer(token))).toMatchObject({
      kind: 'jwt',
      subject: 'u1',
      scopes: new Set(['read', 'pay']),
      claims: { iss: 'https://id.example', tenant: 'a' },
    });
  });

  it.each([
    [{ scp: ['read', 'pay'] }, ['read', 'pay']],
    [{ scp: 'read' }, ['read']],
    [{ scope: '' }, []],
    [{}, []],
    [{ sub: undefined, scope: 'read' }, ['read']],
  ])('has the scopes of the claims %j', async (claims, scopes) => {
    const { scopes: found } = await byToken().authenticate(bearer(await issuer.sign(claims)));
    expect([...found]).toEqual(scopes);
  });

  it.each(['at+jwt', 'application/at+jwt', 'JWT', 'jwt', undefined])('may have the type %s', async (typ) => {
    const token = await issuer.sign({}, { typ });
    expect(await byToken().authenticate(bearer(token))).toMatchObject({ subject: 'u1' });
  });

  it.each(['RS256', 'PS256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'])('may be signed with %s', async (alg) => {
    const own = await createIssuer('https://id.example', 'k1', alg);
    const authenticator = create({ jwt: own.options });
    expect(await authenticator.authenticate(bearer(await own.sign()))).toMatchObject({ subject: 'u1' });
  });

  it.each(['Bearer ', 'bearer ', 'BEARER ', 'Bearer   '])('may write the scheme as "%s"', async (scheme) => {
    const headers = ['authorization', scheme + (await issuer.sign())];
    expect(await byToken().authenticate(headers)).toMatchObject({ subject: 'u1' });
  });

  it('gets the same principal at once, without waiting, when it comes again', async () => {
    const authenticator = byToken();
    const headers = bearer(await issuer.sign());
    const first = await authenticator.authenticate(headers);
    expect(authenticator.authenticate([...headers])).toBe(first);
  });

  it('may differ by five seconds where the clock tolerance is undefined', async () => {
    const authenticator = create({ jwt: { ...issuer.options, clockTolerance: undefined } });
    const exp = Math.floor(Date.now() / 1000) - 2;
    expect(await authenticator.authenticate(bearer(await issuer.sign({ exp })))).toBeDefined();
  });

  it('may differ by the clock tolerance, and no more', async () => {
    const authenticator = create({ jwt: { ...issuer.options, clockTolerance: 30_000 } });
    const now = Math.floor(Date.now() / 1000);
    expect(
      await authenticator.authenticate(bearer(await issuer.sign({ exp: now - 20, nbf: now + 20 }))),
    ).toBeDefined();
    for (const claims of [{ exp: now - 40 }, { nbf: now + 40 }]) {
      const token = await issuer.sign(claims);
      expect(await rejectionOf(() => authenticator.authenticate(bearer(token)))).toMatchObject({
        status: 401,
      });
    }
  });
});

describe('a token that was verified before', () => {
  beforeEach(fakeTime);

  it('is rejected when it has expired, by the wall clock', async () => {
    const authenticator = byToken();
    const headers = bearer(await issuer.sign());
    await authenticator.authenticate(headers);
    await pass(304_000);
    expect(await authenticator.authenticate(headers)).toBeDefined();
    await pass(2_000);
    expect(await rejectionOf(() => authenticator.authenticate(headers))).toMatchObject({
      status: 401,
      detail: 'The token has expired.',
    });
  });

  it('is rejected when the clock is set ahead of its end or back before its beginning', async () => {
    const authenticator = byToken();
    const start = Date.now();
    const headers = bearer(await issuer.sign({ nbf: Math.floor(start / 1000) }));
    await authenticator.authenticate(headers);
    for (const jump of [3_600_000, -3_600_000]) {
      vi.setSystemTime(start + jump);
      expect(await rejectionOf(() => authenticator.authenticate(headers))).toMatchObject({ status: 401 });
    }
    vi.setSystemTime(start);
    expect(await authenticator.authenticate(headers)).toBeDefined();
  });

  it('takes a bounded memory: the tokens that were used last are kept', async () => {
    const authenticator = byToken();
    const large = { padding: 'x'.repeat(10_000) };
    const tokens = await Promise.all(
      Array.from({ length: 800 }, (_, id) => issuer.sign({ ...large, sub: `u${id}` })),
    );
    for (const token of tokens) await authenticator.authenticate(bearer(token));
    const kept = tokens.filter((token) => !(authenticator.authenticate(bearer(token)) instanceof Promise));
    // 32 MiB by an estimate of four times the length of each.
    expect(kept.length).toBeGreaterThan(400);
    expect(kept.length).toBeLessThan(700);
    expect(kept.at(-1)).toBe(tokens.at(-1));
  });
});

describe('the keys of an issuer at an address', () => {
  async function startProvider() {
    const provider = { jwks: issuer.jwks as object, status: 200 };
    const server = await startServer((_request, response) => json(response, provider.jwks, provider.status));
    const jwt = { ...issuer.options, jwks: `${server.origin}/jwks` };
    return { provider, server, jwt };
  }

  it('end the tokens of a key that the issuer has withdrawn, and no others', async () => {
    const second = await createIssuer('https://id.example', 'k2');
    const { provider, jwt } = await startProvider();
    provider.jwks = { keys: [issuer.jwk, second.jwk] };
    const authenticator = create({ jwt });
    const [ended, kept] = [bearer(await issuer.sign()), bearer(await second.sign())];
    await authenticator.authenticate(ended);
    const principal = await authenticator.authenticate(kept);
    provider.jwks = second.jwks;
    const elapsed = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 10 * 60_000);
    expect(await authenticator.authenticate(kept)).toMatchObject({ subject: 'u1' });
    expect(await rejectionOf(() => authenticator.authenticate(ended))).toMatchObject({
      detail: 'The key of the token is unknown.',
    });
    expect(authenticator.authenticate(kept)).toEqual(principal);
    elapsed.mockRestore();
  });

  it('are no fault of the client while they are unavailable: it gets 503 and may come again', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const { provider, jwt } = await startProvider();
    provider.status = 500;
    const authenticator = create({ jwt });
    const token = await issuer.sign();
    expect(await rejectionOf(() => authenticator.authenticate(bearer(token)))).toMatchObject({
      status: 503,
      code: 'authentication-unavailable',
      headers: { 'retry-after': '1' },
    });
  });

  it('stay known over a reload, as do verified tokens and signed identities, if the options stay', async () => {
    const { provider, server, jwt } = await startProvider();
    const first = create({ jwt });
    const headers = bearer(await issuer.sign());
    const principal = (await first.authenticate(headers)) as Principal;
    const identity = first.signer.sign(principal, 'user-service');
    provider.status = 500;
    const second = create({ jwt: { ...jwt }, forwardAuthorization: false }, first);
    expect(second.authenticate(headers)).toBe(principal);
    expect(second.signer.sign(principal, 'user-service')).toBe(identity);

    const third = create({ jwt: { ...jwt, audience: ['shop', 'another'] } }, second);
    expect(await third.authenticate(headers)).toMatchObject({ subject: 'u1' });
    expect(server.requests).toHaveLength(1);
  });

  it('are not taken over by another issuer at the same address, nor are verified tokens', async () => {
    const { server, jwt } = await startProvider();
    const first = create({ jwt });
    const headers = bearer(await issuer.sign());
    await first.authenticate(headers);
    const second = create({ jwt: { ...jwt, issuer: 'https://new.example' } }, first);
    expect(await rejectionOf(() => second.authenticate(headers))).toMatchObject({ status: 401 });
    await second.authenticate(bearer(await issuer.sign({ iss: 'https://new.example' })));
    expect(server.requests).toHaveLength(2);
  });

  it('do not change with the object of options that they came from', async () => {
    const options = { ...issuer.options, audience: ['shop'], algorithms: ['ES256'] };
    const apiKeys = [{ hash: KEY_HASH, subject: 'partner' }];
    const first = create({ jwt: options, apiKeys });
    options.audience[0] = 'another';
    apiKeys.length = 0;
    expect(await first.authenticate(bearer(await issuer.sign()))).toBeDefined();
    const second = create({ jwt: options, apiKeys }, first);
    expect(await rejectionOf(() => second.authenticate(['X-API-Key', 'key']))).toMatchObject({ status: 401 });
  });
});

describe('a request with an API key', () => {
  it('is of the subject of the key, at once', () => {
    expect(byKey().authenticate(['x-api-key', 'key'])).toEqual({
      kind: 'apiKey',
      subject: 'partner',
      scopes: new Set(['pay']),
      claims: { sub: 'partner' },
      expiresAt: Infinity,
    });
  });

  it('takes hashes in capital letters, too', () => {
    const authenticator = create({ apiKeys: [{ hash: KEY_HASH.toUpperCase(), subject: 'partner' }] });
    expect(authenticator.authenticate(['X-Api-Key', 'key'])).toMatchObject({ subject: 'partner' });
  });

  it.each(['kez', 'KEY', '', KEY_HASH, 'k'.repeat(1_000_000)])(
    'is rejected with another key',
    async (key) => {
      expect(await rejectionOf(() => byKey().authenticate(['X-API-Key', key]))).toMatchObject({
        status: 401,
        headers: { 'www-authenticate': 'ApiKey realm="gateway"' },
      });
    },
  );
});

describe('a request that is not let in', () => {
  const unauthenticated: [string, readonly string[]][] = [
    ['no credentials', ['Host', 'shop.example']],
    ['another scheme', ['Authorization', 'Basic dTpw']],
    ['no scheme', ['Authorization', 'abc']],
    ['an empty header', ['Authorization', '']],
    ['an API key where none are taken', ['X-API-Key', 'key']],
  ];

  it.each(unauthenticated)('is told the scheme and no error code for %s', async (_name, headers) => {
    expect(await rejectionOf(() => byToken().authenticate(headers))).toEqual(
      new Rejection(401, 'unauthenticated', 'The request needs a token.', {
        'www-authenticate': 'Bearer realm="gateway"',
      }),
    );
  });

  it('is told that an API key is needed where no tokens are taken', async () => {
    const rejection = await rejectionOf(() => byKey().authenticate(['Authorization', 'Bearer abc']));
    expect(rejection).toMatchObject({
      status: 401,
      headers: { 'www-authenticate': 'ApiKey realm="gateway"' },
    });
  });

  it.each([
    ['Authorization', 'authorization'],
    ['X-API-Key', 'x-api-key'],
  ])('gets 400 for two headers %s, equal or not', async (name, again) => {
    const token = `Bearer ${await issuer.sign()}`;
    for (const second of [token, 'Basic dTpw', '']) {
      const headers = [name, token, 'Accept', '*/*', again, second];
      const rejection = await rejectionOf(() => byToken().authenticate(headers));
      expect(rejection).toMatchObject({ status: 400, code: 'invalid-credentials' });
      expect(rejection.headers['www-authenticate']).toContain('error="invalid_request"');
    }
  });

  it('gets 400 for a token and an API key together', async () => {
    const authenticator = byKey({ jwt: issuer.options });
    const headers = [...bearer(await issuer.sign()), 'X-API-Key', 'key'];
    expect(await rejectionOf(() => authenticator.authenticate(headers))).toMatchObject({ status: 400 });
  });

  it('gets 403 if it lacks one of the scopes, which are named', async () => {
    const principal = await byToken().authenticate(bearer(await issuer.sign({ scope: 'read' })));
    expect(await rejectionOf(() => authorize(principal, { scopes: ['read', 'pay'] }))).toMatchObject({
      status: 403,
      code: 'forbidden',
      headers: {
        'www-authenticate':
          'Bearer realm="gateway", error="insufficient_scope", ' +
          'error_description="The caller has not the scopes that the request needs.", scope="read pay"',
      },
    });
  });

  it.each([{ scopes: ['read'] }, { scopes: [] }, {}])('is none if the route needs %j', async (auth) => {
    const principal = await byToken().authenticate(bearer(await issuer.sign({ scope: 'read' })));
    expect(() => authorize(principal, auth)).not.toThrow();
  });
});

describe('the headers that do not go on', () => {
  it('are API keys if there are some, and Authorization on demand', () => {
    expect([...byToken().droppedHeaders]).toEqual([]);
    expect([...byKey().droppedHeaders]).toEqual(['x-api-key']);
    expect([...byKey({ forwardAuthorization: false }).droppedHeaders]).toContain('authorization');
  });
});
