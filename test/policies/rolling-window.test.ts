import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CountWindow, TimeWindow } from '../../src/policies/rolling-window.ts';
import { fakeTime } from './helpers.ts';

beforeEach(fakeTime);

interface Mark {
  failed: boolean;
  slow: boolean;
}

const mark = fc.record({ failed: fc.boolean(), slow: fc.boolean() });

function countsOf(marks: Mark[]) {
  return {
    calls: marks.length,
    failures: marks.filter(({ failed }) => failed).length,
    slow: marks.filter(({ slow }) => slow).length,
  };
}

it('a window of n calls remembers exactly the last n', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 12 }), fc.array(mark, { maxLength: 50 }), (size, marks) => {
      const window = new CountWindow(size);
      marks.forEach(({ failed, slow }, index) => {
        window.record(failed, slow);
        expect(window).toMatchObject(countsOf(marks.slice(Math.max(0, index + 1 - size), index + 1)));
      });
    }),
  );
});

describe('a window of n calls', () => {
  it('takes over of what was saved the calls that it would remember', () => {
    const counts = fc
      .tuple(
        fc.nat({ max: 30 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
      )
      .map(([calls, failed, slow]) => ({
        calls,
        failures: Math.floor(failed * calls),
        slow: Math.floor(slow * calls),
      }));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.array(counts, { maxLength: 5 }), (size, saved) => {
        // One that forgets none of them shows in which order they were taken over.
        const order: Mark[] = [];
        const recorder = new CountWindow(200);
        recorder.record = (failed, slow) => void order.push({ failed, slow });
        recorder.restore(saved);
        const window = new CountWindow(size);
        window.restore(saved);
        expect(window).toMatchObject(countsOf(order.slice(-size)));
      }),
    );
  });

  it('replays no more calls than it holds, however many were saved', () => {
    const window = new CountWindow(100);
    const record = vi.spyOn(window, 'record');
    window.restore(Array.from({ length: 201 }, () => ({ calls: 1_000_000, failures: 500_000, slow: 0 })));
    expect(record).toHaveBeenCalledTimes(100);
    expect(window).toMatchObject({ calls: 100, failures: 50, slow: 0 });
  });
});

describe('a window of time', () => {
  it('a window of time remembers all of the last nine tenths of it and nothing older than the whole', () => {
    const timed = fc.tuple(mark, fc.integer({ min: 0, max: 1_500 }));
    fc.assert(
      fc.property(
        fc.constantFrom(10, 100, 1_000, 3_333),
        fc.array(timed, { maxLength: 60 }),
        (duration, calls) => {
          const window = new TimeWindow(duration);
          const recorded: (Mark & { at: number })[] = [];
          for (const [{ failed, slow }, wait] of calls) {
            vi.advanceTimersByTime(wait);
            const now = performance.now();
            recorded.push({ failed, slow, at: now });
            window.record(failed, slow);
            const least = countsOf(recorded.filter(({ at }) => now - at <= 0.9 * duration - 1e-6));
            const most = countsOf(recorded.filter(({ at }) => now - at < duration + 1e-6));
            for (const what of ['calls', 'failures', 'slow'] as const) {
              expect(window[what]).toBeGreaterThanOrEqual(least[what]);
              expect(window[what]).toBeLessThanOrEqual(most[what]);
            }
          }
        },
      ),
    );
  });

  it('a window of time is empty but for the newest call after a long silence', () => {
    const window = new TimeWindow(1_000);
    for (let i = 0; i < 100; i++) {
      window.record(true, true);
      vi.advanceTimersByTime(7);
    }
    vi.advanceTimersByTime(86_400_000);
    window.record(false, false);
    expect(window).toMatchObject({ calls: 1, failures: 0, slow: 0 });
  });

  it('a window of time forgets without a new call when asked to', () => {
    const window = new TimeWindow(1_000);
    window.record(true, true);
    vi.advanceTimersByTime(899);
    window.forget();
    expect(window).toMatchObject({ calls: 1, failures: 1, slow: 1 });
    vi.advanceTimersByTime(101);
    window.forget();
    expect(window).toMatchObject({ calls: 0, failures: 0, slow: 0 });
  });

  it('a window of time takes no longer to forget the longer the silence was', () => {
    const window = new TimeWindow(10);
    window.record(true, true);
    vi.advanceTimersByTime(60 * 86_400_000);
    window.record(false, false);
    expect(window).toMatchObject({ calls: 1, failures: 0, slow: 0 });
  });
});

