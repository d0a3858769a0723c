import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MeanLatency, PeakEwma } from '../../src/balancing/latency.ts';

const SECOND = 1_000;

describe('the expected latency of an instance', () => {
  it('the expected latency of an instance is not known before the first response', () => {
    const latency = new PeakEwma();
    expect(latency.known).toBe(false);
    latency.observe(0, 0);
    expect(latency.known).toBe(true);
  });

  it('the expected latency of an instance jumps to a peak at once', () => {
    const latency = new PeakEwma();
    latency.observe(10, 0);
    latency.observe(500, 1);
    expect(latency.at(1)).toBe(500);
  });

  it('the expected latency of an instance comes down from a peak slowly, to a third in some ten seconds of quick responses', () => {
    const latency = new PeakEwma();
    latency.observe(1_000, 0);
    latency.observe(10, 10);
    expect(latency.at(10)).toBeGreaterThan(990);
    for (let now = 20; now <= 10 * SECOND; now += 10) latency.observe(10, now);
    expect(latency.at(10 * SECOND)).toBeCloseTo(1_000 / Math.E + 10 * (1 - 1 / Math.E), 0);
  });

  it('the expected latency of an instance fades without any response, so that a slow instance gets a call again', () => {
    const latency = new PeakEwma();
    latency.observe(1_000, 0);
    expect(latency.at(10 * SECOND)).toBeCloseTo(1_000 / Math.E);
    expect(latency.at(100 * SECOND)).toBeLessThan(0.1);
  });

  it('the expected latency of an instance does not grow when a clock goes backwards', () => {
    const latency = new PeakEwma();
    latency.observe(100, 5_000);
    expect(latency.at(1_000)).toBe(100);
    latency.observe(50, 1_000);
    expect(latency.at(1_000)).toBe(100);
  });

  it('the expected latency of an instance never lies above the slowest response, nor right after a response below that response faded', () => {
    const response = fc.record({
      latency: fc.double({ min: 0, max: 1e5, noNaN: true }),
      wait: fc.nat(30_000),
    });
    fc.assert(
      fc.property(fc.array(response, { minLength: 1 }), (responses) => {
        const average = new PeakEwma();
        let now = 0;
        let slowest = 0;
        for (const { latency, wait } of responses) {
          now += wait;
          const before = average.at(now);
          average.observe(latency, now);
          slowest = Math.max(slowest, latency);
          expect(average.at(now)).toBeLessThanOrEqual(slowest * (1 + 1e-9));
          expect(average.at(now)).toBeGreaterThanOrEqual(Math.min(before, latency) * (1 - 1e-9));
          if (latency > before) expect(average.at(now)).toBe(latency);
        }
      }),
    );
  });
});

describe('the mean latency of a service', () => {
  it('the mean latency of a service is a millisecond before the first response, then what the first one took', () => {
    const mean = new MeanLatency();
    expect(mean.value).toBe(1);
    mean.observe(80);
    expect(mean.value).toBe(80);
  });

  it('the mean latency of a service is hardly moved by a single odd response, and follows many', () => {
    const mean = new MeanLatency();
    mean.observe(100);
    mean.observe(1_000);
    expect(mean.value).toBe(145);
    for (let response = 0; response < 200; response++) mean.observe(20);
    expect(mean.value).toBeCloseTo(20, 1);
  });
});
