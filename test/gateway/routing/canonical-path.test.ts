import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Rejection } from '../../../src/gateway/problem.ts';
import { toCanonicalPath } from '../../../src/gateway/routing/canonical-path.ts';

describe('the canonical path', () => {
  it.each([
    ['/', '/'],
    ['/users/u1', '/users/u1'],
    ['/users/', '/users/'],
    ['/a//b///c', '/a/b/c'],
    ['//evil.example/a', '/evil.example/a'],
    ['/%7Euser/%61%2d%2E', '/~user/a-.'],
    ['/caf%c3%a9', '/caf%C3%A9'],
    ['/a;v=1/b', '/a;v=1/b'],
    ['/.well-known/jwks.json', '/.well-known/jwks.json'],
    ['/...', '/...'],
    ['/100%25', '/100%25'],
  ])('of %s is %s', (raw, path) => {
    expect(toCanonicalPath(raw)).toEqual({ path, ambiguity: undefined });
  });

  it.each([
    ['/a/../b'],
    ['/a/..'],
    ['/./a'],
    ['/a/%2e%2e/b'],
    ['/a/.%2E/b'],
    ['/%2e'],
    ['/a%00'],
    ['/a%0d%0ab'],
    ['/a%7f'],
    ['/a%'],
    ['/a%2'],
    ['/a%zz'],
    ['/a\\b'],
    ['/a b'],
    ['/a"b'],
    ['/\u00e9'],
    ['a'],
  ])('of %s does not exist', (raw) => {
    expect(() => toCanonicalPath(raw)).toThrow(expect.objectContaining({ status: 400, code: 'bad-path' }));
  });

  it.each([
    ['/a%2fb', '/a%2Fb', 'has an escaped slash'],
    ['/a%5Cb', '/a%5Cb', 'has an escaped backslash'],
    ['/%252e%252e/a', '/%252e%252e/a', 'is escaped twice'],
    ['/a/..;/b', '/a/..;/b', 'has a dot segment with a parameter or a space'],
    ['/a/..;x=1/b', '/a/..;x=1/b', 'has a dot segment with a parameter or a space'],
    ['/a/%2e%2e;/b', '/a/..;/b', 'has a dot segment with a parameter or a space'],
    ['/a/..%3b/b', '/a/..%3B/b', 'has a dot segment with a parameter or a space'],
    ['/a/..%20/b', '/a/..%20/b', 'has a dot segment with a parameter or a space'],
    ['/a%c0%aeb', '/a%C0%AEb', 'has an escape that is not UTF-8'],
    ['/a%ed%a0%80', '/a%ED%A0%80', 'has an escape that is not UTF-8'],
    ['/a%e9', '/a%E9', 'has an escape that is not UTF-8'],
  ])('of %s is ambiguous', (raw, path, ambiguity) => {
    expect(toCanonicalPath(raw)).toEqual({ path, ambiguity });
  });

  it('stays the same when it is taken twice, and has no dot segment however it is decoded', () => {
    const piece = fc.constantFrom(
      '/',
      '.',
      '..',
      '%2e',
      '%2F',
      '%25',
      'a',
      ';',
      '%5c',
      '%41',
      '%c3%a9',
      '%00',
      '~',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const raw = `/${pieces.join('')}`;
        try {
          const { path, ambiguity } = toCanonicalPath(raw);
          expect(toCanonicalPath(path)).toEqual({ path, ambiguity });
          if (ambiguity === undefined) {
            const decoded = decodeURIComponent(path)
              .split(/[\\/]/)
              .map((segment) => segment.split(';')[0]);
            expect(decoded).not.toContain('..');
          }
        } catch (error) {
          if (!(error instanceof Rejection)) throw error;
        }
      }),
    );
  });
});
