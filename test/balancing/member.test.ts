import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { UsualLatency } from '../../src/balancing/latency.ts';
import { Member } from '../../src/balancing/member.ts';
import { outlierDetection } from '../../src/balancing/outlier-detection.ts';
import { fakeTimeAndChance, instance } from './helpers.ts';

fakeTimeAndChance();

const rules = outlierDetection({
  consecutiveFailures: 3,
  baseEjectionTime: 1_000,
  maxEjectionTime: 5_000,
  interval: 2_000,
});

let usual: UsualLatency;
let member: Member;
beforeEach(() => {
  usual = new UsualLatency();
  member = new Member(instance('a'), usual);
});

describe('the latency to expect of an instance', () => {
  it('is nothing for a new one, so that it is tried at once, then the usual until it has answered', () => {
    usual.observe(40);
    expect(member.latencyAt(0)).toBe(0);
    member.begin(0);
    expect(member.latencyAt(0)).toBe(40);
    member.succeed(7, 1);
    expect(member.latencyAt(1)).toBe(7);
  });

  it('is at least twice the usual after a failure, however fast, and doubles with the next', () => {
    usual.observe(40);
    const charges = Array.from({ length: 3 }, () => {
      member.fail(0, 0, false, rules);
      return member.latencyAt(0);
    });
    expect(charges).toEqual([80, 160, 320]);
  });

  it('is twice what a slow failure took', () => {
    member.fail(3_000, 0, false, rules);
    expect(member.latencyAt(0)).toBe(6_000);
  });

  it('is never charged more than a minute for failures', () => {
    for (let failure = 0; failure < 100; failure++) member.fail(50_000, 0, false, rules);
    expect(member.latencyAt(0)).toBe(60_000);
  });
});

describe('the failures that eject an instance', () => {
  it('are as many in a row as the rules say; a success begins the count anew', () => {
    const fail = () => member.fail(1, 0, false, rules);
    expect([fail(), fail()]).toEqual([false, false]);
    member.succeed(1, 0);
    expect([fail(), fail(), fail()]).toEqual([false, false, true]);
  });

  it('are one if it is the probe', () => {
    member.eject(0, rules);
    expect(member.fail(1, 0, false, rules)).toBe(false);
    expect(member.fail(1, 0, true, rules)).toBe(true);
  });

  it('count from nothing after an ejection', () => {
    for (let failure = 0; failure < 3; failure++) member.fail(1, 0, false, rules);
    member.eject(0, rules);
    member.succeed(1, 0);
    expect(member.fail(1, 0, false, rules)).toBe(false);
  });
});

describe('an ejected instance', () => {
  it('may get calls again exactly when its time is over', () => {
    const time = member.eject(500, rules);
    expect(member.availableAt(500 + time - 0.01)).toBe(false);
    expect(member.availableAt(500 + time)).toBe(true);
  });

  it('takes one probe at a time', () => {
    const over = member.eject(0, rules);
    expect(member.begin(over)).toBe(true);
    expect(member.availableAt(over)).toBe(false);
    expect(member.begin(over)).toBe(false);
    member.end(false, over);
    expect(member.availableAt(over)).toBe(false);
    member.end(true, over);
    expect(member.availableAt(over)).toBe(true);
  });

  it('takes no third probe when the first ends, for which it waited in vain before it took the second', () => {
    const time = member.eject(0, rules);
    member.begin(time);
    expect(member.begin(2 * time)).toBe(true);
    member.end(true, time);
    expect(member.availableAt(2 * time)).toBe(false);
    member.end(true, 2 * time);
    expect(member.availableAt(2 * time)).toBe(true);
  });

  it('takes a call before its time is over, as in a panic, as no probe', () => {
    const time = member.eject(0, rules);
    expect(member.begin(time / 2)).toBe(false);
  });

  it('is well again with one success', () => {
    member.eject(0, rules);
    expect(member.succeed(1, 1)).toBe(true);
    expect(member.ejected).toBe(false);
    expect(member.availableAt(1)).toBe(true);
    expect(member.succeed(1, 1)).toBe(false);
  });

  it('counts differently from each ejection and each return on', () => {
    const eras = [member.era];
    member.eject(0, rules);
    eras.push(member.era);
    member.eject(0, rules);
    eras.push(member.era);
    member.succeed(1, 0);
    eras.push(member.era);
    member.succeed(1, 0);
    expect(new Set(eras).size).toBe(4);
    expect(member.era).toBe(eras[3]);
  });
});

describe('the time of an ejection', () => {
  it('lies within a tenth above its due, whatever chance says, so that clients do not come back in step', () => {
    const times = Array.from({ length: 200 }, () => new Member(instance('a'), usual).eject(0, rules));
    expect(Math.min(...times)).toBeGreaterThanOrEqual(1_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(1_100);
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(80);
  });

  it('grows by one base with each ejection in a row, up to the maximum', () => {
    Math.random = () => 0;
    let now = 0;
    const times = Array.from({ length: 7 }, () => {
      const time = member.eject(now, rules);
      now += time;
      return time;
    });
    expect(times).toEqual([1_000, 2_000, 3_000, 4_000, 5_000, 5_000, 5_000]);
    expect(member.ejections).toBe(7);
  });

  it('is never longer than the maximum, whatever chance says', () => {
    Math.random = () => 0.999;
    const short = { ...rules, maxEjectionTime: 1_000 };
    expect(member.eject(0, short)).toBe(1_000);
    expect(member.eject(1_000, short)).toBe(1_000);
  });

  it('shrinks by one base with each interval that it is well, and not while it is not', () => {
    Math.random = () => 0;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.nat(9_000), (before, well) => {
        const flapping = new Member(instance('a'), usual);
        let now = 0;
        for (let ejection = 0; ejection < before; ejection++) now += flapping.eject(now, rules);
        now += 60_000;
        flapping.succeed(1, now);
        const forgiven = Math.floor(well / rules.interval);
        const left = forgiven === 0 ? before : Math.max(0, Math.min(before, 5) - forgiven);
        expect(flapping.eject(now + well, rules)).toBe(Math.min(5_000, 1_000 * (left + 1)));
        expect(flapping.ejections).toBe(left + 1);
      }),
    );
  });

  it('needs no longer to shrink after an outage of a day than after one of which the maximum tells', () => {
    Math.random = () => 0;
    let now = 0;
    for (let ejection = 0; ejection < 500; ejection++) now += member.eject(now, rules);
    member.succeed(1, now);
    expect(member.eject(now + 5 * rules.interval, rules)).toBe(1_000);
  });
});
