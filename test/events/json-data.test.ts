import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyJson, isTooDeep } from '../../src/events/json-data.ts';

/** An object in an object, so many levels in all. */
function nest(levels: number): object {
  let value: object = {};
  for (let level = 1; level < levels; level++) value = level % 2 === 0 ? { value } : [value];
  return value;
}

class Money {
  readonly amount = 5;
}

describe('the copy of data', () => {
  it('the copy of data is the data as JSON keeps them, whatever they are', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const copy = copyJson(value, 'data');
        expect(JSON.stringify(copy)).toBe(JSON.stringify(value));
        expect(copy).toEqual(value);
      }),
    );
  });

  it('fields that are undefined are left out', () => {
    expect(copyJson({ a: undefined, b: [{ c: undefined }] }, 'data')).toStrictEqual({ b: [{}] });
  });

  it('a field named __proto__ stays a field', () => {
    const copy = copyJson(JSON.parse('{"__proto__":{"admin":true}}'), 'data');
    expect(Object.keys(copy as object)).toEqual(['__proto__']);
    expect((copy as { admin?: boolean }).admin).toBeUndefined();
  });

  it('no later change of the original changes the copy', () => {
    const data = { items: [{ n: 1 }] };
    const copy = copyJson(data, 'data');
    data.items[0]!.n = 2;
    data.items.push({ n: 3 });
    expect(copy).toEqual({ items: [{ n: 1 }] });
  });

  it.each<[string, unknown, string]>([
    ['undefined in a list', { a: [1, undefined] }, 'data.a[1] is undefined'],
    ['a hole in a list', new Array(1), 'data[0] is undefined'],
    ['a function', { a: { b: () => 1 } }, 'data.a.b is a function'],
    ['a method toJSON', { toJSON: () => 1 }, 'data.toJSON is a function'],
    ['a symbol', [Symbol('s')], "data[0] is Symbol('s')"],
    ['a bigint', { n: 5n }, 'data.n is 5n'],
    ['NaN', { n: Number.NaN }, 'data.n is NaN'],
    ['Infinity', { n: Infinity }, 'data.n is Infinity'],
    ['a Date', { at: new Date(0) }, 'data.at is a Date'],
    ['a Map', { map: new Map() }, 'data.map is a Map'],
    ['a typed array', { bytes: new Uint8Array(1) }, 'data.bytes is an Uint8Array'],
    ['an instance of a class', { price: new Money() }, 'data.price is a Money'],
    ['a promise', { later: Promise.resolve(1) }, 'data.later is a Promise'],
  ])('data with %s are rejected with the path to it', (_, data, message) => {
    expect(() => copyJson(data, 'data')).toThrow(TypeError);
    expect(() => copyJson(data, 'data')).toThrow(message);
  });

  it('data within themselves are rejected with a short message', () => {
    const data: Record<string, unknown> = {};
    data.self = data;
    data.list = [data];
    expect(() => copyJson(data, 'data')).toThrow(/^data\.self\.self.{0,150} within itself$/);
  });

  it('data may have 64 levels, where they are written and where they are read', () => {
    expect(isTooDeep(copyJson(nest(64), 'data'))).toBe(false);
    expect(() => copyJson(nest(65), 'data')).toThrow('64 objects');
    expect(isTooDeep(nest(65))).toBe(true);
  });
});
