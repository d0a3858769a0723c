import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkSelector, keyOf, matches } from '../../src/balancing/selector.ts';
import { fakeTimeAndChance, instance } from './helpers.ts';

fakeTimeAndChance();

describe('a selector', () => {
  const second = instance('a', { metadata: { version: '2', region: 'eu' } });

  it.each([
    [{}, true],
    [{ version: '2' }, true],
    [{ version: '2', region: 'eu' }, true],
    [{ version: '1' }, false],
    [{ version: '2', region: 'us' }, false],
    [{ colour: 'red' }, false],
    [{ toString: 'red' }, false],
  ])('a selector %o matches the instance: %s', (selector, expected) => {
    expect(matches(selector as Record<string, string>, second)).toBe(expected);
  });

  it('a selector has the same key as another with the same entries in any order, and as no other', () => {
    expect(keyOf({ version: '2', region: 'eu' })).toBe(keyOf({ region: 'eu', version: '2' }));
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.string()),
        fc.dictionary(fc.string(), fc.string()),
        (one, other) => {
          const same =
            Object.keys(one).length === Object.keys(other).length &&
            Object.entries(one).every(([name, value]) => Object.hasOwn(other, name) && other[name] === value);
          expect(keyOf(one) === keyOf(other)).toBe(same);
        },
      ),
    );
  });

  it.each([[null], ['version=2'], [['2']], [{ version: 2 }], [{ version: undefined }]])(
    'a selector is not %o',
    (value) => {
      expect(() => checkSelector(value, 'select')).toThrow(/^select must be/);
    },
  );
});
