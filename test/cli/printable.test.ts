import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { clip, printable, printableJson, span } from '../../src/cli/printable.ts';

const UNSAFE = /\p{C}|\p{M}|\p{Zl}|\p{Zp}/u;
const anyText = fc.string({
  unit: fc.oneof(fc.constantFrom('\x1b', '\x9b', '\r', '\u202e', '\ud800'), fc.string()),
});

describe('text of strangers', () => {
  it('text of strangers is shown as it is where every character is a visible one', () => {
    expect(printable('v1.4.2-β (größer) 東京 ✓')).toBe('v1.4.2-β (größer) 東京 ✓');
  });

  it.each([
    ['\x1b[2J', '\\u{1b}[2J'],
    ['\x9b31m', '\\u{9b}31m'],
    ['a\r\nb\tc', 'a\\u{d}\\u{a}b\\u{9}c'],
    ['abc\u202ecba', 'abc\\u{202e}cba'],
    ['e\u0301', 'e\\u{301}'],
    ['\ud800', '\\u{d800}'],
    ['\u{e0041}', '\\u{e0041}'],
  ])('text of strangers cannot speak to the terminal by %j', (text, shown) => {
    expect(printable(text)).toBe(shown);
  });

  it('text of strangers never speaks to the terminal, whatever it is', () => {
    fc.assert(fc.property(anyText, (text) => !UNSAFE.test(printable(text))));
  });

  it('text of strangers never speaks to the terminal as JSON, and stays what it was', () => {
    fc.assert(
      fc.property(fc.dictionary(anyText, anyText), fc.constantFrom(undefined, 2), (value, indent) => {
        const json = printableJson(value, indent);
        expect(json.replaceAll('\n', '')).not.toMatch(UNSAFE);
        expect(JSON.stringify(JSON.parse(json))).toBe(JSON.stringify(value));
      }),
    );
  });

  it('text of strangers is cut to a length in whole characters', () => {
    expect(clip('abc', 3)).toBe('abc');
    expect(clip('abcd', 3)).toBe('ab…');
    expect(clip('😀😀😀', 2)).toBe('😀…');
    expect(clip('abc', 0)).toBe('…');
  });
});

describe('a time span', () => {
  it.each([
    [-5, '0.0 s'],
    [3_210, '3.2 s'],
    [9_940, '9.9 s'],
    [9_990, '10 s'],
    [89_700, '90 s'],
    [180_000, '3 min'],
    [4 * 3_600_000, '4 h'],
    [3 * 86_400_000, '3 d'],
  ])('a time span of %d ms is %s', (milliseconds, text) => {
    expect(span(milliseconds)).toBe(text);
  });
});
