import { it } from 'vitest';
import {
  expectCutOffOnesKept,
  expectKeptWithout,
  expectSilentOnesKept,
  KEYS,
} from '../support/registry-troubles.ts';

// A small form of `npm run trials -- registry-trouble`, all at once since most of the time they wait.

it('a Redis that is full, cuts the instances off or evicts all keys costs no client an instance', async () => {
  await Promise.all([
    expectSilentOnesKept(),
    expectCutOffOnesKept(1),
    expectKeptWithout(...KEYS, 'holdfast:services'),
  ]);
});
