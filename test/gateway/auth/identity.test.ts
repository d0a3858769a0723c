import { exportJWK, generateKeyPair, type JSONWebKeySet, SignJWT } from 'jose';
import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { IDENTITY_HEADER, IdentitySigner } from '../../../src/gateway/auth/identity-signer.ts';
import { type Principal, toApiKeyPrincipal } from '../../../src/gateway/auth/principal.ts';
import { verifyIdentity } from '../../../src/gateway/auth/verify-identity.ts';
import { currentRequestContext } from '../../../src/index.ts';
import { Admission } from '../../../src/middleware/server/guard/admission.ts';
import type { IdentityVerifier } from '../../../src/middleware/server/guard/identity-verifier.ts';
import { ServerGuard, type ServerGuardOptions } from '../../../src/middleware/server/guard/server-guard.ts';
import { AbortScope } from '../../../src/policies/abort.ts';
import { frameworks } from '../../middleware/server/frameworks.ts';
import { defer, fakeTime, flush, pass } from '../../policies/helpers.ts';
import { json, startServer } from '../../support/server.ts';
import { createIssuer, encode, IDENTITY_KEY } from './issuer.ts';

const CALLER: Principal = {
  kind: 'jwt',
  subject: 'u1',
  scopes: new Set(['read', 'pay']),
  claims: { iss: 'https://id.example', sub: 'u1', email: 'u1@example.com' },
  expiresAt: Infinity,
};
const PARTNER = toApiKeyPrincipal({ subject: 'partner' });

let signer: IdentitySigner;
let keys: JSONWebKeySet;
beforeAll(() => {
  signer = new IdentitySigner(IDENTITY_KEY);
  keys = signer.jwks;
});

const create = () => verifyIdentity({ keys, audience: 'user-service' });

function verify(verifier: IdentityVerifier, value: string | undefined) {
  return verifier({ method: 'GET', path: '/', headers: { [IDENTITY_HEADER]: value } });
}

function partsOf(identity: string): [header: object, claims: Record<string, unknown>] {
  const [header, claims] = identity.split('.').map((part) => Buffer.from(part, 'base64url').toString());
  return [JSON.parse(header!), JSON.parse(claims!)];
}

