import { createRequire } from 'node:module';
import { afterEach, vi } from 'vitest';

// undici has one timer for all of its timeouts, which it sets with the first and keeps: were that a fake one, no timeout
// of undici would end in a later file of the same process.
const { setFastTimeout, clearFastTimeout } = createRequire(import.meta.url)('undici/lib/util/timers.js');
clearFastTimeout(setFastTimeout(() => {}, 2_000));

// No test leaves its fake clock to the next, which may be of another file in the same process. A spy on that
// clock goes first, or it would put the fake one back.
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});
