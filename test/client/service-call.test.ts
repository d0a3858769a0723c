import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { prepareCall, type ServiceCall } from '../../src/client/service-call.ts';
import { InvalidRequestError } from '../../src/errors.ts';
import { anyText } from '../support/arbitraries.ts';

/** Prepares a call as it may come from JavaScript, without types. */
function prepared(call: Record<string, unknown>) {
  return prepareCall({ service: 'user-service', path: '/', ...call } as unknown as ServiceCall);
}

function errorOf(call: Record<string, unknown>): Error {
  try {
    prepared(call);
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was accepted');
}

it('a call that names only a service and a path is a GET without body and headers of its own', () => {
  expect(prepared({ path: '/users/u1' })).toEqual({
    method: 'GET',
    path: '/users/u1',
    headers: [],
    body: null,
    replayable: true,
    idempotent: true,
  });
});

describe('the method', () => {
  it.each([
    ['get', 'GET', true],
    ['HEAD', 'HEAD', true],
    ['OPTIONS', 'OPTIONS', true],
    ['TRACE', 'TRACE', true],
    ['put', 'PUT', true],
    ['Delete', 'DELETE', true],
    ['POST', 'POST', false],
    ['patch', 'PATCH', false],
    ['PURGE', 'PURGE', false],
  ])('the method %s is sent as %s, and is safe to send twice: %s', (method, sent, idempotent) => {
    expect(prepared({ method })).toMatchObject({ method: sent, idempotent });
  });

  it.each(['', ' ', '\t', '""', '" "'])(
    'a method is not safe to send twice for an idempotency key of %j',
    (key) => {
      expect(prepared({ method: 'POST', headers: { 'Idempotency-Key': key } }).idempotent).toBe(false);
      expect(prepared({ method: 'PUT', headers: { 'Idempotency-Key': key } }).idempotent).toBe(true);
    },
  );

  it.each(['', 'GET /evil', 'GET\r\n', 'GÉT', 'a b', null, 5])('the method %j is rejected', (method) => {
    expect(errorOf({ method })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ method }).message).toMatch(/not an HTTP method/);
  });

  it.each(['CONNECT', 'connect'])('the method %s is rejected, since it requests a tunnel', (method) => {
    expect(errorOf({ method })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ method }).message).toMatch(/tunnel/);
  });
});