describe('the identity that the gateway signs', () => {
  beforeEach(fakeTime);

  it('says for a minute who the caller is, to one service, and no more of the token', () => {
    const now = Math.floor(Date.now() / 1000);
    expect(partsOf(signer.sign(CALLER, 'user-service'))).toEqual([
      { alg: 'EdDSA', typ: 'holdfast-identity+jwt', kid: keys.keys[0]!.kid },
      {
        iss: 'holdfast-gateway',
        aud: 'user-service',
        kind: 'jwt',
        sub: 'u1',
        scope: 'read pay',
        origin: 'https://id.example',
        iat: now,
        exp: now + 60,
      },
    ]);
  });

  it('is verified by its service, which learns who the caller is', async () => {
    expect(await verify(create(), signer.sign(CALLER, 'user-service'))).toEqual({
      kind: 'jwt',
      subject: 'u1',
      scopes: new Set(['read', 'pay']),
      issuer: 'https://id.example',
    });
    expect(await verify(create(), signer.sign(PARTNER, 'user-service'))).toEqual({
      kind: 'apiKey',
      subject: 'partner',
      scopes: new Set(),
      issuer: undefined,
    });
  });

  it('is kept per caller and service, and signed anew 20 seconds before its end', async () => {
    const principal = { ...CALLER };
    const first = signer.sign(principal, 'user-service');
    const other = signer.sign(principal, 'order-service');
    expect(partsOf(other)[1]).toMatchObject({ aud: 'order-service' });
    await pass(39_999);
    expect(signer.sign(principal, 'user-service')).toBe(first);
    expect(signer.sign({ ...CALLER }, 'user-service')).not.toBe(first);
    await pass(1);
    const second = signer.sign(principal, 'user-service');
    expect(second).not.toBe(first);
    expect(signer.sign(principal, 'user-service')).toBe(second);
  });

  it('is signed anew when the clock was set back', () => {
    const principal = { ...CALLER };
    const first = signer.sign(principal, 'user-service');
    vi.setSystemTime(Date.now() - 3_600_000);
    const second = signer.sign(principal, 'user-service');
    expect(second).not.toBe(first);
    expect(partsOf(second)[1]).toMatchObject({ exp: Math.floor(Date.now() / 1000) + 60 });
  });

  it('is found at once when it comes again, and is rejected after its minute', async () => {
    const verifier = create();
    const identity = signer.sign({ ...CALLER }, 'user-service');
    const first = await verify(verifier, identity);
    expect(verify(verifier, identity)).toBe(first);
    await pass(66_000);
    expect(await verify(verifier, identity)).toBe('invalid');
  });

  it.each<[string, () => string | Promise<string>]>([
    ['of another service', () => signer.sign(CALLER, 'order-service')],
    [
      'signed with another key',
      async () => {
        const { privateKey } = await generateKeyPair('EdDSA');
        const [header, claims] = partsOf(signer.sign(CALLER, 'user-service'));
        return new SignJWT(claims).setProtectedHeader(header as { alg: string }).sign(privateKey);
      },
    ],
    [
      'without a signature',
      () => {
        const [header, claims] = partsOf(signer.sign(CALLER, 'user-service'));
        return `${encode({ ...header, alg: 'none' })}.${encode(claims)}.`;
      },
    ],
    [
      'with claims that were changed',
      () => {
        const [header, claims, signature] = signer.sign(CALLER, 'user-service').split('.');
        const changed = { ...partsOf(`${header}.${claims}`)[1], sub: 'admin' };
        return `${header}.${encode(changed)}.${signature}`;
      },
    ],
    [
      'that came twice',
      () => {
        const identity = signer.sign(CALLER, 'user-service');
        return `${identity}, ${identity}`;
      },
    ],
    ['that is empty', () => ''],
  ])('is rejected if it is one %s', async (_name, forge) => {
    expect(await verify(create(), await forge())).toBe('invalid');
  });

  it('is not replaced by an access token of an issuer with the same key', async () => {
    const issuer = await createIssuer('holdfast-gateway', 'k1', 'EdDSA');
    const verifier = verifyIdentity({ keys: issuer.jwks, audience: 'user-service' });
    expect(await verify(verifier, await issuer.sign({ aud: 'user-service', kind: 'jwt' }))).toBe('invalid');
    const typ = 'holdfast-identity+jwt';
    const identity = await issuer.sign({ aud: 'user-service', kind: 'jwt' }, { typ });
    expect(await verify(verifier, identity)).toMatchObject({ subject: 'u1' });
  });

  it('is missing where there is no header', () => {
    expect(verify(create(), undefined)).toBe('missing');
  });
});

