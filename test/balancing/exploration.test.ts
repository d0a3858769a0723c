import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { Exploration } from '../../src/balancing/exploration.ts';

let exploration: Exploration;
beforeEach(() => {
  exploration = new Exploration();
  exploration.recordSuccess(100, 10, 0, false);
});

const confirm = (times = 1) => {
  for (let time = 0; time < times; time++) expect(exploration.recordSuccess(100, 10, 0, true)).toBe(false);
};

/** The time from which on an instance that is expected to take so long is explored. */
function waitFor(expected: number): number {
  let wait = 0;
  while (!exploration.isDue(wait, expected)) wait++;
  return wait;
}

describe('the time after which an instance is explored', () => {
  it('the time after which an instance is explored is twice its expected latency, 20 ms at least and 5 s at most', () => {
    expect([0, 4, 10, 11, 500, 2_500, 60_000].map(waitFor)).toEqual([20, 20, 20, 22, 1_000, 5_000, 5_000]);
  });

  it('the time after which an instance is explored doubles with each exploring call that confirms that it is slow, up to a minute', () => {
    const waits = Array.from({ length: 9 }, () => {
      const wait = waitFor(500);
      confirm();
      return wait;
    });
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  });

  it('the time after which an instance is explored is as at first once a call refutes that it is slow, or after a reset', () => {
    confirm(5);
    expect(exploration.recordSuccess(20, 10, 0, true)).toBe(true);
    expect(waitFor(500)).toBe(1_000);
    confirm(5);
    exploration.reset();
    expect(waitFor(500)).toBe(1_000);
  });

  it('the time after which an instance is explored begins with each call that is slow, fails, is cancelled or explores, and with no other', () => {
    for (let now = 0; now < 900; now += 10) exploration.recordSuccess(20, 10, now, false);
    expect(waitFor(500)).toBe(1_000);
    exploration.recordSuccess(20.1, 10, 100, false);
    expect(waitFor(500)).toBe(1_100);
    exploration.recordFailure(200);
    expect(waitFor(500)).toBe(1_200);
    exploration.recordSuccess(10, 10, 300, true);
    expect(waitFor(500)).toBe(1_300);
  });

  it('the time after which an instance is explored is a second after a failure, and half a second more for a call that cannot be repeated', () => {
    exploration.recordFailure(500);
    expect([1_499, 1_500].map((now) => exploration.isDueAfterFailure(now, true))).toEqual([false, true]);
    expect([1_999, 2_000].map((now) => exploration.isDueAfterFailure(now, false))).toEqual([false, true]);
  });
});

describe('the calls that an instance must have missed to be explored', () => {
  it('an instance must have missed five calls of its fair share to be explored, doubled with each confirmation, 256 times as many at most', () => {
    const missed = Array.from({ length: 11 }, () => {
      let calls = 0;
      while (!exploration.isPassedOver(calls)) calls++;
      confirm();
      return calls;
    });
    expect(missed).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 1_280, 1_280, 1_280]);
  });
});

describe('an exploring call', () => {
  it('an exploring call refutes that an instance is slow with up to twice the mean latency', () => {
    expect(
      [0, 10, 20, 20.1, 1_000].map((latency) => exploration.recordSuccess(latency, 10, 0, true)),
    ).toEqual([true, true, true, false, false]);
  });
});

it('an instance that stays slow costs fewer than one call in a thousand in the long run', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 20 }),
      fc.integer({ min: 1, max: 1_000 }),
      (fleetSize, perSecond) => {
        const slow = new Exploration();
        const minutes = 30;
        const gap = 1_000 / perSecond;
        let explorations = 0;
        let last = 0;
        // From one exploring call to the next, by the later of the two conditions.
        for (let now = 0; now < minutes * 60_000; ) {
          let picks = 1;
          while (!slow.isPassedOver(picks / fleetSize)) picks *= 2;
          now = Math.max(now + picks * gap, last);
          while (!slow.isDue(now, 200)) now += 500;
          slow.recordSuccess(200, 10, now, true);
          last = now;
          explorations++;
        }
        const calls = minutes * 60 * perSecond;
        expect(explorations).toBeLessThanOrEqual(Math.max(12, calls / 1_000));
      },
    ),
  );
});
