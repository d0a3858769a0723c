import { it } from 'vitest';
import { expectNothingLeftBy } from '../../support/leaks.ts';

// A small form of it is among the tests: test/integration/leaks.test.ts.

it('100,000 calls leave heap, handles, listeners and timers where they began', async () => {
  await expectNothingLeftBy(100_000);
});