describe('the keys with which identities are signed', () => {
  it('are published without their private part, named by their thumbprint (RFC 7638)', () => {
    // The key of RFC 8037, appendix A, whose thumbprint stands there.
    const key = {
      kty: 'OKP',
      crv: 'Ed25519',
      d: 'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A',
      x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo',
    };
    const { d: _private, ...publicKey } = key;
    const published = new IdentitySigner(key);
    expect(published.jwks).toEqual({
      keys: [{ ...publicKey, alg: 'EdDSA', use: 'sig', kid: 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k' }],
    });
    const { status, headers, body } = published.respond();
    expect([status, headers['content-type']]).toEqual([200, 'application/jwk-set+json']);
    expect(JSON.parse(body as string)).toEqual(published.jwks);
  });

  it('are made with a warning if none is given, and each gateway has its own', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const [one, other] = [new IdentitySigner(undefined), new IdentitySigner(undefined)];
    expect(warn).toHaveBeenCalledTimes(2);
    expect(warn.mock.calls[0]![0]).toContain("'auth.identity'");
    expect(one.jwks).not.toEqual(other.jwks);
    const verifier = verifyIdentity({ keys: one.jwks, audience: 'user-service' });
    expect(await verify(verifier, one.sign(CALLER, 'user-service'))).toMatchObject({ subject: 'u1' });
    expect(await verify(verifier, other.sign(CALLER, 'user-service'))).toBe('invalid');
  });

  it('stay published for two minutes when a reload brings another one', async () => {
    fakeTime();
    const { privateKey } = await generateKeyPair('EdDSA', { extractable: true });
    const next = new IdentitySigner(await exportJWK(privateKey), signer);
    const verifier = verifyIdentity({ keys: next.jwks, audience: 'user-service' });
    for (const each of [signer, next]) {
      expect(await verify(verifier, each.sign(CALLER, 'user-service'))).toMatchObject({ subject: 'u1' });
    }
    expect(next.jwks.keys.map(({ kid }) => kid)).toContain(keys.keys[0]!.kid);
    // A key that comes back is published once.
    expect(new IdentitySigner(IDENTITY_KEY, next).jwks.keys).toHaveLength(2);
    await pass(119_999);
    expect(next.jwks.keys).toHaveLength(2);
    await pass(1);
    expect(next.jwks.keys.map(({ kid }) => kid)).not.toContain(keys.keys[0]!.kid);
  });

  it('are fetched from the gateway, and a service without them does not guess', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    let status = 200;
    const { origin, requests } = await startServer((_request, response) => json(response, keys, status));
    const reachable = verifyIdentity({ keys: `${origin}/.well-known/jwks.json`, audience: 'user-service' });
    expect(await verify(reachable, signer.sign(CALLER, 'user-service'))).toMatchObject({ subject: 'u1' });
    expect(requests.map(({ url }) => url)).toEqual(['/.well-known/jwks.json']);
    status = 503;
    const unreachable = verifyIdentity({ keys: origin, audience: 'user-service' });
    expect(await verify(unreachable, signer.sign(CALLER, 'user-service'))).toBe('unavailable');
  });
});

describe.each(frameworks)('a service behind the gateway, with %s', (_name, start) => {
  async function startService(options: Partial<ServerGuardOptions> = {}) {
    const seen: unknown[] = [];
    const service = await start({ identity: create(), ...options }, () => {
      seen.push(currentRequestContext()?.identity);
      return { body: `response ${seen.length}` };
    });
    const send = (identity?: string, path = '/', init: { method?: string; headers?: object } = {}) =>
      fetch(service.origin + path, {
        ...init,
        headers: { ...init.headers, ...(identity !== undefined && { [IDENTITY_HEADER]: identity }) },
      });
    return { seen, send };
  }

  it('tells its handlers who a request is made for', async () => {
    const { seen, send } = await startService();
    const identity = signer.sign(CALLER, 'user-service');
    for (let time = 0; time < 2; time++) expect((await send(identity)).status).toBe(200);
    const expected = {
      kind: 'jwt',
      subject: 'u1',
      scopes: new Set(['read', 'pay']),
      issuer: 'https://id.example',
    };
    expect(seen).toEqual([expected, expected]);
  });

  it.each([
    ['no identity', undefined, 'ERR_IDENTITY_MISSING'],
    ['a wrong identity', 'a.b.c', 'ERR_IDENTITY_INVALID'],
  ])('rejects a request with %s, and no handler runs', async (_case, identity, code) => {
    const { seen, send } = await startService();
    const response = await send(identity);
    expect(response.status).toBe(401);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    expect(response.headers.get('www-authenticate')).toBe('Holdfast-Identity');
    expect(await response.json()).toMatchObject({ status: 401, code });
    expect(seen).toEqual([]);
  });

  it('lets probes of its health through without an identity', async () => {
    const { seen, send } = await startService();
    expect((await send(undefined, '/health/live')).status).toBe(200);
    expect(seen).toEqual([undefined]);
  });

  it('replays a response to the caller of its idempotency key, and to no other one', async () => {
    const { send } = await startService({ idempotency: {} });
    const post = async (principal: Principal) => {
      const init = { method: 'POST', headers: { 'idempotency-key': 'k1' } };
      return (await send(signer.sign(principal, 'user-service'), '/', init)).text();
    };
    const other = { ...CALLER, subject: 'u2' };
    const bodies = [await post(CALLER), await post(PARTNER), await post(other), await post({ ...CALLER })];
    expect(bodies).toEqual(['response 1', 'response 2', 'response 3', 'response 1']);
  });
});

