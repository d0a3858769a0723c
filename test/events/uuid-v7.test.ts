import { describe, expect, it, vi } from 'vitest';
import { uuidV7 } from '../../src/events/uuid-v7.ts';

describe('a UUID of version 7', () => {
  it('a UUID of version 7 has the form that RFC 9562 gives', () => {
    expect(uuidV7()).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
  });

  it('a UUID of version 7 begins with the time in milliseconds', () => {
    vi.useFakeTimers({ now: 4_000_000_000_000, toFake: ['Date'] });
    try {
      expect(Number.parseInt(uuidV7().replace('-', '').slice(0, 12), 16)).toBe(4_000_000_000_000);
    } finally {
      vi.useRealTimers();
    }
  });

  it('a UUID of version 7 sorts by its creation, thousands in a millisecond and while the clock is set back', () => {
    vi.useFakeTimers({ now: 4_000_000_100_000, toFake: ['Date'] });
    try {
      const ids = Array.from({ length: 10_000 }, uuidV7);
      vi.setSystemTime(4_000_000_000_000);
      ids.push(...Array.from({ length: 100 }, uuidV7));
      expect(ids).toEqual(ids.toSorted());
      expect(new Set(ids).size).toBe(ids.length);
    } finally {
      vi.useRealTimers();
    }
  });
});