describe('a window that follows the rate', () => {
  it('a window that follows the rate holds a number of the last calls where the last ten seconds hold fewer', () => {
    const timed = fc.tuple(mark, fc.integer({ min: 0, max: 12_000 }));
    fc.assert(
      fc.property(
        fc.constantFrom(1, 3, 20),
        fc.array(timed, { maxLength: 80, size: 'max' }),
        (atLeast, calls) => {
          const window = new TimeWindow(10_000, atLeast);
          const recorded: (Mark & { at: number })[] = [];
          for (const [{ failed, slow }, wait] of calls) {
            vi.advanceTimersByTime(wait);
            const now = performance.now();
            recorded.push({ failed, slow, at: now });
            window.record(failed, slow);
            const lately = recorded.filter(({ at }) => now - at <= 9_000 - 1e-6).length;
            const newest = Math.max(lately, Math.min(atLeast, recorded.length));
            const least = countsOf(recorded.slice(recorded.length - newest));
            // Calls that ended within one second of each other leave together.
            const since = recorded[recorded.length - newest]!.at - 1_000;
            const most = countsOf(recorded.filter(({ at }) => now - at < 10_000 || at > since));
            for (const what of ['calls', 'failures', 'slow'] as const) {
              expect(window[what]).toBeGreaterThanOrEqual(least[what]);
              expect(window[what]).toBeLessThanOrEqual(most[what]);
            }
          }
        },
      ),
    );
  });

  it('a window that follows the rate forgets calls that are older than five minutes however few it holds', () => {
    const window = new TimeWindow(10_000, 20);
    window.record(true, false);
    vi.advanceTimersByTime(200_000);
    window.record(false, true);
    vi.advanceTimersByTime(99_000);
    window.forget();
    expect(window).toMatchObject({ calls: 2, failures: 1, slow: 1 });
    vi.advanceTimersByTime(2_000);
    window.forget();
    expect(window).toMatchObject({ calls: 1, failures: 0, slow: 1 });
  });

  it('a window that follows the rate continues in another process where it was saved, in any order of the counts', () => {
    const window = new TimeWindow(10_000, 20);
    for (let call = 0; call < 8; call++) {
      window.record(call % 2 === 0, false);
      vi.advanceTimersByTime(15_000);
    }
    const restored = new TimeWindow(10_000, 20);
    restored.restore(window.save().reverse());
    expect(restored).toMatchObject({ calls: 8, failures: 4, slow: 0 });
    vi.advanceTimersByTime(285_000 - 105_000 - 1_000);
    restored.forget();
    expect(restored.calls).toBeGreaterThan(6);
    vi.advanceTimersByTime(30_000);
    restored.forget();
    expect(restored.calls).toBeLessThan(7);
  });

  it('a window that follows the rate stands still while the clock goes back', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(50_000);
    const window = new TimeWindow(10_000, 2);
    window.record(true, false);
    now.mockReturnValue(20_000);
    window.record(true, false);
    window.record(false, false);
    expect(window).toMatchObject({ calls: 3, failures: 2 });
    now.mockReturnValue(70_000);
    window.forget();
    expect(window).toMatchObject({ calls: 3, failures: 2 });
    window.record(false, false);
    window.record(false, false);
    expect(window).toMatchObject({ calls: 2, failures: 0 });
    now.mockRestore();
  });
});