describe('a guard that waits for an identity', () => {
  const IDENTITY = {
    kind: 'jwt',
    subject: 'u1',
    scopes: new Set<string>(),
    issuer: 'https://id.example',
  } as const;

  function admit(guard: ServerGuard, headers: Record<string, string> = {}) {
    const disconnected = new AbortScope(undefined, { onAbort() {} });
    const request = { method: 'GET', path: '/', headers };
    const body = { observe: () => {}, read: async () => {}, isCutOff: () => false };
    return { decision: guard.admit({ request, target: '/', disconnected, body }), disconnected };
  }

  const codeOf = (decision: unknown) => JSON.parse((decision as { body: string }).body).code;

  it('a guard verifies with the keys that it has when the fetch of newer ones hangs', async () => {
    fakeTime();
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const fetches: AbortSignal[] = [];
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((milliseconds) => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), milliseconds);
      fetches.push(controller.signal);
      return controller.signal;
    });
    const asked = defer<void>();
    const { origin, requests } = await startServer((_request, response) => {
      if (requests.length === 1) json(response, keys);
      else asked.resolve();
    });
    const guard = new ServerGuard({ identity: verifyIdentity({ keys: origin, audience: 'user-service' }) });
    const ask = () => admit(guard, { [IDENTITY_HEADER]: signer.sign(CALLER, 'user-service') }).decision;
    expect(await ask()).toBeInstanceOf(Admission);
    await pass(10 * 60_000);
    const decision = ask();
    await asked.promise;
    await pass(4_999);
    expect(fetches.map(({ aborted }) => aborted)).toEqual([true, true]);
    expect(await decision).toBeInstanceOf(Admission);
  });

  it('decides at once where the identity is known at once', () => {
    const guard = new ServerGuard({ identity: () => IDENTITY });
    const { decision } = admit(guard);
    expect(decision).toBeInstanceOf(Admission);
    expect((decision as Admission).run(currentRequestContext)?.identity).toBe(IDENTITY);
  });

  it('rejects a request whose client disconnects, or whose deadline passes, meanwhile', async () => {
    fakeTime();
    const identity = defer<typeof IDENTITY>();
    const guard = new ServerGuard({ identity: () => identity.promise });
    const left = admit(guard);
    const late = admit(guard, { 'x-request-timeout': '100' });
    left.disconnected.abort(new Error('gone'));
    await pass(100);
    identity.resolve(IDENTITY);
    expect(codeOf(await left.decision)).toBe('ERR_CLIENT_GONE');
    expect(codeOf(await late.decision)).toBe('ERR_DEADLINE_EXCEEDED');
  });

  it('has the caller come again while identities cannot be verified', async () => {
    const guard = new ServerGuard({ identity: () => 'unavailable' });
    const { decision } = admit(guard);
    expect(codeOf(decision)).toBe('ERR_IDENTITY_UNAVAILABLE');
    expect(decision).toMatchObject({
      status: 503,
      headers: { 'retry-after': expect.stringMatching(/^[12]$/) },
    });
  });

  it.each([undefined, null, true, 'yes', '__proto__', []])(
    'fails, and lets nobody in, if it is given %j',
    (value) => {
      const guard = new ServerGuard({ identity: () => value as never });
      const errors: Error[] = [];
      guard.on('decision-error', ({ error }) => errors.push(error));
      expect(() => admit(guard)).toThrow(TypeError);
      expect(errors[0]!.message).toContain("'identity'");
    },
  );

  it('verifies no identity of a request that it rejects for its load', async () => {
    const identity = vi.fn(() => IDENTITY);
    const guard = new ServerGuard({ identity });
    const { decision } = admit(guard, { 'x-request-timeout': '0' });
    await flush();
    expect(codeOf(decision)).toBe('ERR_DEADLINE_EXCEEDED');
    expect(identity).not.toHaveBeenCalled();
  });
});
