import { expect, it } from 'vitest';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';

it.each([undefined, null, {}, 'x'])('nodeGuard rejects a handler that is not a function: %o', (handler) => {
  expect(() => nodeGuard({}, handler as never)).toThrow(TypeError);
  expect(() => nodeGuard({}, handler as never)).toThrow(/^the handler of nodeGuard\(\) must be a function/);
});
