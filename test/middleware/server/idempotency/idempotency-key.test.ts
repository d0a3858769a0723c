import { describe, expect, it } from 'vitest';
import {
  credentialsOf,
  parseIdempotencyKey,
  storageKey,
} from '../../../../src/middleware/server/idempotency/idempotency-key.ts';

describe('the header Idempotency-Key', () => {
  it.each([
    ['"8e03978e-40d5-43dd-bc93-6cf2a89b9ae5"', '8e03978e-40d5-43dd-bc93-6cf2a89b9ae5'],
    ['8e03978e-40d5-43dd-bc93-6cf2a89b9ae5', '8e03978e-40d5-43dd-bc93-6cf2a89b9ae5'],
    ['"with space"', 'with space'],
    ['"a \\"quoted\\" \\\\ word"', 'a "quoted" \\ word'],
    ['a"b;c=d', 'a"b;c=d'],
    [`"${'k'.repeat(255)}"`, 'k'.repeat(255)],
    ['k'.repeat(255), 'k'.repeat(255)],
  ])('the header %s has the key %s', (field, key) => {
    expect(parseIdempotencyKey(field)).toBe(key);
  });

  it.each([
    '',
    '""',
    ' ',
    'with space',
    'one, two',
    '"one", "two"',
    '"open',
    '"back\\slash"',
    '"key";param=1',
    'ä',
    '"ä"',
    '"line\n"',
    `"${'k'.repeat(256)}"`,
    'k'.repeat(256),
    ['one'],
  ])('the header %j has no key', (field) => {
    expect(parseIdempotencyKey(field)).toBeUndefined();
  });
});

describe('the scope of a key', () => {
  const scope = (headers: Record<string, string>) => credentialsOf({ method: 'POST', path: '/', headers });

  it('the scope of a key is made of the credentials of the request', () => {
    expect(scope({ authorization: 'a', accept: '*/*' })).toBe(
      scope({ authorization: 'a', 'user-agent': 'b' }),
    );
    const all = [
      scope({}),
      scope({ authorization: 'a' }),
      scope({ authorization: 'b' }),
      scope({ cookie: 'a' }),
      scope({ 'proxy-authorization': 'a' }),
      scope({ 'x-api-key': 'a' }),
      scope({ 'x-auth-token': 'a' }),
      scope({ 'x-goog-api-key': 'a' }),
      scope({ 'x-tenant-id': 'a' }),
      scope({ 'x-service-name': 'a' }),
      scope({ authorization: 'a', cookie: 'a' }),
      scope({ authorization: 'a","a' }),
    ];
    expect(new Set(all).size).toBe(all.length);
  });

  it('the name of a stored key depends on scope and key, and neither can be read from it', () => {
    const names = [storageKey('a', 'b'), storageKey('a', 'c'), storageKey('b', 'b'), storageKey('ab', '')];
    expect(new Set(names).size).toBe(4);
    expect(storageKey('secret-token', 'key')).toMatch(/^[\w-]{43}$/);
  });
});
