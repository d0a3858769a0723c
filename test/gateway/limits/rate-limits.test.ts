import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Principal } from '../../../src/gateway/auth/principal.ts';
import { toCountedAddress } from '../../../src/gateway/limits/counted-address.ts';
import { nameClient, parseCountBy } from '../../../src/gateway/limits/counted-client.ts';
import { buildRateLimitFields } from '../../../src/gateway/limits/rate-limit-fields.ts';
import { compileRouteLimits, takeLimits } from '../../../src/gateway/limits/rate-limits.ts';
import type { Rejection } from '../../../src/gateway/problem.ts';
import { InMemoryRateLimitStore } from '../../../src/middleware/server/rate-limit/in-memory-rate-limit-store.ts';
import type { RateLimitStore } from '../../../src/middleware/server/rate-limit/rate-limit-store.ts';

function principalOf(claims: Record<string, unknown>, kind: Principal['kind'] = 'jwt'): Principal {
  return { kind, subject: claims.sub as string, scopes: new Set(), claims, expiresAt: Infinity };
}

const HOUR = 3_600_000;
const route = { path: '/payments', service: 'payment-service' };
const visitor = { address: '192.0.2.1', principal: undefined };

describe('the address that a client is counted by', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:0201', '192.0.2.1'],
    ['2001:db8:0:1:2:3:4:5', '2001:db8:0:1::/64'],
    ['2001:0DB8:0000:0001::', '2001:db8:0:1::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
    ['192.0.2.1:80', 'unknown'],
    ['<script>', 'unknown'],
    [undefined, 'unknown'],
  ])('the address %s is counted as %s', (address, counted) => {
    expect(toCountedAddress(address)).toBe(counted);
  });

  it('all addresses of one /64 are counted together, and those of two are not', () => {
    const group = fc.integer({ min: 1, max: 0xffff }).map((number) => number.toString(16));
    const half = fc.array(group, { minLength: 4, maxLength: 4 }).map((groups) => groups.join(':'));
    fc.assert(
      fc.property(half, half, half, half, (one, two, host, otherHost) => {
        expect(toCountedAddress(`${one}:${host}`)).toBe(toCountedAddress(`${one}:${otherHost}`));
        if (one !== two)
          expect(toCountedAddress(`${one}:${host}`)).not.toBe(toCountedAddress(`${two}:${host}`));
      }),
    );
  });
});

describe('the client that a request is counted for', () => {
  const nameBy = (by: string, principal: Principal | undefined) =>
    nameClient(parseCountBy(by), { address: '192.0.2.1', principal });

  it('a request is counted by its API key or a claim of its token, and by its address if it has none', () => {
    const token = principalOf({ iss: 'https://id.example', sub: 'ann', org: 7 });
    const key = principalOf({ sub: 'importer' }, 'apiKey');
    expect(nameBy('address', token)).toBe('address:192.0.2.1');
    expect(nameBy('key', key)).toBe('key:importer');
    expect(nameBy('claim:org', token)).toBe('claim:["https://id.example","org",7]');
    expect(nameBy('key', token)).toBe('address:192.0.2.1');
    expect(nameBy('claim:sub', key)).toBe('address:192.0.2.1');
    expect(nameBy('claim:team', token)).toBe('address:192.0.2.1');
    expect(nameBy('claim:sub', undefined)).toBe('address:192.0.2.1');
  });

  it('a claim that is no text or number, or that all objects have, does not name a client', () => {
    expect(nameBy('claim:roles', principalOf({ roles: ['a'] }))).toBe('address:192.0.2.1');
    expect(nameBy('claim:constructor', principalOf({}))).toBe('address:192.0.2.1');
  });

  it('a subject of one issuer is not counted as the same subject of another', () => {
    const [one, other] = ['https://one.example', 'https://two.example'].map((iss) =>
      nameBy('claim:sub', principalOf({ iss, sub: 'ann' })),
    );
    expect(one).not.toBe(other);
  });

  it('no claim takes the place of an address, however it is chosen, nor makes a key long', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 1_000 }), (sub) => {
        const name = nameBy('claim:sub', principalOf({ sub }));
        expect(name.startsWith('claim:')).toBe(true);
        expect(name.length).toBeLessThanOrEqual(140);
      }),
    );
  });
});