describe('the path', () => {
  it.each(['/', '/users/u1?a=b&c=%20d', '/a//b', '/@evil.example', '/http://evil.example', '/"<>[]{|}^`!~'])(
    'the path %s is sent as it is',
    (path) => {
      expect(prepared({ path }).path).toBe(path);
    },
  );

  it.each([
    '',
    'users',
    'http://evil.example/',
    '//evil.example/',
    '/\\evil.example/',
    '\\\\evil.example/',
    '/a#b',
    '/a b',
    '/a\tb',
    '/a\r\nHost: evil.example',
    '/a\n',
    '/\u0000',
    '/\u007f',
    '/ü',
    '@evil.example',
    undefined,
    null,
    5,
    ['/'],
  ])('the path %j is rejected', (path) => {
    expect(errorOf({ path })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ path }).message).toMatch(/^the path must start with one slash/);
  });

  it('a path that is accepted stays on the host that it is sent to', () => {
    const hostile = fc.tuple(
      fc.constantFrom('', '/', '//', '/\\', '/.', '/..//', '/@', '/:', '/?'),
      fc.oneof(anyText, fc.stringMatching(/^[ -~]{1,12}$/)),
    );
    fc.assert(
      fc.property(
        hostile,
        fc.option(fc.tuple(fc.string(), fc.string()), { nil: undefined }),
        ([start, rest], pair) => {
          const query = pair && { [pair[0]]: pair[1] };
          let path: string;
          try {
            ({ path } = prepared({ path: start + rest, query }));
          } catch (error) {
            expect(error).toBeInstanceOf(InvalidRequestError);
            return;
          }
          expect(path).toMatch(/^\/[\x21-\x7e]*$/);
          expect(new URL(path, 'http://10.0.0.1:8001').host).toBe('10.0.0.1:8001');
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('the query', () => {
  it('the query of a call is appended to the path, and to the query that the path has', () => {
    expect(prepared({ path: '/users', query: { a: 1 } }).path).toBe('/users?a=1');
    expect(prepared({ path: '/users?a=1', query: { b: 2 } }).path).toBe('/users?a=1&b=2');
  });

  it('the query of a call gives a list once for each value, and leaves out undefined and null', () => {
    const query = { a: [1, undefined, 'x', null], b: undefined, c: null, d: false, e: '', f: [] };
    expect(prepared({ query }).path).toBe('/?a=1&a=x&d=false&e=');
  });

  it('the query of a call leaves the path as it is if nothing is left of the query', () => {
    expect(prepared({ path: '/users', query: {} }).path).toBe('/users');
    expect(prepared({ path: '/users', query: { a: undefined, b: [] } }).path).toBe('/users');
  });

  it('the query of a call arrives as it was given, with any content', () => {
    const value = fc.string({ unit: 'grapheme' });
    const query = fc.dictionary(value, fc.oneof(value, fc.array(value, { minLength: 1 })));
    fc.assert(
      fc.property(query, (given) => {
        const { searchParams } = new URL(prepared({ path: '/?own=1', query: given }).path, 'http://a');
        const expected = Object.entries(given).flatMap(([name, values]) =>
          [values].flat().map((item) => [name, item]),
        );
        expect([...searchParams]).toEqual([['own', '1'], ...expected]);
      }),
    );
  });
});

describe('the headers', () => {
  it('the headers of a call are sent with lower-case names, a list once for each value, without undefined ones', () => {
    const headers = {
      'X-Tenant': 't1',
      'X-Count': 5,
      'X-List': ['a', 'b'],
      'X-None': undefined,
      'X-Empty': [],
    };
    expect(prepared({ headers }).headers).toEqual([
      ...['x-tenant', 't1', 'x-count', '5', 'x-list', 'a', 'x-list', 'b'],
    ]);
  });

  it.each([
    'Host',
    'connection',
    'Keep-Alive',
    'proxy-connection',
    'TE',
    'trailer',
    'Transfer-Encoding',
    'upgrade',
    'expect',
    'Content-Length',
  ])('the headers that could change where a request goes or ends are rejected: %s', (name) => {
    expect(errorOf({ headers: { [name]: 'a' } })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ headers: { [name]: 'a' } }).message).toContain(`'${name.toLowerCase()}'`);
    expect(prepared({ headers: { [name]: undefined } }).headers).toEqual([]);
  });

  it.each(['', 'a b', 'a:', 'a\r\nb', 'ä', 'a\u0000', '(a)'])(
    'the headers of a call are rejected under the name %j',
    (name) => {
      expect(errorOf({ headers: { [name]: 'a' } })).toBeInstanceOf(InvalidRequestError);
      expect(errorOf({ headers: { [name]: 'a' } }).message).toMatch(/not a header name/);
    },
  );

  it.each(['a\r\nx-admin: 1', 'a\nb', 'a\rb', '\u0000', '\u007f', '\u001b[2J', '€', ['fine', 'a\r\nb']])(
    'the headers of a call are rejected with the value %j, and named',
    (value) => {
      expect(errorOf({ headers: { 'X-Tenant': value } })).toBeInstanceOf(InvalidRequestError);
      expect(errorOf({ headers: { 'X-Tenant': value } }).message).toContain("'x-tenant'");
    },
  );

  it('the headers of a call are sent as they are though a value reads like a name', () => {
    const headers = { 'x-a': 'content-type', 'x-b': 'evil.example', 'content-type': 'host' };
    expect(prepared({ headers }).headers).toEqual(Object.entries(headers).flat());
  });

  it.each(['', 'a\tb', ' a, b ', 'é'])('the headers of a call may have the value %j', (value) => {
    expect(prepared({ headers: { 'X-Tenant': value } }).headers).toEqual(['x-tenant', value]);
  });
});

describe('the body', () => {
  it.each([undefined, null])('the body %s is no body', (body) => {
    expect(prepared({ body })).toMatchObject({ body: null, headers: [], replayable: true });
  });

  it.each([
    [{ item: 'ü', none: undefined }, '{"item":"ü"}'],
    [[1, null], '[1,null]'],
    [{}, '{}'],
    [0, '0'],
    [false, 'false'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
  ])('the body %j is sent as JSON', (body, sent) => {
    const headers = ['content-type', 'application/json'];
    expect(prepared({ method: 'POST', body })).toMatchObject({ body: sent, headers, replayable: true });
  });

  it('a body of text or bytes is sent as it is, and can be sent again', () => {
    for (const body of ['', 'text', new Uint8Array([1, 2]), Buffer.from('bytes')]) {
      const request = prepared({ body });
      expect(request.body).toBe(body);
      expect(request).toMatchObject({ headers: [], replayable: true });
    }
  });

  it('a body of text is not parsed where the caller names its type', () => {
    const parse = vi.spyOn(JSON, 'parse');
    onTestFinished(() => parse.mockRestore());
    const headers = { 'Content-Type': 'application/merge-patch+json' };
    const request = prepared({ method: 'PATCH', body: '{"a":1}', headers });
    expect(request).toMatchObject({ headers: ['content-type', 'application/merge-patch+json'] });
    expect(parse).not.toHaveBeenCalled();
  });

  it.each([
    ['an ArrayBuffer', new Uint8Array([1, 2, 3]).buffer, [1, 2, 3]],
    ['a view of a part of it', new DataView(new Uint8Array([1, 2, 3]).buffer, 1), [2, 3]],
    ['an array of larger numbers', new Uint16Array([0x0101]), [1, 1]],
  ])('a body of bytes in %s is sent as those bytes, and can be sent again', (_kind, body, bytes) => {
    const request = prepared({ method: 'POST', body });
    expect([...(request.body as Uint8Array)]).toEqual(bytes);
    expect(request).toMatchObject({ headers: [], replayable: true });
  });

  it('a body of form fields is sent as a form', () => {
    expect(prepared({ body: new URLSearchParams({ a: 'b c' }) })).toMatchObject({
      body: 'a=b+c',
      headers: ['content-type', 'application/x-www-form-urlencoded;charset=UTF-8'],
      replayable: true,
    });
  });

  it('a body that comes as a stream cannot be sent again', () => {
    const body = Readable.from(['a', 'b']);
    const request = prepared({ body });
    expect(request.body).toBe(body);
    expect(request).toMatchObject({ headers: [], replayable: false });
  });

  it.each<[string, () => AsyncIterable<unknown>]>([
    [
      'an async generator',
      () =>
        (async function* () {
          yield 'a';
          yield Buffer.from('b');
        })(),
    ],
    ['a web stream', () => new Blob(['ab']).stream() as unknown as AsyncIterable<unknown>],
  ])('a body that comes from %s is sent as it comes, once', async (_source, make) => {
    const request = prepared({ body: make() });
    expect(request).toMatchObject({ headers: [], replayable: false });
    expect((request.body as Readable).readableObjectMode).toBe(false);
    expect(await text(request.body as Readable)).toBe('ab');
  });

  it('a body whose type the caller names keeps that type alone', () => {
    for (const body of [{ a: 1 }, new URLSearchParams({ a: '1' })]) {
      expect(prepared({ body, headers: { 'Content-Type': 'application/x.own' } }).headers).toEqual([
        'content-type',
        'application/x.own',
      ]);
    }
  });

  it('a body that cannot be written as JSON is rejected, with the reason', () => {
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    expect(errorOf({ body: cycle })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ body: cycle }).message).toMatch(/it holds itself/);
    expect(errorOf({ body: { big: 1n } })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ body: { big: 1n } }).cause).toBeInstanceOf(TypeError);
    for (const body of [() => 1, Symbol('a')]) {
      expect(errorOf({ body })).toBeInstanceOf(InvalidRequestError);
      expect(errorOf({ body }).message).toMatch(/cannot be written as JSON/);
    }
  });

  it.each([
    ['Blob', new Blob(['a'])],
    ['FormData', new FormData()],
    ['Headers', new Headers({ a: 'b' })],
    ['Map', new Map([['a', 'b']])],
    ['Set', new Set(['a'])],
  ])('a body that JSON would make an empty object of is rejected, and named: %s', (kind, body) => {
    expect(errorOf({ body })).toBeInstanceOf(InvalidRequestError);
    expect(errorOf({ body }).message).toMatch(new RegExp(`${kind} .*empty object`));
  });
});

