import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createVariant } from '../../../src/client/service-variants.ts';
import type { Principal } from '../../../src/gateway/auth/principal.ts';
import type { SplitOptions } from '../../../src/gateway/options.ts';
import { type HasInstance, Split, type SplitRequest } from '../../../src/gateway/routing/split.ts';
import { parseSticky } from '../../../src/gateway/routing/sticky.ts';

const CLIENTS = 4_000;
const SESSION = parseSticky('cookie:session', 'sticky');

function split(...shares: number[]): SplitOptions[] {
  return shares.map((share, index) => ({ select: { version: String(index + 1) }, share }));
}

function requestOf(parts: Partial<SplitRequest> = {}): SplitRequest {
  return { headers: {}, address: '203.0.113.1', principal: undefined, ...parts };
}

function withCookie(session: string): SplitRequest {
  return requestOf({ headers: { cookie: `a=b; session=${session}; c=d` } });
}

const all: HasInstance = () => true;

function only(...versions: string[]): HasInstance {
  return ({ select }) => versions.includes(select.version!);
}

/** Gives the version of each of many clients. */
function assign(versions: SplitOptions[], hasInstance = all, service = 'shop'): number[] {
  const sticky = new Split(service, versions, SESSION);
  return Array.from({ length: CLIENTS }, (_, index) =>
    Number(sticky.pick(withCookie(`client-${index}`), hasInstance).select.version),
  );
}

function shareOf(assigned: number[], version: number): number {
  return assigned.filter((one) => one === version).length / assigned.length;
}

/** Draws shares that add up to 1. */
const shares = fc
  .array(fc.integer({ min: 0, max: 20 }), { minLength: 2, maxLength: 5 })
  .filter((weights) => weights.some((weight) => weight > 0))
  .map((weights) => {
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return weights.map((weight) => weight / sum);
  });

describe('a split with a sticky key', () => {
  it('a client stays at its version, whichever gateway it comes to', () => {
    expect(assign(split(0.9, 0.1))).toEqual(assign(split(0.9, 0.1)));
  });

  it('the clients divide by the shares', () => {
    fc.assert(
      fc.property(shares, (wanted) => {
        const assigned = assign(split(...wanted));
        wanted.forEach((share, index) => {
          expect(Math.abs(shareOf(assigned, index + 1) - share)).toBeLessThan(0.04);
        });
      }),
      { numRuns: 30 },
    );
  });

  it('a change of shares moves clients only to versions that have grown in comparison, and few of them', () => {
    const pairs = shares.chain((before) =>
      fc.tuple(
        fc.constant(before),
        shares.filter(({ length }) => length === before.length),
      ),
    );
    fc.assert(
      fc.property(pairs, ([before, after]) => {
        const first = assign(split(...before));
        const second = assign(split(...after));
        let moved = 0;
        for (let client = 0; client < CLIENTS; client++) {
          const from = first[client]! - 1;
          const to = second[client]! - 1;
          if (from === to) continue;
          moved++;
          expect(after[to]! * before[from]!).toBeGreaterThanOrEqual(before[to]! * after[from]! - 1e-12);
        }
        const least = before.reduce((sum, share, index) => sum + Math.abs(share - after[index]!), 0) / 2;
        expect(moved / CLIENTS).toBeLessThan((2 * least) / (1 + least) + 0.04);
      }),
      { numRuns: 50 },
    );
  });

  it('a canary that grows from 5 to 10 percent takes 5 percent of the clients, and gives none back', () => {
    const before = assign(split(0.95, 0.05));
    const after = assign(split(0.9, 0.1));
    const moved = before.filter((version, client) => version !== after[client]).length / CLIENTS;
    expect(moved).toBeGreaterThan(0.035);
    expect(moved).toBeLessThan(0.065);
    expect(before.every((version, client) => version === 1 || after[client] === 2)).toBe(true);
  });

  it('the order in which the versions are written says nothing', () => {
    const written = split(0.5, 0.3, 0.2);
    expect(assign([written[2]!, written[0]!, written[1]!])).toEqual(assign(written));
  });

  it('the clients that try the canary of one service are not those that try the canary of another', () => {
    const shop = assign(split(0.9, 0.1), all, 'shop');
    const users = assign(split(0.9, 0.1), all, 'users');
    const both = shop.filter((version, client) => version === 2 && users[client] === 2).length / CLIENTS;
    expect(both).toBeLessThan(0.03);
  });

  it('a switch of all shares moves everybody, and a version with share 0 gets nobody', () => {
    expect(new Set(assign(split(1, 0)))).toEqual(new Set([1]));
    expect(new Set(assign(split(0, 1)))).toEqual(new Set([2]));
  });
});

