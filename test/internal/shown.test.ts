import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { connectionOptions } from '../../src/client/connections.ts';
import { shown } from '../../src/internal/shown.ts';

describe('shown()', () => {
  it.each([
    ['users', "'users'"],
    ['Grüße, 世界 🙂', "'Grüße, 世界 🙂'"],
    ["it's \\", String.raw`'it\'s \\'`],
    ['a\r\nb\tc', String.raw`'a\r\nb\tc'`],
    ['\u001b[31m\u0085\u202e\u2028\ud800', String.raw`'\u{1b}[31m\u{85}\u{202e}\u{2028}\u{d800}'`],
    ['a'.repeat(201), `'${'a'.repeat(200)}…'`],
    [12n, '12n'],
    [null, 'null'],
    [new Map(), 'a Map'],
  ])('shows %o as %s', (value, expected) => {
    expect(shown(value)).toBe(expected);
  });

  it('shows any text on one line, without control characters, and no two texts alike', () => {
    const text = fc
      .array(fc.nat(0x10ffff), { maxLength: 60 })
      .map((points) => String.fromCodePoint(...points));
    const property = fc.property(text, text, (one, other) => {
      expect(shown(one)).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
      expect(shown(one) === shown(other)).toBe(one === other);
    });
    fc.assert(property, { numRuns: 200 });
  });
});

it('the host of a connection is shown without the line breaks that it must not have', () => {
  const check = () => connectionOptions({ host: 'shop.example\r\nx-admin: 1' }, "option 'connection'");
  expect(check).toThrow(/'host', must be a host, .*; got 'shop\.example\\r\\nx-admin: 1'$/);
});
