import type { Policy } from '../../src/index.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { count, percent, type Report } from './report.ts';

export interface GrowthOptions {
  seed?: number;
  /** Calls a second. */
  rate: number;
  /** Milliseconds that a call takes when nothing else is in flight. */
  latency: number;
  /** How much longer a call takes for each other in flight, as a share of `latency`. Default 0. */
  perCall?: number;
  /** Seconds to measure for, from the first response on. */
  seconds?: number;
}

export interface Growth {
  /** Calls that came before the first response. */
  before: number;
  /** How many of them were rejected. */
  rejectedBefore: number;
  /** The share of the calls that was rejected in each second from the first response on. */
  rejected: number[];
  /** The share of all these calls that was rejected. */
  share: number;
}

/** A limiter in front of a service that can take everything, from its first call on. */
export async function growth(
  makeLimiter: () => Policy,
  { seed = 1, rate, latency, perCall = 0, seconds = 60 }: GrowthOptions,
): Promise<Growth> {
  return simulate(seed, async (world) => {
    const limiter = makeLimiter();
    let inFlight = 0;
    let firstResponseAt: number | undefined;
    const before = { calls: 0, rejected: 0 };
    const each = Array.from({ length: seconds }, () => ({ calls: 0, rejected: 0 }));
    const serve = async () => {
      const time = Math.max(0.1, normal(latency, latency / 5)) * (1 + perCall * inFlight);
      inFlight++;
      await new Promise<void>((done) => world.later(time, done));
      inFlight--;
      firstResponseAt ??= performance.now();
    };
    await arrivals(world, rate, 1000 * seconds + 3 * latency, () => {
      const counts =
        firstResponseAt === undefined
          ? before
          : each[Math.floor((performance.now() - firstResponseAt) / 1000)];
      if (counts === undefined) return;
      counts.calls++;
      limiter.execute(serve).catch(() => {
        counts.rejected++;
      });
    });
    const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
    return {
      before: before.calls,
      rejectedBefore: before.rejected,
      rejected: each.map(({ calls, rejected }) => (calls === 0 ? 0 : rejected / calls)),
      share: sum(each.map(({ rejected }) => rejected)) / sum(each.map(({ calls }) => calls)),
    };
  });
}

export const ALGORITHMS = ['gradient2', 'vegas', 'aimd'] as const;
export const LATENCIES = [5, 120, 1200];
export const RATES = [40, 400, 4000];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const lines: { name: string; points: [number, number][] }[] = [];
  const measure = async (name: string, options: GrowthOptions) => {
    const results = [];
    for (const algorithm of ALGORITHMS) {
      results.push(await growth(() => new AdaptiveConcurrency({ algorithm }), options));
    }
    const { before, rejectedBefore, rejected } = results[0]!;
    rows.push([
      name,
      count(options.rate),
      `${count(rejectedBefore)} of ${count(before)}`,
      ...results.map(({ share }) => percent(share, 2)),
    ]);
    if (options.rate !== 4000) return;
    lines.push({
      name,
      points: rejected.slice(0, 10).map((share, second): [number, number] => [second + 1, share]),
    });
  };
  for (const latency of LATENCIES) {
    for (const rate of RATES) await measure(`${latency} ms`, { rate, latency });
  }
  await measure('120 ms, 1 % more for each call in flight', { rate: 400, latency: 120, perCall: 0.01 });
  return {
    title: 'An adaptive limit on a healthy service, from the first call on',
    source:
      "nobody's figures: TCP's slow start from 20 would take eight round trips to 4,800 calls in flight",
    assumed:
      'Calls at random, at a steady rate, whose time is normal with a deviation of a fifth. Rejected: in the minute ' +
      'that begins with the first response, and before it with gradient2. All options at their defaults.',
    head: ['a call takes', 'calls a second', 'rejected before', ...ALGORITHMS],
    rows,
    plots: {
      'limiter-growth': plot({
        title: 'Calls rejected by a new limit in front of a healthy service, 4,000 calls a second',
        x: { label: 'seconds from the first response on', from: 1, to: 10 },
        y: { label: 'share of the calls rejected', from: 0, to: 0.25, format: (share) => percent(share, 0) },
        series: lines,
      }),
    },
  };
}