describe('a version without an instance', () => {
  it('its clients go to the other versions by their shares, and nobody else moves', () => {
    const usual = assign(split(0.5, 0.3, 0.2));
    const without = assign(split(0.5, 0.3, 0.2), only('2', '3'));
    expect(without.every((version, client) => version !== 1 && [1, version].includes(usual[client]!))).toBe(
      true,
    );
    expect(shareOf(without, 2)).toBeCloseTo(0.6, 1);
  });

  it('its clients never go to a version whose share is 0', () => {
    expect(new Set(assign(split(1, 0), only('2')))).toEqual(new Set([1]));
  });

  it('a version of which nothing is known counts as there', () => {
    expect(assign(split(0.5, 0.5), () => undefined)).toEqual(assign(split(0.5, 0.5)));
  });

  it('where no version has an instance the draw holds', () => {
    expect(assign(split(0.5, 0.5), () => false)).toEqual(assign(split(0.5, 0.5)));
  });
});

describe('a split without a sticky key', () => {
  it('each request is drawn anew, by the shares', () => {
    const drawn = new Split('shop', split(0.7, 0.3));
    const versions = Array.from({ length: CLIENTS }, () =>
      Number(drawn.pick(requestOf(), all).select.version),
    );
    expect(Math.abs(shareOf(versions, 2) - 0.3)).toBeLessThan(0.04);
  });

  it('a request without the cookie is drawn anew', () => {
    const draws = [0.1, 0.9, 0.9, 0.1];
    const drawn = new Split('shop', split(0.5, 0.5), SESSION, () => draws.shift()!);
    const versions = [drawn.pick(requestOf(), all), drawn.pick(requestOf(), all)].map(
      ({ select }) => select.version,
    );
    expect(versions).toEqual(['2', '1']);
  });

  it('a draw of 0 has a winner', () => {
    const drawn = new Split('shop', split(0.5, 0.5), undefined, () => 0);
    expect(drawn.pick(requestOf(), all).select).toEqual({ version: '1' });
  });
});

describe('the variant of a version', () => {
  it('it is that of its selector, so that two routes to a version share its breaker', () => {
    const variant = new Split('shop', split(1)).pick(requestOf(), all);
    expect(variant).toEqual(createVariant({ version: '1' }));
  });
});

describe('a sticky key', () => {
  const principal: Principal = {
    kind: 'jwt',
    subject: 'ada',
    scopes: new Set(),
    claims: { sub: 'ada', tenant: 7, roles: ['admin'], none: '' },
    expiresAt: Infinity,
  };
  const request = requestOf({
    headers: { cookie: 'x=1; id=abc; xid=2; id=def; empty=', 'x-tenant': 't1' },
    principal,
  });

  it.each([
    ['cookie:id', 'abc'],
    ['cookie:xid', '2'],
    ['cookie:empty', undefined],
    ['cookie:none', undefined],
    ['header:X-Tenant', 't1'],
    ['header:other', undefined],
    ['claim:sub', 'ada'],
    ['claim:tenant', '7'],
    ['claim:roles', undefined],
    ['claim:none', undefined],
    ['claim:https://id.example/org', undefined],
    ['address', '203.0.113.1'],
  ])('%s is read from the request', (sticky, key) => {
    expect(parseSticky(sticky, 'sticky')(request)).toBe(key);
  });

  it('a claim is no key for a caller without a token', () => {
    expect(parseSticky('claim:sub', 'sticky')(requestOf())).toBeUndefined();
  });

  it.each(['cookie', 'cookie:', 'query:id', 'address:1', 'header:a b', 'cookie:a=b', ''])(
    'a sticky key of another form is rejected by name: %s',
    (sticky) => {
      expect(() => parseSticky(sticky, 'routes[0].sticky')).toThrow(/^routes\[0\]\.sticky must be/);
    },
  );
});
