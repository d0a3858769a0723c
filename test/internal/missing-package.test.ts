import { expect, it } from 'vitest';
import { describeMissing } from '../../src/internal/missing-package.ts';

it.each([
  [
    'an import',
    'ERR_MODULE_NOT_FOUND',
    "Cannot find package 'yaml' imported from /srv/holdfast/dist/gateway.js",
  ],
  [
    'a require',
    'MODULE_NOT_FOUND',
    "Cannot find module 'yaml'\nRequire stack:\n- /srv/holdfast/dist/gateway.cjs",
  ],
])('describeMissing() tells what to install after %s of a package that is not there', (_, code, message) => {
  const error = Object.assign(new Error(message), { code });
  expect(describeMissing(error, 'yaml')).toMatch(/npm install yaml$/);
  expect(describeMissing(error, 'fastify')).toBeUndefined();
});

it('describeMissing() tells nothing of another error', () => {
  expect(describeMissing(new Error("Cannot find module 'yaml'"), 'yaml')).toBeUndefined();
});
