import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeSchema, insertReference, toReference } from '../../../scripts/gateway-schema.ts';
import type { GatewayFileOptions } from '../../../src/gateway/config/file-options.ts';
import { fileOptions } from '../../../src/gateway/config/file-shapes.ts';
import { OptionPlace } from '../../../src/gateway/config/problems.ts';

const schema = JSON.parse(
  readFileSync(new URL('../../../src/gateway/config/gateway.schema.json', import.meta.url), 'utf8'),
);
const validate = new Ajv2020({ strict: false, allErrors: true }).compile(schema);

/** Reads the form alone: what values mean, as a date that exists, and what options say together is not checked. */
class FormalPlace extends OptionPlace {
  override at(...path: Path): OptionPlace {
    return new FormalPlace([...this.path, ...path], this.problems, this.env);
  }

  override isClean(): boolean {
    return false;
  }
}

/** Whether the shapes allow the form of a file. */
function isAllowed(value: unknown): boolean {
  const place = new FormalPlace([], [], {});
  fileOptions.read(value, place);
  return place.problems.length === 0;
}

/** A file with every option. */
const WHOLE: GatewayFileOptions = {
  $schema: './gateway.schema.json',
  auth: {
    jwt: [{ issuer: 'a', audience: ['b'], algorithms: ['ES256'], jwks: { keys: [] }, clockTolerance: 0 }],
    apiKeys: [{ hash: 'a'.repeat(64), subject: 'a', scopes: ['b'] }],
    forwardAuthorization: true,
    identity: { key: { kty: 'OKP' } },
  },
  routes: [
    {
      path: '/a',
      methods: ['GET'],
      host: ['a.example'],
      headers: { 'x-a': '1' },
      service: 'shop',
      rewrite: '/b',
      auth: { scopes: ['a'] },
      idempotencyKeys: true,
      timeout: 1,
      retries: 0,
      maxBodySize: 0,
      rateLimit: { limit: 1, interval: 1, burst: 1, by: 'address' },
      split: [{ select: { version: '1' }, share: 1 }],
      sticky: 'address',
      requestHeaders: { set: { a: 'b' }, remove: ['c'] },
      responseHeaders: { set: {}, remove: [] },
      deprecation: '2026-01-01',
      sunset: '2026-01-01',
      getBody: 'reject',
      rawPath: false,
      webSocket: { origins: ['https://a.example'] },
    },
  ],
  cors: {
    origins: ['https://a.example'],
    credentials: true,
    methods: ['GET'],
    allowedHeaders: ['a'],
    exposedHeaders: ['b'],
    maxAge: 0,
  },
  helmet: { frameguard: false },
  rateLimit: { limit: 1, interval: 1 },
  maxRequests: 1,
  maxEventLoopDelay: 1,
  trustedProxies: ['::1'],
  internalAddresses: ['10.0.0.0/8'],
  discovery: { redis: { url: 'redis://a', keyPrefix: 'a' } },
  rateLimitStore: { redis: { url: 'redis://a' } },
  server: {
    host: '::',
    port: 0,
    tls: { keyFile: 'a', certFile: 'b' },
    accessLog: true,
    http2: true,
    maxConnections: 1,
    maxHeaderSize: 16_384,
    requestTimeout: 0,
    headersTimeout: 1,
    keepAliveTimeout: 1,
    drainDelay: 0,
    shutdownTimeout: 0,
  },
};

type Path = (string | number)[];

/** The places of all values, and of the values in them. */
function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([name, one]) => pathsOf(one, [...path, name]))];
}

type Holder = Record<string, unknown>;

function withValue(
  value: unknown,
  [first, ...rest]: Path,
  put: (holder: Holder, name: string) => void,
): unknown {
  const copy = structuredClone(value) as Holder;
  let holder = copy;
  const names = [first!, ...rest];
  for (const name of names.slice(0, -1)) holder = holder[name] as Holder;
  put(holder, names.at(-1) as string);
  return copy;
}

