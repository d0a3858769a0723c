import { expect, it } from 'vitest';
import { withDefaults } from '../../src/internal/with-defaults.ts';

it('withDefaults() takes the default of what is undefined or left out, and nothing else', () => {
  interface Options {
    a?: number | undefined;
    b?: number | null | undefined;
    c?: boolean | undefined;
    d?: string | undefined;
  }
  const given: Options = { a: undefined, b: null, c: false, d: undefined };
  const options = withDefaults({ a: 1, b: 2, c: true }, given);
  expect(options).toEqual({ a: 1, b: null, c: false, d: undefined });
  expect(Object.keys(options)).toContain('d');
  expect(withDefaults({ a: 1, b: undefined }, {} as Options)).toEqual({ a: 1, b: undefined });
  expect(given).toEqual({ a: undefined, b: null, c: false, d: undefined });
});
