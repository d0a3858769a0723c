import { expect, it } from 'vitest';
import { nodeGuard } from '../../../src/middleware/server/node-http.ts';

it.each([undefined, null, {}, 'x'])(
  'a nodeGuard is not made without a function that handles requests: %o is none',
  (handler) => {
    expect(() => nodeGuard({}, handler as never)).toThrow(TypeError);
    expect(() => nodeGuard({}, handler as never)).toThrow(/^the handler of nodeGuard\(\) must be a function/);
  },
);