describe('the JSON Schema of the files of a gateway', () => {
  it('the JSON Schema and the reference in the docs are as the options and their comments say', () => {
    expect(schema, 'run: node scripts/gateway-schema.ts').toEqual(describeSchema());
    const docs = readFileSync(new URL('../../../docs/gateway.md', import.meta.url), 'utf8');
    const withoutColumns = (text: string) => text.replace(/ +/g, ' ').replace(/-+/g, '-');
    const written = insertReference(docs, toReference(describeSchema()));
    expect(withoutColumns(docs), 'run: node scripts/gateway-schema.ts').toBe(withoutColumns(written));
  });

  it('each option has a description in the JSON Schema', () => {
    const definitions: Record<string, { properties: Record<string, { description?: string }> }> =
      schema.$defs;
    const fields = Object.entries(definitions).flatMap(([name, { properties }]) =>
      Object.entries(properties).map(([field, { description }]) => ({ name, field, description })),
    );
    expect(fields.length).toBeGreaterThan(70);
    expect(fields.filter(({ description }) => !description)).toEqual([]);
  });

  it('a file with every option is allowed by the JSON Schema, and has every option that the schema knows', () => {
    expect(validate(WHOLE), JSON.stringify(validate.errors)).toBe(true);
    expect(isAllowed(WHOLE)).toBe(true);
    const known = Object.keys(schema.$defs.RouteOptions.properties);
    expect(Object.keys(WHOLE.routes[0]!).sort()).toEqual(known.sort());
    expect(Object.keys(WHOLE).sort()).toEqual(Object.keys(schema.$defs.GatewayFileOptions.properties).sort());
  });

  it('the JSON Schema allows what the gateway does, whatever value is put in the place of another', () => {
    const places = pathsOf(WHOLE).filter((path) => path.length > 0);
    const values = fc.oneof(
      fc.constantFrom<unknown>(
        null,
        true,
        false,
        0,
        1,
        -1,
        0.5,
        1e9,
        2 ** 31,
        '',
        'a',
        'A',
        '*',
        '/',
        '/a',
        [],
        {},
        ['a'],
        [1],
        [{}],
      ),
      fc.constantFrom<unknown>(
        'GET',
        'TRACE',
        'https://a.example',
        'redis://b',
        'claim:',
        'claim:a',
        'cookie:a',
        { a: 'b' },
        { a: 1 },
      ),
      fc.string({ maxLength: 10 }).filter((text) => !text.includes(`\${`)),
      fc.integer(),
    );
    fc.assert(
      fc.property(fc.constantFrom(...places), values, (path, value) => {
        const file = withValue(WHOLE, path, (holder, name) => {
          holder[name] = value;
        });
        expect([validate(file), path, value]).toEqual([isAllowed(file), path, value]);
      }),
      { numRuns: 500 },
    );
  });

  it('the JSON Schema requires what the gateway does, and knows the same names', () => {
    for (const path of pathsOf(WHOLE).filter((one) => one.length > 0)) {
      const without = withValue(WHOLE, path, (holder, name) => {
        if (Array.isArray(holder)) holder.splice(Number(name), 1);
        else delete holder[name];
      });
      const renamed = withValue(WHOLE, path, (holder, name) => {
        if (!Array.isArray(holder)) holder[`${name}X`] = holder[name];
      });
      expect([path, validate(without)]).toEqual([path, isAllowed(without)]);
      expect([path, validate(renamed)]).toEqual([path, isAllowed(renamed)]);
    }
  });

  it('the JSON Schema allows a variable where the gateway does', () => {
    const env = { A: 'https://a.example' };
    for (const path of pathsOf(WHOLE).filter((one) => one.length > 0)) {
      const file = withValue(WHOLE, path, (holder, name) => {
        holder[name] = `\${env:NONE}`;
      });
      const place = new OptionPlace([], [], env);
      fileOptions.read(file, place);
      const takesVariable = place.problems.some(({ reason }) => reason.includes('variable NONE'));
      expect([path, validate(file)]).toEqual([path, takesVariable || isOpenText(path)]);
    }
  });
});

/** Options whose form allows the mark as any other text: the gateway rejects it there, or another library has it. */
function isOpenText(path: Path): boolean {
  const isScope = path.includes('scopes') && path.at(-1) !== 'scopes';
  const name = String(path.at(-1));
  const open = ['$schema', 'subject', 'version', 'x-a', 'frameguard', 'keys', 'kty'];
  return isScope || open.includes(name);
}
