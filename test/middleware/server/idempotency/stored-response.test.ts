import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeResponse,
  encodeResponse,
  isFinal,
} from '../../../../src/middleware/server/idempotency/stored-response.ts';

const fingerprint = { digest: 'abc', bytes: 3, complete: true };

function again(
  headers: Record<string, string | number | string[] | undefined>,
  body: Uint8Array = Buffer.alloc(0),
) {
  return decodeResponse(encodeResponse({ status: 201, headers, body }, fingerprint));
}

it('a stored response is read as it was written', () => {
  fc.assert(
    fc.property(fc.uint8Array(), (body) => {
      const stored = again(
        { 'Content-Type': 'image/png', link: ['<a>', '<b>'], age: 5, none: undefined },
        body,
      );
      expect(stored.fingerprint).toEqual(fingerprint);
      expect(stored.response.status).toBe(201);
      expect(stored.response.headers).toEqual({
        'content-type': 'image/png',
        link: ['<a>', '<b>'],
        age: '5',
      });
      expect(Buffer.compare(stored.response.body as Uint8Array, body)).toBe(0);
    }),
  );
});

it.each(['Set-Cookie', 'Date', 'Connection', 'Content-Length', 'Transfer-Encoding', 'Keep-Alive'])(
  'the header %s is not stored',
  (name) => {
    expect(again({ [name]: 'x' }).response.headers).toEqual({});
  },
);

it.each([200, 201, 204, 302, 400, 404, 409, 422])('a response of %i is final', (status) => {
  expect(isFinal(status)).toBe(true);
});

it.each([401, 403, 408, 425, 429, 499, 500, 502, 503, 504])('a response of %i is not final', (status) => {
  expect(isFinal(status)).toBe(false);
});

describe('a text that others wrote to the store', () => {
  const valid = { status: 200, headers: { a: 'b' }, body: '', fingerprint };

  it.each([
    '',
    'text',
    'null',
    '[]',
    '{}',
    { ...valid, status: 99 },
    { ...valid, status: 503 },
    { ...valid, status: '200' },
    { ...valid, headers: { 'a b': 'c' } },
    { ...valid, headers: { a: 'b\r\nset-cookie: c' } },
    { ...valid, headers: { a: 5 } },
    { ...valid, headers: { a: ['b', 5] } },
    { ...valid, headers: { 'set-cookie': 'session' } },
    { ...valid, headers: { 'transfer-encoding': 'chunked' } },
    { ...valid, headers: null },
    { ...valid, body: 5 },
    { ...valid, fingerprint: undefined },
    { ...valid, fingerprint: { ...fingerprint, bytes: 0.5 } },
    { ...valid, fingerprint: { ...fingerprint, complete: 'yes' } },
    { ...valid, fingerprint: { ...fingerprint, digest: 5 } },
  ])('a text in the store is not taken for a response: %j', (content) => {
    expect(() => decodeResponse(typeof content === 'string' ? content : JSON.stringify(content))).toThrow();
  });

  it('a text in the store is decoded if it is well formed', () => {
    expect(decodeResponse(JSON.stringify(valid)).response.status).toBe(200);
  });
});
