import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type LimitSample, SampleWindow } from '../../src/policies/concurrency-limit.ts';

/** Calls that end at the given moments. */
function addAll(window: SampleWindow, moments: readonly number[], rtt = 10): (LimitSample | undefined)[] {
  return moments.map((now) => window.add(rtt, 1, false, now));
}

const firstNine = Array.from({ length: 9 }, (_, index) => index);

describe('a window of samples', () => {
  it('a window of samples tells the mean latency, the most calls at once, and how many were dropped', () => {
    const window = new SampleWindow(100);
    for (let call = 1; call <= 9; call++) {
      expect(window.add(call, call === 5 ? 30 : 10, false, call)).toBeUndefined();
    }
    expect(window.add(10, 10, false, 101)).toMatchObject({ rtt: 5.5, inFlight: 30, calls: 10, dropped: 0 });
  });

  it('a window of samples leaves the time of dropped calls out of the mean', () => {
    const window = new SampleWindow(100);
    addAll(window, firstNine);
    expect(window.add(1, 1, true, 100)).toMatchObject({ rtt: 10, inFlight: 1, calls: 10, dropped: 1 });
  });

  it('a window of samples has no latency to tell if all were dropped', () => {
    const window = new SampleWindow(100);
    for (const now of firstNine) expect(window.add(5_000, 1, true, now)).toBeUndefined();
    expect(window.add(5_000, 1, true, 100)).toMatchObject({
      rtt: undefined,
      inFlight: 1,
      calls: 10,
      dropped: 10,
    });
  });

  it('a window of samples does not end before its time, however many calls there are', () => {
    const window = new SampleWindow(100);
    const samples = addAll(
      window,
      Array.from({ length: 1000 }, (_, index) => index / 11),
    );
    expect(samples.every((sample) => sample === undefined)).toBe(true);
  });

  it('a window of samples does not end before it holds ten calls, however long it takes, and forgets none', () => {
    const window = new SampleWindow(100);
    const samples = addAll(
      window,
      Array.from({ length: 10 }, (_, index) => index * 1_000),
    );
    expect(samples.slice(0, 9).every((sample) => sample === undefined)).toBe(true);
    expect(samples[9]).toMatchObject({ calls: 10 });
  });

  it('a window of samples lasts at least twice as long as its calls took', () => {
    const window = new SampleWindow(100);
    addAll(window, firstNine, 200);
    expect(window.add(200, 1, false, 399)).toBeUndefined();
    expect(window.add(200, 1, false, 400)).toMatchObject({ rtt: 200, calls: 11 });
  });

  it('a window of samples begins anew after it ended, with the next call', () => {
    const window = new SampleWindow(100);
    addAll(window, [...firstNine, 100]);
    const later = addAll(
      window,
      firstNine.map((moment) => 5_000 + moment),
    );
    expect(later.every((sample) => sample === undefined)).toBe(true);
    expect(window.add(40, 7, false, 5_099)).toBeUndefined();
    expect(window.add(50, 2, true, 5_100)).toMatchObject({ rtt: 13, inFlight: 7, calls: 11, dropped: 1 });
  });

  it('a window of samples never ends while the clock stands still', () => {
    const samples = addAll(
      new SampleWindow(100),
      Array.from({ length: 100 }, () => 5),
    );
    expect(samples.every((sample) => sample === undefined)).toBe(true);
  });

  it('a window of samples tells how long it lasted and how many calls came meanwhile, since the first began or the window before ended', () => {
    const window = new SampleWindow(100);
    for (let call = 0; call < 30; call++) window.arrive();
    addAll(window, firstNine, 20);
    expect(window.add(20, 1, false, 130)).toMatchObject({ elapsed: 130, demand: 30 / 150 });
    for (let call = 0; call < 50; call++) window.arrive();
    addAll(
      window,
      firstNine.map((moment) => 180 + moment),
    );
    expect(window.add(10, 1, false, 330)).toMatchObject({ elapsed: 150, demand: 50 / 200 });
  });

  it('a window of samples ends with its ten calls at first while the limit grows, and then as soon as it has lasted as long as they took', () => {
    const window = new SampleWindow(100);
    const add = (now: number) => window.add(50, 1, false, now, true);
    window.begin(0);
    for (const now of firstNine) expect(add(now)).toBeUndefined();
    expect(add(9)).toMatchObject({ calls: 10, elapsed: 9 });
    for (const now of firstNine) expect(add(100 + now)).toBeUndefined();
    expect(add(149)).toBeUndefined();
    expect(add(150)).toMatchObject({ calls: 11, elapsed: 50 });
  });

  it('a window of samples tells how long the calls that began first took, not the ones that ended first', () => {
    const window = new SampleWindow(100);
    for (let call = 0; call < 24; call++) window.begin(call);
    // Twenty later calls are quick, and end before.
    for (let call = 0; call < 20; call++) window.begin(30);
    for (let call = 0; call < 20; call++) window.add(5, 1, false, 35, true);
    expect(window.add(5, 1, false, 35, true)).toBeUndefined();
    let sample: LimitSample | undefined;
    for (let call = 0; call < 24; call++) sample = window.add(200, 1, false, 200 + call, true) ?? sample;
    expect(sample?.firstRtt).toBeUndefined();
    expect(window.add(5, 1, false, 500, true)).toMatchObject({ firstRtt: 200 });
  });

  it('a window of samples counts a first call that hangs with the time that it has taken by then', () => {
    const window = new SampleWindow(100);
    for (let call = 0; call < 24; call++) window.begin(0);
    for (let call = 0; call < 17; call++) window.add(100, 1, false, 100);
    expect(window.add(400, 1, false, 400)?.firstRtt).toBeCloseTo((17 * 100 + 7 * 400) / 18, 1);
  });

  it('a window of samples counts every call once, whatever happens', () => {
    const call = fc.record({
      after: fc.nat(50),
      rtt: fc.nat(300),
      inFlight: fc.nat(50),
      dropped: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 200, size: 'max' }), (calls) => {
        const window = new SampleWindow(100);
        let now = 0;
        let open: typeof calls = [];
        for (const next of calls) {
          now += next.after;
          open.push(next);
          const sample = window.add(next.rtt, next.inFlight, next.dropped, now);
          if (sample === undefined) continue;
          const answered = open.filter(({ dropped }) => !dropped).map(({ rtt }) => rtt);
          expect(sample).toMatchObject({
            rtt: answered.length === 0 ? undefined : answered.reduce((a, b) => a + b) / answered.length,
            inFlight: Math.max(...open.map(({ inFlight }) => inFlight)),
            calls: open.length,
            dropped: open.length - answered.length,
          });
          open = [];
        }
      }),
      { numRuns: 100 },
    );
  });
});