it('a body that is a promise is rejected with the advice to await it', () => {
  expect(errorOf({ body: Promise.resolve({ a: 'b' }) }).message).toMatch(/await it/);
});

describe('the idempotency key', () => {
  it('an idempotency key makes any method safe to send twice, and is sent', () => {
    for (const method of ['POST', 'PATCH']) {
      expect(prepared({ method, idempotencyKey: 'order-1' })).toMatchObject({
        idempotent: true,
        headers: ['idempotency-key', 'order-1'],
      });
    }
  });

  it('an idempotency key is sent once, and is the one of the call, though the headers have another', () => {
    const request = prepared({
      method: 'POST',
      idempotencyKey: 'order-1',
      headers: { 'Idempotency-Key': 'other' },
    });
    expect(request.headers).toEqual(['idempotency-key', 'order-1']);
  });

  it('an idempotency key does not make a stream safe to send twice', () => {
    const body = Readable.from(['a']);
    expect(prepared({ method: 'POST', body, idempotencyKey: 'k' })).toMatchObject({ replayable: false });
  });

  it.each(['', 'a b', 'a\r\nb', 'ü', 'a'.repeat(256), 5, null])(
    'the idempotency key %j is rejected',
    (idempotencyKey) => {
      expect(errorOf({ idempotencyKey })).toBeInstanceOf(InvalidRequestError);
      expect(errorOf({ idempotencyKey }).message).toMatch(/idempotencyKey must be/);
    },
  );
});
