import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ServiceCall, ServiceClient } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { valuesOf } from '../support/entries.ts';
import { echo } from '../support/handlers.ts';
import { clientOf, service, serving } from '../support/mesh-client.ts';
import { startRaw } from '../support/misbehaving-servers.ts';
import { startServer } from '../support/server.ts';

interface Echoed {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

type Send = (client: ServiceClient, call: object) => Promise<Echoed>;

/** The two methods of a client that take a call. */
const sends: readonly [string, Send][] = [
  ['call()', (client, call) => client.call<Echoed>({ service, path: '/', ...call })],
  [
    'request()',
    async (client, call) => {
      const { body } = await client.request({ service, path: '/', ...call });
      return JSON.parse(await text(body)) as Echoed;
    },
  ],
];

type Pairs = [string, string][];

/** The forms in which a caller gives names and values. */
const forms: readonly [string, (pairs: Pairs) => unknown][] = [
  ['a plain object', (pairs) => Object.fromEntries(pairs)],
  ['an object without a prototype', (pairs) => Object.assign(Object.create(null), Object.fromEntries(pairs))],
  ['a Map', (pairs) => new Map(pairs)],
  ['a list of pairs', (pairs) => pairs],
  ['an iterator of pairs', (pairs) => pairs.values()],
];

const headerForms: typeof forms = [
  ...forms,
  ['Headers', (pairs) => new Headers(pairs)],
  ['a list of names and values in turn', (pairs) => pairs.flat()],
];

const queryForms: typeof forms = [
  ...forms,
  ['URLSearchParams', (pairs) => new URLSearchParams(pairs)],
  ['a string', (pairs) => String(new URLSearchParams(pairs))],
  ['a string with its question mark', (pairs) => `?${new URLSearchParams(pairs)}`],
];

const name = fc.stringMatching(/^x-[a-z]{1,8}$/);
const value = fc.stringMatching(/^[!-~]{1,12}$/);
const somePairs = fc.uniqueArray(fc.tuple(name, value), {
  selector: ([first]) => first,
  minLength: 1,
  maxLength: 4,
});

describe.each(sends)('%s', (_entry, send) => {
  it.each(headerForms)('a call sends the headers that it is given as %s', async (_form, make) => {
    const { client, server } = await serving(echo);
    await fc.assert(
      fc.asyncProperty(somePairs, async (pairs) => {
        await send(client, { headers: make(pairs) });
        for (const [header, sent] of pairs) expect(valuesOf(server.requests.at(-1)!, header)).toEqual([sent]);
      }),
      { numRuns: 10 },
    );
  });

  it.each(queryForms)('a call sends the query that it is given as %s', async (_form, make) => {
    const { client } = await serving(echo);
    await fc.assert(
      fc.asyncProperty(somePairs, async (pairs) => {
        const { url } = await send(client, { path: '/users?own=1', query: make(pairs) });
        expect([...new URL(url, 'http://a').searchParams]).toEqual([['own', '1'], ...pairs]);
      }),
      { numRuns: 10 },
    );
  });

  it.each<[string, unknown]>([
    ['a string', 'x-a: b'],
    ['a number', 5],
    ['a Promise', Promise.resolve({ 'x-a': 'b' })],
    ['a WeakMap', new WeakMap()],
    ['a stream', new ReadableStream()],
    ['a Set', new Set(['x-a'])],
    ['an odd list', ['x-a']],
    ['pairs that are none', [['x-a']]],
    ['a Date as a value', { 'x-a': new Date(0) }],
    ['an object as a value', { 'x-a': { b: 1 } }],
    ['a symbol as a value', { 'x-a': Symbol('b') }],
    ['a list in a list', { 'x-a': [['b']] }],
    ['a name that is none', new Map([[1, 'b']])],
  ])('a call rejects headers that would be lost: %s', async (_what, headers) => {
    const { client, server } = await serving(echo);
    expect(await rejectionOf(send(client, { headers }))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    expect(server.requests).toEqual([]);
  });

  it.each<[string, unknown, RegExp]>([
    ['a Date', { at: new Date(0) }, /'at'.*a Date.*toISOString/],
    ['an object', { filter: { a: 1 } }, /'filter'.*an object/],
    ['a Map in a list', { filter: [new Map()] }, /'filter'.*a Map/],
    ['a function', { filter: () => 1 }, /'filter'.*a function/],
    ['a string that is not encoded', 'name=ü', /percent-encode/],
    ['a string with a fragment', 'a=1#b', /percent-encode/],
    ['a number', 5, /the query must be/],
    ['a list of names', ['a', 'b'], /the query must be/],
    ['a Promise', Promise.resolve({}), /the query must be.*a Promise/],
  ])('a call rejects a query that would be nonsense: %s', async (_what, query, message) => {
    const { client, server } = await serving(echo);
    const error = await rejectionOf(send(client, { query }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST', message: expect.stringMatching(message) });
    expect(server.requests).toEqual([]);
  });

  it('a call sends a number of any size and true or false in a query', async () => {
    const { client } = await serving(echo);
    const { url } = await send(client, { query: { id: 2n ** 64n, page: 2, all: false } });
    expect(url).toBe('/?id=18446744073709551616&page=2&all=false');
  });

  it.each<[string, () => unknown]>([
    [
      'a generator',
      () =>
        (function* () {
          yield 'a';
          yield Buffer.from('b');
        })(),
    ],
    ['an iterator', () => ['a', 'b'].values()],
  ])('a call sends a body that comes from %s as it comes', async (_source, make) => {
    const { client } = await serving(echo);
    await expect(send(client, { method: 'POST', body: make() })).resolves.toMatchObject({ body: 'ab' });
  });

  it('a call says of a string that is the JSON of an object or a list that it is JSON', async () => {
    const { client } = await serving(echo);
    const typeOf = async (body: unknown, headers = {}) => {
      return (await send(client, { method: 'POST', body, headers })).headers['content-type'];
    };
    for (const body of ['{"a":1}', ' [1, 2]\n', '{}']) expect(await typeOf(body)).toBe('application/json');
    for (const body of ['', 'text', '{text}', '[1', '5', 'a=b']) expect(await typeOf(body)).toBeUndefined();
    expect(await typeOf('{"a":1}', { 'content-type': 'text/x' })).toBe('text/x');
  });

  it.each<[object, RegExp]>([
    [{ timeOut: 500 }, /no 'timeOut': did you mean 'timeout'\?/],
    [{ params: { a: 1 } }, /no 'params': did you mean 'query'\?/],
    [{ idempotencykey: 'k' }, /no 'idempotencykey': did you mean 'idempotencyKey'\?/],
    [{ retires: 1 }, /did you mean 'retries'\?/],
    [{ header: {} }, /did you mean 'headers'\?/],
    [{ data: {} }, /did you mean 'body'\?/],
    [{ somethingElse: 1 }, /a call has service, .*timeout/],
    [{ timeOut: undefined }, /did you mean 'timeout'\?/],
  ])(
    'a call rejects an option that it does not have, and names the nearest one: %o',
    async (part, message) => {
      const { client, server } = await serving(echo);
      const error = await rejectionOf(send(client, part));
      expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST', message: expect.stringMatching(message) });
      expect(server.requests).toEqual([]);
    },
  );

  it('a call is not disturbed by fields that another library has added to all objects', async () => {
    const { client } = await serving(echo);
    const prototype = Object.prototype as unknown as Record<string, unknown>;
    prototype.extension = 'by a library';
    try {
      await expect(send(client, {})).resolves.toMatchObject({ method: 'GET' });
    } finally {
      delete prototype.extension;
    }
  });

  it.each<[unknown]>([[1n], [{ toJSON: () => oops() }], [Object.create(null)], [Symbol('a')], [() => 1]])(
    'a call rejects a path or a method that is no text as it does any other: %o',
    async (part) => {
      const { client } = await serving(echo);
      for (const call of [{ path: part }, { method: part }]) {
        expect(await rejectionOf(send(client, call))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
      }
    },
  );

  it.each<[string, unknown, RegExp]>([
    ['a SharedArrayBuffer', new SharedArrayBuffer(4), /give its content/],
    ['a WritableStream', new WritableStream(), /give its content/],
    ['a RegExp', /a/, /give its content/],
    ['an Error', new Error('a'), /give its content/],
    ['an Error with a code', Object.assign(new Error('a'), { code: 'A' }), /give its content/],
    ['a promise', Promise.resolve({ a: 1 }), /await it/],
    // biome-ignore lint/suspicious/noThenProperty: a body with then() is tested
    ['a thenable', { a: 1, then: () => {} }, /await it/],
    [
      'an object whose state is private',
      new (class Money {
        readonly #amount = 5;
        get amount(): number {
          return this.#amount;
        }
      })(),
      /a Money.*toJSON/,
    ],
  ])('a call rejects a body that JSON would make nothing of: %s', async (_what, body, message) => {
    const { client, server } = await serving(echo);
    const error = await rejectionOf(send(client, { method: 'POST', body }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST', message: expect.stringMatching(message) });
    expect(server.requests).toEqual([]);
  });

  it('a call sends an empty object, and one whose fields are all unset', async () => {
    class Filter {
      name: string | undefined = undefined;
    }
    const { client } = await serving(echo);
    for (const body of [{}, Object.create(null), new Filter()]) {
      await expect(send(client, { method: 'POST', body })).resolves.toMatchObject({ body: '{}' });
    }
  });

  it('a call shows nothing of a body, a method or a signal that it rejects', async () => {
    const { client } = await serving(echo);
    const holding: Record<string, unknown> = { hunter2: 1 };
    holding.hunter2 = holding;
    for (const call of [{ body: holding }, { method: 'GET hunter2' }, { signal: 'hunter2' }]) {
      const error = await rejectionOf(send(client, { method: 'POST', ...call }));
      expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
      expect(inspect(error, { depth: 9 })).not.toMatch(/hunter2/);
    }
  });

  it('a call shows no bytes of a response that is no HTTP', async () => {
    const client = clientOf([await startRaw('HTTP/1.1 200 OK\r\nhunter2\u0001: a\r\n\r\n')]);
    const error = await rejectionOf(send(client, { retries: 0 }));
    expect(error).toMatchObject({ code: 'ERR_SERVICE_CONNECTION' });
    expect(inspect(error, { depth: 9 })).not.toMatch(/hunter2/);
  });

  it('a call keeps to one slash at the start of a path, and names a generator that would be lost', async () => {
    const { client, server } = await serving(echo);
    for (const call of [{ path: '//evil.example/' }, { method: 'POST', body: new Map([['a', 'b']]) }]) {
      expect(await rejectionOf(send(client, call))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    }
    expect(server.requests).toEqual([]);
  });
});

it('a call that is no object is rejected as one that is malformed', async () => {
  const { client } = await serving(echo);
  for (const call of [undefined, null, 'user-service', 5]) {
    const given = call as unknown as ServiceCall;
    expect(await rejectionOf(client.call(given))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    expect(await rejectionOf(client.request(given))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
  }
});

it('a stream is not sent twice once an instance has been given a part of it, even if a generator made it', async () => {
  const server = await startServer(
    (request) => void request.resume().on('end', () => request.socket.destroy()),
  );
  const client = clientOf([server]);
  const call = { service, path: '/', method: 'PUT' };
  for (const body of [Readable.from(['a']), ['a'].values()])
    await rejectionOf(client.call({ ...call, body }));
  expect(server.requests).toHaveLength(2);
});

function oops(): never {
  throw new Error('oops');
}
