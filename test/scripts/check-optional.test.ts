import { expect, it } from 'vitest';
import { checkOptional, writeOptional } from '../../scripts/check-optional.ts';

const source = `interface Options {
  a?: number;
  b?: (value: string) => boolean;
  c?: { d?: string };
  e?: number | undefined;
  f?: unknown;
  g: string;
}
`;

it('checkOptional() finds each optional field without undefined', () => {
  expect(checkOptional(source).map(({ line, type }) => [line, type])).toEqual([
    [2, 'number | undefined'],
    [3, '((value: string) => boolean) | undefined'],
    [4, '{ d?: string } | undefined'],
    [4, 'string | undefined'],
  ]);
});

it('writeOptional() adds undefined to each of them, and nothing else', () => {
  expect(writeOptional(source)).toBe(`interface Options {
  a?: number | undefined;
  b?: ((value: string) => boolean) | undefined;
  c?: { d?: string | undefined } | undefined;
  e?: number | undefined;
  f?: unknown;
  g: string;
}
`);
});