describe('the rate limits of a route', () => {
  it('a request that exceeds its limit is rejected with 429, and told when to come again', () => {
    const store = new InMemoryRateLimitStore({ now: () => 0 });
    const { beforeAuth } = compileRouteLimits(undefined, {
      ...route,
      rateLimit: { limit: 2, interval: HOUR },
    });
    const take = () => takeLimits(store, beforeAuth, visitor);
    void take();
    expect(buildRateLimitFields(take() as never)).toEqual({
      'ratelimit-policy': '"route";q=2;w=3600',
      ratelimit: '"route";r=0;t=3600',
    });
    const { status, code, headers } = rejectionOfTake(take);
    expect({ status, code }).toEqual({ status: 429, code: 'rate-limited' });
    expect(headers).toEqual({
      'ratelimit-policy': '"route";q=2;w=3600',
      ratelimit: '"route";r=0;t=3600',
      'retry-after': '1800',
    });
  });

  it('the limit of the gateway counts over all routes, and that of a route by itself', () => {
    const store = new InMemoryRateLimitStore({ now: () => 0 });
    const limits = (path: string) =>
      compileRouteLimits(
        { limit: 3, interval: HOUR },
        { ...route, path, rateLimit: { limit: 2, interval: HOUR } },
      ).beforeAuth;
    const fields = (path: string) =>
      buildRateLimitFields(takeLimits(store, limits(path), visitor) as never).ratelimit;
    expect(fields('/a')).toBe('"gateway";r=2;t=1200, "route";r=1;t=1800');
    expect(fields('/b')).toBe('"gateway";r=1;t=2400, "route";r=1;t=1800');
    expect(fields('/a')).toBe('"gateway";r=0;t=3600, "route";r=0;t=3600');
    expect(rejectionOfTake(() => takeLimits(store, limits('/b'), visitor)).headers['retry-after']).toBe(
      '1200',
    );
  });

  it('a limit by address is taken before a token is looked at, so that guesses count', () => {
    const { beforeAuth, afterAuth } = compileRouteLimits(
      { limit: 100, interval: 1_000 },
      { ...route, rateLimit: { limit: 10, interval: 1_000, by: 'claim:sub' } },
    );
    expect(beforeAuth.map(({ name }) => name)).toEqual(['gateway']);
    expect(afterAuth.map(({ name }) => name)).toEqual(['route']);
  });

  it('the fields tell the limits that were taken before and after the token was verified', async () => {
    const memory = new InMemoryRateLimitStore({ now: () => 0 });
    const remote: RateLimitStore = { take: async (key, rule) => memory.take(key, rule) };
    const rule = { limit: 5, interval: 500, by: 'claim:sub' };
    const { beforeAuth, afterAuth } = compileRouteLimits(
      { limit: 100, interval: 60_000 },
      { ...route, rateLimit: rule },
    );
    const client = { ...visitor, principal: principalOf({ sub: 'ann' }) };
    const earlier = await takeLimits(remote, beforeAuth, client);
    const results = await takeLimits(remote, afterAuth, client, earlier);
    expect(buildRateLimitFields(results)).toEqual({
      'ratelimit-policy': '"gateway";q=100;w=60, "route";q=10;w=1',
      ratelimit: '"gateway";r=99;t=1, "route";r=4;t=1',
    });
  });

  it('a store in another process rejects the request through the promise', async () => {
    const memory = new InMemoryRateLimitStore({ now: () => 0 });
    const remote: RateLimitStore = { take: async (key, rule) => memory.take(key, rule) };
    const { beforeAuth } = compileRouteLimits({ limit: 1, interval: HOUR }, route);
    await takeLimits(remote, beforeAuth, visitor);
    await expect(takeLimits(remote, beforeAuth, visitor)).rejects.toMatchObject({ status: 429 });
  });
});

function rejectionOfTake(take: () => unknown): Rejection {
  try {
    take();
  } catch (error) {
    return error as Rejection;
  }
  throw new Error('it was allowed');
}
