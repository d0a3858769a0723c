import { beforeEach, describe, expect, it, vi } from 'vitest';
import { type LoadReport, LoadReports } from '../../../src/balancing/strategies/load-reports.ts';
import { weightedRoundRobin } from '../../../src/balancing/strategies/weighted-round-robin.ts';
import { fakeTimeAndChance } from '../helpers.ts';
import { board } from './helpers.ts';

fakeTimeAndChance();

const candidate = () => board(weightedRoundRobin(), [1]).pawns[0]!;
const busy: LoadReport = { cpuUtilization: 0.5, qps: 100 };

let reports: LoadReports;
let one: ReturnType<typeof candidate>;
const weight = () => reports.weightOf(one, performance.now());

beforeEach(() => {
  reports = new LoadReports();
  one = candidate();
});

/** The weight by a single report, once it is gone by. */
function weightBy(report: LoadReport, options = {}): number {
  const own = new LoadReports({ blackoutPeriod: 0, ...options });
  own.report(one, report);
  return own.weightOf(one, performance.now());
}

describe('the weight of an instance by its reports', () => {
  it('the weight of an instance by its reports is the requests that it could serve if it were fully used', () => {
    expect(weightBy({ cpuUtilization: 0.5, qps: 100 })).toBe(200);
    expect(weightBy({ applicationUtilization: 0.25, cpuUtilization: 0.5, qps: 100 })).toBe(400);
    expect(weightBy({ applicationUtilization: 0, cpuUtilization: 0.5, qps: 100 })).toBe(200);
    expect(weightBy({ applicationUtilization: 2, qps: 100 })).toBe(50);
  });

  it('the weight of an instance by its reports is less for errors, by the penalty', () => {
    const failing = { cpuUtilization: 0.5, qps: 100, eps: 50 };
    expect(weightBy(failing)).toBe(100);
    expect(weightBy(failing, { errorUtilizationPenalty: 3 })).toBe(50);
    expect(weightBy(failing, { errorUtilizationPenalty: 0 })).toBe(200);
  });

  it.each<[string, LoadReport]>([
    ['is empty', {}],
    ['has no utilization', { qps: 100 }],
    ['has no requests', { cpuUtilization: 0.5 }],
    ['has no number', { cpuUtilization: Number.NaN, qps: 100 }],
    ['is negative', { cpuUtilization: -0.5, qps: 100 }],
    ['has negative errors', { cpuUtilization: 0.5, qps: 100, eps: -1 }],
    ['is endless', { cpuUtilization: 0.5, qps: Infinity }],
    ['is beyond belief', { cpuUtilization: 1e-9, qps: 1e9 }],
    ['has text', { cpuUtilization: 'x', qps: 'y' } as never],
  ])('the weight of an instance by its reports is not changed by a report that %s', (_, report) => {
    expect(weightBy(report)).toBe(0);
    const own = new LoadReports({ blackoutPeriod: 0, weightUpdatePeriod: 0 });
    own.report(one, busy);
    own.report(one, report);
    expect(own.weightOf(one, performance.now())).toBe(200);
  });

  it('the weight of an instance by its reports is not used until there have been reports for 10 s', () => {
    expect(weight()).toBe(0);
    for (let second = 0; second < 10; second++) {
      reports.report(one, busy);
      expect(weight()).toBe(0);
      vi.advanceTimersByTime(1_000);
    }
    expect(weight()).toBe(200);
  });

  it('the weight of an instance by its reports is dropped 3 minutes after the last report, and used again after 10 s of new ones', () => {
    reports.report(one, busy);
    vi.advanceTimersByTime(179_000);
    expect(weight()).toBe(200);
    vi.advanceTimersByTime(1_000);
    expect(weight()).toBe(0);
    reports.report(one, busy);
    vi.advanceTimersByTime(9_000);
    expect(weight()).toBe(0);
    vi.advanceTimersByTime(1_000);
    expect(weight()).toBe(200);
  });

  it('the weight of an instance by its reports changes once a second at most', () => {
    reports.report(one, busy);
    vi.advanceTimersByTime(10_000);
    expect(weight()).toBe(200);
    reports.report(one, { cpuUtilization: 0.1, qps: 100 });
    vi.advanceTimersByTime(999);
    expect(weight()).toBe(200);
    vi.advanceTimersByTime(1);
    expect(weight()).toBe(1_000);
  });

  it('the periods of LoadReports can be set', () => {
    reports = new LoadReports({ blackoutPeriod: 100, weightExpirationPeriod: 500, weightUpdatePeriod: 10 });
    reports.report(one, busy);
    vi.advanceTimersByTime(99);
    expect(weight()).toBe(0);
    vi.advanceTimersByTime(10);
    expect(weight()).toBe(200);
    vi.advanceTimersByTime(391);
    expect(weight()).toBe(0);
  });

  it('the weight of an instance by its reports is that of no other instance', () => {
    reports.report(one, busy);
    vi.advanceTimersByTime(10_000);
    expect(reports.weightOf(candidate(), performance.now())).toBe(0);
  });

  it.each<[string, object, ErrorConstructor]>([
    ['blackoutPeriod', { blackoutPeriod: -1 }, RangeError],
    ['weightExpirationPeriod', { weightExpirationPeriod: '1' }, TypeError],
    ['weightUpdatePeriod', { weightUpdatePeriod: Number.NaN }, RangeError],
    ['errorUtilizationPenalty', { errorUtilizationPenalty: -1 }, RangeError],
    ['blackout', { blackout: 1 }, TypeError],
  ])('LoadReports checks the option %s', (option, options, kind) => {
    expect(() => new LoadReports(options)).toThrow(kind);
    expect(() => new LoadReports(options)).toThrow(`'${option}'`);
  });
});
