import { afterEach, vi } from 'vitest';

// No test leaves its fake clock to the next, which may be of another file in the same process. A spy on that
// clock goes first, or it would put the fake one back.
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});
