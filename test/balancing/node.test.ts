import { beforeEach, describe, expect, it } from 'vitest';
import { MeanLatency } from '../../src/balancing/latency.ts';
import { Node } from '../../src/balancing/node.ts';
import { readOutlierDetectionOptions } from '../../src/balancing/outlier-detection.ts';
import { fakeTimeAndChance, instance } from './helpers.ts';

fakeTimeAndChance();

const rules = readOutlierDetectionOptions({ consecutiveFailures: 3 });

let mean: MeanLatency;
let node: Node;
beforeEach(() => {
  mean = new MeanLatency();
  node = new Node(instance('a'), mean);
});

const succeed = (latency: number, now: number, exploring = false) =>
  node.recordSuccess(latency, now, exploring);
const fail = (latency: number, now: number, probe = false) => node.recordFailure(latency, now, probe, rules);
const eject = (now: number) => node.eject(now, true, rules, () => 0);

/** A call from its beginning to its success. */
function call(latency: number, endsAt: number, exploring = false): void {
  node.beginCall(0);
  node.endCall();
  succeed(latency, endsAt, exploring);
}

describe('the latency to expect of an instance', () => {
  it('the latency to expect of a new instance is 0, so that it is called at once, then the mean until it has responded', () => {
    mean.observe(40);
    expect(node.latencyAt(0)).toBe(0);
    node.beginCall(1);
    expect(node.latencyAt(0)).toBe(40);
    succeed(7, 1);
    expect(node.latencyAt(1)).toBe(7);
  });

  it('the latency to expect of an instance is the mean after an inconclusive call, so that an instance that always rejects calls does not get them all', () => {
    mean.observe(40);
    node.beginCall(1);
    node.endCall();
    expect(node.latencyAt(0)).toBe(40);
  });

  it('the latency to expect of an instance is at least twice the mean after a failure, however fast, and doubles with the next', () => {
    mean.observe(40);
    const penalties = Array.from({ length: 3 }, () => {
      fail(0, 0);
      return node.latencyAt(0);
    });
    expect(penalties).toEqual([80, 160, 320]);
  });

  it('the latency to expect of an instance is twice what a slow failure took', () => {
    fail(3_000, 0);
    expect(node.latencyAt(0)).toBe(6_000);
  });

  it('the latency to expect of an instance is never more than a minute for failures', () => {
    for (let failure = 0; failure < 100; failure++) fail(50_000, 0);
    expect(node.latencyAt(0)).toBe(60_000);
  });

  it('the latency to expect of an instance is that of the first success after failures, which no longer count', () => {
    succeed(10, 0);
    fail(500, 0);
    succeed(12, 1);
    expect(node.latencyAt(1)).toBe(12);
    for (let failure = 0; failure < 3; failure++) fail(5_000, 2);
    eject(2);
    expect(succeed(11, 1_002)).toBe(true);
    expect(node.latencyAt(1_002)).toBe(11);
  });

  it('the latency to expect of an instance is a peak until it has faded, unless an exploring call refutes it: then that of this call', () => {
    mean.observe(10);
    succeed(500, 0);
    succeed(10, 1);
    expect(node.latencyAt(1)).toBeGreaterThan(400);
    succeed(21, 2, true);
    expect(node.latencyAt(2)).toBeGreaterThan(400);
    succeed(20, 3, true);
    expect(node.latencyAt(3)).toBe(20);
  });

  it('the latency to expect of an instance is 0 again if it has started anew', () => {
    succeed(500, 0);
    node.startAnew(1);
    expect(node.latencyAt(1)).toBe(0);
  });
});

