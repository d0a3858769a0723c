import { describe, expect, it } from 'vitest';
import {
  any,
  boolean,
  type Check,
  duration,
  either,
  hasMethods,
  integer,
  isFunction,
  nonEmptyString,
  number,
  oneOf,
  ratio,
  requireOption,
  validateOptions,
} from '../../src/internal/validate.ts';

function refusal(check: Check, value: unknown): Error | undefined {
  try {
    check(value, 'Thing option');
  } catch (error) {
    return error as Error;
  }
  return undefined;
}

describe('a check', () => {
  it.each<[string, Check, unknown[], unknown[]]>([
    ['number(0)', number(0), [0, 0.5, 1e300], [-0.1, Number.NaN, Infinity, '1', null, undefined, 1n]],
    ['number(1, Infinity)', number(1, Infinity), [1, Infinity], [0, -Infinity]],
    ['integer(1)', integer(1), [1, 1e9], [0, 1.5, Infinity, Number.NaN, '1']],
    ['integer(1, Infinity)', integer(1, Infinity), [1, Infinity], [0, -Infinity, 0.5]],
    ['integer(1, 5)', integer(1, 5), [1, 5], [6]],
    ['duration', duration, [0, 0.5, 2 ** 31 - 1], [-1, 2 ** 31, Infinity]],
    ['ratio', ratio, [0, 0.5, 1], [-0.01, 1.01]],
    ['func', isFunction, [() => {}, class {}], ['f', {}, null]],
    ['boolean', boolean, [true, false], ['true', 0, null]],
    ['text', nonEmptyString, ['a'], ['', 5, null, {}]],
    ['having', hasMethods('get', 'set'), [new Map()], [new Set(), {}, null, undefined, 'x']],
    ['oneOf', oneOf('a', 'b'), ['a', 'b'], ['c', '', null]],
    ['either', either('a number or a function', number(0), isFunction), [5, () => {}], [-1, 'x', null]],
    ['anything', any, [0, null, undefined, 'x'], []],
  ])(
    'the check %s passes what it should, and rejects the rest by the name of the option',
    (_name, check, good, bad) => {
      for (const value of good) expect(refusal(check, value)).toBeUndefined();
      for (const value of bad) {
        const error = refusal(check, value);
        const numeric = refusal(check, 1) === undefined;
        expect(error).toBeInstanceOf(numeric && typeof value === 'number' ? RangeError : TypeError);
        expect(error!.message).toMatch(/^Thing option must be .+; got .+$/);
      }
    },
  );

  it('a check of an option says what it expects and what it got', () => {
    expect(refusal(ratio, 2)!.message).toBe('Thing option must be a number from 0 to 1; got 2');
    expect(refusal(integer(1), '3')!.message).toBe(
      "Thing option must be a whole number of at least 1; got '3'",
    );
    expect(refusal(oneOf('a', 'b'), {})!.message).toBe("Thing option must be 'a' or 'b'; got an object");
    expect(refusal(hasMethods('get'), null)!.message).toBe(
      'Thing option must be an object with get(); got null',
    );
  });

  it('a choice of checks looks into a value only to say what is wrong with it', () => {
    const check = either('a number, a function or a Map', number(0), isFunction, hasMethods('get'));
    let looks = 0;
    const value = Object.defineProperty({ get() {} }, 'constructor', { get: () => ++looks });
    expect(refusal(check, value)).toBeUndefined();
    expect(looks).toBe(0);
    expect(refusal(isFunction, value)).toBeInstanceOf(TypeError);
    expect(looks).toBe(1);
  });

  it('a choice counts a check of its own that throws', () => {
    const even: Check = (value) => {
      if (typeof value !== 'number') throw new TypeError();
      if (value % 2 !== 0) throw new RangeError();
    };
    const check = either('an even number or a function', even, isFunction);
    expect([refusal(check, 2), refusal(check, isFunction)]).toEqual([undefined, undefined]);
    expect(refusal(check, 3)).toEqual(
      new RangeError('Thing option must be an even number or a function; got 3'),
    );
    expect(refusal(check, '3')).toBeInstanceOf(TypeError);
  });

  it('a check rejects even a value that cannot be shown', () => {
    expect(refusal(isFunction, Object.create(null))).toBeInstanceOf(TypeError);
    expect(refusal(isFunction, Symbol('odd'))).toBeInstanceOf(TypeError);
  });
});

describe('the options of a thing', () => {
  const table = { size: integer(1), name: nonEmptyString };

  it('options may be left out or be undefined', () => {
    expect(() => validateOptions('Thing', {}, table)).not.toThrow();
    expect(() => validateOptions('Thing', { size: undefined, name: 'a' }, table)).not.toThrow();
  });

  it('a wrong option is named with its owner', () => {
    expect(() => validateOptions('Thing', { size: 0 }, table)).toThrow(
      "Thing option 'size' must be a whole number",
    );
  });

  it.each(['sise', 'toString', '__proto__', 'constructor'])(
    "an option called '%s' is unknown, and the known ones are listed",
    (name) => {
      const options = JSON.parse(`{ "${name}": 1 }`) as object;
      expect(() => validateOptions('Thing', options, table)).toThrow(
        new TypeError(`Thing has no option '${name}'; its options are size, name`),
      );
    },
  );

  it('an option given under its former name is rejected with the new name', () => {
    expect(() => validateOptions('Thing', { length: 1 }, table, { length: 'size' })).toThrow(
      new TypeError("Thing option 'length' was renamed to 'size'"),
    );
  });

  it('a value given under its former name is rejected with the new name', () => {
    const check = (size: unknown) => () =>
      validateOptions('Thing', { size }, { size: oneOf('small', 'large') }, { size: { big: 'large' } });
    expect(check('big')).toThrow(new TypeError("Thing option 'size': 'big' was renamed to 'large'"));
    expect(check('large')).not.toThrow();
    expect(check('huge')).toThrow(/must be 'small' or 'large'/);
    expect(check('toString')).toThrow(/must be 'small' or 'large'/);
    expect(check(undefined)).not.toThrow();
  });

  it.each([null, undefined, 5, 'x', [], () => {}])('options must be an object: %o is none', (options) => {
    expect(() => validateOptions('Thing', options as never, table)).toThrow('Thing takes an options object');
  });

  it('a required option must be there', () => {
    expect(() => requireOption('Thing', { size: 0 }, 'size')).not.toThrow();
    expect(() => requireOption('Thing', { size: undefined }, 'size')).toThrow(
      new TypeError("Thing needs the option 'size'"),
    );
  });
});
