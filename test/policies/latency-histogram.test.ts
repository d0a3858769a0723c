import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { LatencyHistogram } from '../../src/policies/latency-histogram.ts';
import { fakeTime } from './helpers.ts';

beforeEach(fakeTime);

function record(histogram: LatencyHistogram, latency: number, times: number): void {
  for (let i = 0; i < times; i++) histogram.record(latency);
}

function expectNear(estimate: number | undefined, exact: number): void {
  expect(estimate).toBeGreaterThanOrEqual(exact * 0.98 - 1e-9);
  expect(estimate).toBeLessThanOrEqual(exact * 1.02 + 1e-9);
}

describe('a percentile', () => {
  it('a percentile of a histogram is at most 2 % off, whatever the latencies', () => {
    const latency = fc.oneof(
      fc.double({ min: 0.01, max: 10, noNaN: true }),
      fc.double({ min: 1, max: 10_000, noNaN: true }),
      fc.double({ min: 1, max: 1e9, noNaN: true }),
    );
    fc.assert(
      fc.property(
        fc.array(latency, { minLength: 20, maxLength: 300, size: 'max' }),
        fc.double({ min: 0.01, max: 0.94, noNaN: true }),
        (latencies, share) => {
          const histogram = new LatencyHistogram();
          for (const latency of latencies) histogram.record(latency);
          const exact = latencies.sort((a, b) => a - b)[Math.ceil(share * latencies.length) - 1]!;
          expectNear(histogram.percentile(share), exact);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('a percentile of a histogram is told from the twentieth latency on', () => {
    const histogram = new LatencyHistogram();
    record(histogram, 10, 19);
    expect(histogram.percentile(0.5)).toBeUndefined();
    record(histogram, 10, 1);
    vi.advanceTimersByTime(100);
    expectNear(histogram.percentile(0.5), 10);
  });

  it('a percentile of a histogram is told only if something lies beyond it', () => {
    const histogram = new LatencyHistogram();
    record(histogram, 10, 99);
    expect(histogram.percentile(0.99)).toBeUndefined();
    record(histogram, 10, 1);
    vi.advanceTimersByTime(100);
    expectNear(histogram.percentile(0.99), 10);
  });

  it('a percentile of a histogram is one of the shares asked for, whichever was asked for before', () => {
    const histogram = new LatencyHistogram();
    record(histogram, 10, 90);
    record(histogram, 1_000, 10);
    for (let round = 0; round < 2; round++) {
      expectNear(histogram.percentile(0.5), 10);
      expectNear(histogram.percentile(0.95), 1_000);
    }
  });

  it('a percentile of a histogram is reckoned at most every 100 ms, however often it is asked for', () => {
    const histogram = new LatencyHistogram();
    record(histogram, 10, 20);
    expectNear(histogram.percentile(0.5), 10);
    record(histogram, 1_000, 100);
    vi.advanceTimersByTime(99);
    expectNear(histogram.percentile(0.5), 10);
    vi.advanceTimersByTime(1);
    expectNear(histogram.percentile(0.5), 1_000);
  });
});

describe('what is remembered', () => {
  it('the memory of a latency histogram is at least the last 30 seconds and at most the last 60', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 29_999 }), fc.integer({ min: 0, max: 70_000 }), (begin, age) => {
        vi.advanceTimersByTime(begin);
        const histogram = new LatencyHistogram();
        record(histogram, 10, 50);
        vi.advanceTimersByTime(age);
        const remembered = histogram.percentile(0.5) !== undefined;
        if (age <= 30_000) expect(remembered).toBe(true);
        if (age >= 60_000) expect(remembered).toBe(false);
      }),
      { numRuns: 200 },
    );
  });

  it('the memory of a latency histogram follows a service that turns slow, and one that recovers', () => {
    const histogram = new LatencyHistogram();
    for (const latency of [10, 500, 20]) {
      for (let second = 0; second < 60; second++) {
        record(histogram, latency, 5);
        vi.advanceTimersByTime(1_000);
      }
      expectNear(histogram.percentile(0.95), latency);
    }
  });

  it('the memory of a latency histogram is kept when the clock is set back, and goes on from there', () => {
    const now = 100_000;
    const histogram = new LatencyHistogram();
    for (let i = 0; i < 20; i++) histogram.record(10, now);
    histogram.record(10, now - 50_000);
    expectNear(histogram.percentile(0.5, now - 50_000), 10);
    for (let i = 0; i < 40; i++) histogram.record(30, now - 50_000);
    expectNear(histogram.percentile(0.5, now - 49_900), 30);
    expect(histogram.percentile(0.5, now + 11_000)).toBeUndefined();
  });

  it('the memory of a latency histogram holds latencies that no clock should give', () => {
    const histogram = new LatencyHistogram();
    for (const latency of [0, -5, Number.NaN]) record(histogram, latency, 10);
    for (const latency of [1e9, 1e300, Infinity]) record(histogram, latency, 10);
    expectNear(histogram.percentile(0.25), 0.01);
    expectNear(histogram.percentile(0.75), 1e9);
  });
});

it('a latency histogram uses no timer', () => {
  const histogram = new LatencyHistogram();
  record(histogram, 10, 100);
  histogram.percentile(0.95);
  expect(vi.getTimerCount()).toBe(0);
});