describe('the failures that eject an instance', () => {
  it('as many failures in a row as the rules say eject an instance; a success begins the count anew', () => {
    expect([fail(1, 0), fail(1, 0)]).toEqual([false, false]);
    succeed(1, 0);
    expect([fail(1, 0), fail(1, 0), fail(1, 0)]).toEqual([false, false, true]);
  });

  it('one failure ejects an instance again if it is its probe', () => {
    eject(0);
    expect(fail(1, 0)).toBe(false);
    expect(fail(1, 0, true)).toBe(true);
  });

  it('the failures that eject an instance count from 0 after a return', () => {
    for (let failure = 0; failure < 3; failure++) fail(1, 0);
    eject(0);
    expect(succeed(1, 0)).toBe(true);
    expect([fail(1, 0), fail(1, 0), fail(1, 0)]).toEqual([false, false, true]);
  });
});

describe('the statistics of an instance in an interval', () => {
  it('the statistics of an instance begin anew with its return, and when it starts anew', () => {
    for (const begins of [() => succeed(1, 0), () => node.startAnew(0)]) {
      for (let failure = 0; failure < 3; failure++) fail(1, 0);
      eject(0);
      begins();
      expect([node.stats.calls, node.stats.failures]).toEqual([0, 0]);
    }
  });
});

describe('an instance that is passed over', () => {
  /** Asks among four nodes, after a number of picks and of milliseconds without a call. */
  const wants = (now: number, picks: number, repeatable = true) =>
    node.wantsExploring(now, picks, 4, repeatable);

  beforeEach(() => mean.observe(10));

  it('an instance that is passed over is explored after twice its expected latency, once it has missed five calls of its share', () => {
    call(100, 0);
    expect(wants(150, 20)).toBe(false);
    expect(wants(200, 19)).toBe(false);
    expect(wants(200, 20)).toBe(true);
  });

  it('an instance that is passed over is explored by no call before its first result, while a call is under way, or while it is ejected', () => {
    expect(wants(10_000, 10_000)).toBe(false);
    call(100, 0);
    node.beginCall(0);
    expect(wants(10_000, 10_000)).toBe(false);
    node.endCall();
    expect(wants(10_000, 10_000)).toBe(true);
    eject(0);
    expect(wants(10_000, 10_000)).toBe(false);
  });

  it('an instance that is passed over misses calls by its weight, and fewer during its slow start', () => {
    call(100, 0);
    node.instance = instance('a', { weight: 0.5 });
    expect(wants(200, 39)).toBe(false);
    expect(wants(200, 40)).toBe(true);
    node.slowStart = { factor: 0.1 } as Node['slowStart'];
    expect(wants(200, 399)).toBe(false);
    expect(wants(200, 400)).toBe(true);
  });

  it('an instance that is passed over waits twice as long, and for twice as many calls, after each call that confirms that it is slow', () => {
    call(100, 0);
    call(100, 0, true);
    // The expected latency fades a little meanwhile, and with it the wait.
    expect(wants(380, 40)).toBe(false);
    expect(wants(400, 39)).toBe(false);
    expect(wants(400, 40)).toBe(true);
    call(100, 0, true);
    expect(wants(700, 80)).toBe(false);
    expect(wants(800, 79)).toBe(false);
    expect(wants(800, 80)).toBe(true);
    call(15, 0, true);
    expect(wants(30, 20)).toBe(true);
  });

  it('an instance that is passed over waits as at first after its return, and after a new start', () => {
    const returns = () => {
      for (let failure = 0; failure < 3; failure++) fail(1, 0);
      eject(0);
      succeed(100, 0);
    };
    for (const begins of [returns, () => node.startAnew(0)]) {
      call(100, 0);
      for (let confirmed = 0; confirmed < 5; confirmed++) call(100, 0, true);
      expect(wants(1_000, 20)).toBe(false);
      begins();
      expect(node.ejected).toBe(false);
      call(100, 0);
      expect(wants(1_000, 20)).toBe(true);
    }
  });

  it('an instance that is passed over waits for a second after a failure, and half a second more for a call that cannot be repeated', () => {
    call(10, 0);
    fail(10_000, 0);
    expect([wants(999, 20), wants(1_000, 20)]).toEqual([false, true]);
    expect([wants(1_499, 20, false), wants(1_500, 20, false)]).toEqual([false, true]);
  });
});
