import { describe, expect, it } from 'vitest';
import { GatewayConfigError, HoldfastError } from '../../../src/errors.ts';
import { readGatewayConfig, readGatewayOptions } from '../../../src/gateway/config/read-options.ts';
import type { GatewayConfig, RouteOptions } from '../../../src/gateway/options.ts';
import { ED25519, NO_KEYS } from '../../support/options.ts';

const ROUTE: RouteOptions = { path: '/a', service: 'shop', auth: false };
const JWT = {
  issuer: 'https://id.example',
  audience: 'shop',
  algorithms: ['ES256'],
  jwks: 'https://id.example/jwks',
};

/** Lists what is wrong with a configuration, as `path reason`. */
function problemsOf(config: object): string[] {
  try {
    readGatewayConfig(config as GatewayConfig);
    return [];
  } catch (error) {
    if (!(error instanceof GatewayConfigError)) throw error;
    return error.problems.map(({ path, reason }) => `${path} ${reason}`);
  }
}

const ofRoute = (route: object) => problemsOf({ routes: [{ ...ROUTE, ...route }] });

describe('the options of a gateway', () => {
  it('the options of a gateway that are allowed are taken as they are, and later changes of them have no effect', () => {
    const config = {
      auth: { jwt: JWT, apiKeys: [{ hash: 'a'.repeat(64), subject: 'importer', scopes: ['pay'] }] },
      routes: [
        {
          path: '/api/v1/users/:userId',
          methods: ['GET', 'PUT'],
          service: 'user-service',
          rewrite: '/users/:userId',
        },
        {
          path: '/pay',
          service: 'pay',
          auth: { scopes: ['pay'] },
          timeout: 2_000,
          rateLimit: { limit: 10, interval: 1_000, by: 'claim:sub' },
        },
        {
          path: '/shop/*',
          service: 'shop',
          auth: false as const,
          sticky: 'cookie:session',
          maxBodySize: Infinity,
          deprecation: '2026-01-01',
          sunset: '2027-02-28T23:00:00Z',
          split: [
            { select: { version: '1' }, share: 0.95 },
            { select: { version: '2' }, share: 0.05 },
          ],
        },
      ],
      cors: { origins: ['https://shop.example'], credentials: true },
      trustedProxies: ['10.0.0.0/8', '::1'],
    };
    const read = readGatewayConfig(config as GatewayConfig);
    expect(read).toEqual(config);
    config.routes[0]!.path = '/other';
    expect(read.routes[0]!.path).toBe('/api/v1/users/:userId');
  });

  it('all that is wrong is told at once, each by its path', () => {
    const problems = problemsOf({
      routes: [
        { ...ROUTE, timeout: 'soon', retries: -1 },
        { path: '/b', sevice: 'shop', auth: false },
        { ...ROUTE, path: '/c/:id', rewrite: '/d/:other' },
      ],
      cors: { origins: '*', credentials: true },
      helmet: 1,
    });
    expect(problems).toEqual([
      'routes[0].timeout must be a number from 1 to 2147483647; got another text',
      'routes[0].retries must be a whole number of at least 0; got -1',
      "routes[1].sevice is not known: is 'service' meant?",
      "routes[1] needs the option 'service'",
      expect.stringMatching(/^routes\[2\]\.rewrite .*':other'/),
      expect.stringMatching(/^cors lets every origin read/),
      'helmet must be true or false, or the options of @fastify/helmet; got 1',
    ]);
  });

  it('the path of a problem is told once, as far as the part that is wrong', () => {
    expect(problemsOf({ routes: [{ ...ROUTE, path: '/a/:1' }] })).toEqual([
      "routes[0].path has ':1', which is not the name of a parameter",
    ]);
    const twice = { hash: 'a'.repeat(64), subject: 'a' };
    expect(problemsOf({ routes: [ROUTE], auth: { apiKeys: [twice, twice] } })).toEqual([
      'auth.apiKeys has a key twice',
    ]);
    expect(problemsOf({ routes: [ROUTE], auth: {} })).toEqual(["auth needs the option 'jwt' or 'apiKeys'"]);
    expect(problemsOf({ routes: [ROUTE], auth: { jwt: [{ ...JWT, jwks: { keys: 1 } }] } })).toEqual([
      expect.stringMatching(/^auth\.jwt\[0\]\.jwks must be /),
    ]);
  });

  const jwtWith = (options: object) => ({ jwt: [{ ...JWT, ...options }] });
  const keyWith = (options: object) => ({ apiKeys: [{ hash: 'a'.repeat(64), subject: 'a', ...options }] });
  const { d: _secret, ...publicKey } = ED25519;
  const wrongAuth: [string, object[]][] = [
    ['auth.jwt', [5, 'x', [], [5], [JWT, JWT]].map((jwt) => ({ jwt }))],
    ['auth.jwt[0].issuer', ['', 5, {}].map((issuer) => jwtWith({ issuer }))],
    ['auth.jwt[0].audience', ['', 5, {}, [], [5], ['']].map((audience) => jwtWith({ audience }))],
    [
      'auth.jwt[0].algorithms',
      [5, 'ES256', [], ['none'], ['HS256'], ['es256']].map((algorithms) => jwtWith({ algorithms })),
    ],
    ['auth.jwt[0].jwks', NO_KEYS.map((jwks) => jwtWith({ jwks }))],
    ['auth.jwt[0].clockTolerance', [-1, '5', NaN].map((clockTolerance) => jwtWith({ clockTolerance }))],
    ['auth.apiKeys', [5, 'x', {}, [5], []].map((apiKeys) => ({ apiKeys }))],
    ['auth.apiKeys[0].hash', ['the key itself', 5, 'g'.repeat(64)].map((hash) => keyWith({ hash }))],
    ['auth.apiKeys[0].subject', ['', 5].map((subject) => keyWith({ subject }))],
    ['auth.apiKeys[0].scopes', [5, 'x', [''], ['a b'], ['a"']].map((scopes) => keyWith({ scopes }))],
    ['auth.forwardAuthorization', [0, 'no'].map((one) => ({ jwt: JWT, forwardAuthorization: one }))],
    [
      'auth.identity.key',
      [5, {}, publicKey, { ...ED25519, crv: 'X25519' }, { ...ED25519, d: 'AA' }].map((key) => ({
        jwt: JWT,
        identity: { key },
      })),
    ],
  ];

  it.each(wrongAuth)('what makes no sense at %s is told with its path, and not shown', (path, wrong) => {
    for (const auth of wrong) {
      const told = problemsOf({ routes: [ROUTE], auth });
      expect(told).toEqual([expect.stringMatching(/^auth/)]);
      expect(told[0]!.startsWith(path), told[0]).toBe(true);
      expect(told[0]).not.toMatch(/the key itself|user:secret|AA'/);
    }
  });

  it.each(['/health', '/health/', '/he%61lth', '/.well-known/jwks.json'])(
    'no route takes GET at %s, which is of the gateway',
    (path) => {
      const problem = expect.stringMatching(/^routes\[0\]\.path is where the gateway itself responds to GET/);
      expect(problemsOf({ routes: [{ ...ROUTE, path }] })).toEqual([problem]);
      expect(problemsOf({ routes: [{ ...ROUTE, path, methods: ['PUT', 'GET'] }] })).toEqual([problem]);
      expect(problemsOf({ routes: [{ ...ROUTE, path, methods: ['POST'] }] })).toEqual([]);
    },
  );

  it('an error of a configuration is a HoldfastError with a code, a path, and all problems in its message', () => {
    const error = rejectionOfRead({ routes: [] });
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({
      code: 'ERR_GATEWAY_CONFIG',
      path: 'routes',
      line: undefined,
      name: 'GatewayConfigError',
    });
    expect(error.message).toMatch(
      /^the configuration of the gateway is not allowed: routes must be a list of at least one/,
    );
  });

  it('no message repeats a text of the configuration, which may be a secret', () => {
    const secret = 's3cret';
    const error = rejectionOfRead({
      routes: [{ ...ROUTE, requestHeaders: { set: { 'x-key': `${secret}\n` } }, host: `${secret} ` }],
      auth: {
        jwt: { ...JWT, jwks: secret },
        apiKeys: [{ hash: secret, subject: 'a' }],
        identity: { key: secret },
      },
    });
    expect(error.problems.length).toBeGreaterThanOrEqual(5);
    expect(error.message).not.toContain(secret);
  });

  it.each<[string, object, RegExp]>([
    [
      'shares that are no whole',
      { split: [{ select: { v: '1' }, share: 0.5 }] },
      /split has shares that add up to 0.5/,
    ],
    [
      'a version twice',
      {
        split: [
          { select: { v: '1' }, share: 0.5 },
          { select: { v: '1' }, share: 0.5 },
        ],
      },
      /is the version of split\[0\] again/,
    ],
    [
      'a version without a name',
      { split: [{ select: {}, share: 1 }] },
      /split\[0\]\.select names no version/,
    ],
    ['a sticky key without a split', { sticky: 'address' }, /sticky needs `split`/],
    [
      'a sticky claim of an open route',
      { sticky: 'claim:sub', split: [{ select: { v: '1' }, share: 1 }] },
      /sticky is a claim, and the route takes requests without a token/,
    ],
    [
      'a limit by claim of an open route',
      { rateLimit: { limit: 1, interval: 1, by: 'claim:sub' } },
      /rateLimit\.by needs a caller/,
    ],
    [
      'a limit by something unknown',
      { rateLimit: { limit: 1, interval: 1, by: 'cookie' } },
      /rateLimit\.by must be 'address', 'key' or/,
    ],
    ['a date that does not exist', { sunset: '2026-02-30' }, /sunset is not a date that exists/],
    ['a date without its zone', { deprecation: '2026-01-01T10:00' }, /deprecation must be an ISO date/],
    [
      'an end before the deprecation',
      { deprecation: '2026-06-01', sunset: '2026-01-01' },
      /sunset is before `deprecation`/,
    ],
    ['TRACE', { methods: ['TRACE'] }, /methods\[0\] must be a method in capital letters/],
    ['a method in small letters', { methods: ['get'] }, /methods\[0\] must be a method in capital letters/],
    ['a host with a port', { host: 'shop.example:80' }, /host must be the name of a host without a port/],
    [
      'a framing header',
      { requestHeaders: { set: { 'Content-Length': '0' } } },
      /is a header that the gateway itself sets/,
    ],
    [
      'the removal of a framing header',
      { responseHeaders: { remove: ['TE'] } },
      /remove\[0\] is a header that the gateway itself sets/,
    ],
    [
      'a header with a line end',
      { responseHeaders: { set: { a: 'b\r\nc: d' } } },
      /must be the value of a header/,
    ],
    ['a header twice', { headers: { 'x-a': '1', 'X-A': '2' } }, /headers\["X-A"\] is there twice/],
    ['a path with a query', { path: '/a?b' }, /path must be a path that begins/],
    ['a parameter twice', { path: '/:a/:a' }, /routes\[0\]\.path has the parameter ':a' twice/],
    ['a rewrite of what is not there', { rewrite: '/*' }, /rewrite .*has a '\*'/],
    ['null', { auth: null }, /auth must be false, or an object with scopes; got null/],
    ['a name that all objects have', { constructor: 1 }, /constructor is not known/],
  ])('a route is not allowed with %s', (_name, route, message) => {
    expect(ofRoute(route)).toEqual([expect.stringMatching(message)]);
  });

  it('a field that is named __proto__ is not known, and changes no prototype', () => {
    const route = JSON.parse(
      '{ "path": "/a", "service": "s", "auth": false, "__proto__": { "timeout": 5 } }',
    );
    expect(problemsOf({ routes: [route] })).toEqual(['routes[0].__proto__ is not known']);
  });

  it('a route that needs a token is not allowed without `auth`, nor a limit by a claim or key that nobody has', () => {
    expect(problemsOf({ routes: [{ path: '/a', service: 's', auth: { scopes: ['pay'] } }] })).toEqual([
      expect.stringMatching(/^routes\[0\] needs a caller with a token or a key, and there is no `auth`/),
    ]);
    const rule = { limit: 1, interval: 1 };
    const apiKeys = [{ hash: 'a'.repeat(64), subject: 'a' }];
    expect(
      problemsOf({
        auth: { apiKeys },
        routes: [{ path: '/a', service: 's', rateLimit: { ...rule, by: 'claim:sub' } }],
        rateLimit: { ...rule, by: 'claim:org' },
      }),
    ).toEqual([
      'routes[0].rateLimit.by is a claim, and there is no `auth.jwt`',
      'rateLimit.by is a claim, and there is no `auth.jwt`',
    ]);
    expect(problemsOf({ auth: { jwt: JWT }, routes: [ROUTE], rateLimit: { ...rule, by: 'key' } })).toEqual([
      'rateLimit.by is the API key, and there is no `auth.apiKeys`',
    ]);
  });

  it('two routes are not allowed that take the same requests, and are where one is the more specific', () => {
    const both = (one: object, other: object) =>
      problemsOf({
        routes: [
          { ...ROUTE, ...one },
          { ...ROUTE, ...other },
        ],
      });
    const same = [expect.stringMatching(/^routes\[1\] takes requests that routes\[0\] takes/)];
    expect(both({ path: '/a/:id' }, { path: '/a/:name/' })).toEqual(same);
    expect(both({ methods: ['GET', 'PUT'] }, { methods: ['HEAD'] })).toEqual(same);
    expect(both({ host: 'A.example' }, { host: ['b.example', 'a.example'] })).toEqual(same);
    expect(both({ path: '/café' }, { path: '/caf%C3%A9' })).toEqual(same);
    expect(both({ path: '/a' }, { path: '/%61' })).toEqual(same);
    expect(both({ headers: { a: '1', B: '2' } }, { headers: { b: '2', A: '1' } })).toEqual(same);
    expect(both({ path: '/b' }, { host: ['a.example', 'A.example'] })).toEqual([]);
    expect(both({ path: '/a/:id' }, { path: '/a/b' })).toEqual([]);
    expect(both({ methods: ['GET'] }, { methods: ['PUT'] })).toEqual([]);
    expect(both({}, { headers: { 'x-beta': '1' } })).toEqual([]);
    expect(both({}, { host: 'a.example' })).toEqual([]);
  });

  it.each(['10.0.0.0/33', '10.0.0.0/', '300.0.0.1', '::1/129', 'localhost', '10.0.0.0/8/8'])(
    'the network %s is not allowed',
    (network) => {
      expect(problemsOf({ routes: [ROUTE], trustedProxies: [network] })).toHaveLength(1);
    },
  );

  it.each(['null', 'https://shop.example/', 'https://*.example', 'https://Shop.example', '*'])(
    'the origin %s is not allowed in a list',
    (origin) => {
      expect(problemsOf({ routes: [ROUTE], cors: { origins: [origin] } })).toHaveLength(1);
    },
  );

  it('a gateway needs a client or a discovery, and takes not both', () => {
    const discovery = { instances: () => [], watch: () => () => {} };
    const client = { request: () => {}, close: () => {} };
    const read = (options: object) => () => readGatewayOptions({ routes: [ROUTE], ...options } as never);
    expect(read({})).toThrow(/needs the option 'client' or 'discovery'/);
    expect(read({ client, discovery })).toThrow(/discovery is for a client of its own/);
    expect(read({ client: {} })).toThrow(/client must be a ServiceClient/);
    expect(read({ client, rateLimitStore: {} })).toThrow(/rateLimitStore must be a store/);
    expect(read({ client })().client).toBe(client);
  });
});

function rejectionOfRead(config: object): GatewayConfigError {
  try {
    readGatewayConfig(config as GatewayConfig);
  } catch (error) {
    return error as GatewayConfigError;
  }
  throw new Error('it was allowed');
}
