import { describe, expect, it } from 'vitest';
import { checkCasts } from '../../scripts/check-casts.ts';

describe('the check of casts', () => {
  it.each([
    'const a = b as unknown as string;',
    "const a = 'http://b' as unknown as string;",
    '// A reason of another line.\n\nconst a = b as unknown as string;',
    'class A {\n  // A reason of the class.\n  x = 1;\n  #a = this.x as unknown as string;\n}',
  ])('finds no reason in %s', (source) => {
    expect(checkCasts('src/a.ts', source)).toEqual([
      expect.stringMatching(/^src\/a\.ts:\d: 'as unknown as' has no comment/),
    ]);
  });

  it.each([
    '// undici gives the socket, though its types do not say so.\nconst a = b as unknown as string;',
    'const a = b as unknown as string; // The types of Node lack it.',
    '/** Its types lack it. */\nexport const a = b as unknown as string;',
    'f({\n  // The types lack it.\n  a: b as unknown as string,\n});',
    'const a = b as string; const c = d as unknown;',
  ])('is content with %s', (source) => {
    expect(checkCasts('src/a.ts', source)).toEqual([]);
  });
});
