import { LoadBalancer, StaticServiceDiscovery, type StrategyName } from '../../src/index.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { percentLabel, plot } from './plot.ts';
import { milliseconds, percent, percentile, type Report } from './report.ts';

export interface SlowInstanceOptions {
  seed?: number;
  instances?: number;
  /** Calls a second. */
  rate?: number;
  /** Milliseconds of the whole run. */
  duration?: number;
  /** Milliseconds from the start during which one instance is slow. */
  slowFrom?: number;
  slowUntil?: number;
}

/** The latencies of all calls, in rising order. */
export async function slowInstance(
  strategy: StrategyName,
  options: SlowInstanceOptions = {},
): Promise<number[]> {
  const { seed = 1, instances = 11, rate = 1000, duration = 60_000 } = options;
  const { slowFrom = 15_000, slowUntil = 45_000 } = options;
  return simulate(seed, async (world) => {
    const origins = Array.from({ length: instances }, (_, index) => `http://10.0.0.${index + 1}:80`);
    const balancer = new LoadBalancer({
      discovery: new StaticServiceDiscovery({ backend: origins }),
      strategy,
    });
    const latencies: number[] = [];
    const call = async () => {
      const lease = await balancer.acquire('backend');
      const startedAt = performance.now();
      const slow = lease.instance.host === '10.0.0.1' && startedAt >= slowFrom && startedAt < slowUntil;
      await world.sleep(slow ? 2_000 : normal(167, 5));
      lease.release();
      latencies.push(performance.now() - startedAt);
    };
    const calls: Promise<void>[] = [];
    await arrivals(world, rate, duration, () => calls.push(call()));
    await Promise.all(calls);
    return latencies.sort((a, b) => a - b);
  });
}

const PUBLISHED: [strategy: StrategyName, published: string][] = [
  ['round-robin', 'about 95 %'],
  ['random', '–'],
  ['power-of-two', '–'],
  ['least-connections', 'about 99 %'],
  ['peak-ewma', 'about 99.9 %'],
];

export function shareWithin(latencies: readonly number[], limit: number): number {
  return latencies.filter((latency) => latency <= limit).length / latencies.length;
}

export async function report(): Promise<Report> {
  const measured: { strategy: StrategyName; published: string; latencies: number[] }[] = [];
  for (const [strategy, published] of PUBLISHED) {
    measured.push({ strategy, published, latencies: await slowInstance(strategy) });
  }
  // From 50 % to 99.99 %, in tenths of a nine.
  const shares = Array.from({ length: 38 }, (_, index) => 1 - 10 ** (-0.3 - index / 10));
  return {
    title: 'One slow instance of eleven',
    source: "Buoyant, 'Beyond Round Robin: Load Balancing for Latency' (2016)",
    assumed:
      'Latency is normal, median 167 ms, deviation 5 ms; 1,000 calls a second at random moments for 60 s; one ' +
      'instance takes 2 s from 15 s to 45 s. Least loaded is least-connections.',
    head: ['strategy', 'within 1 s', 'published', 'p95', 'p99', 'p99.9'],
    rows: measured.map(({ strategy, published, latencies }) => [
      strategy,
      percent(shareWithin(latencies, 1_000), 2),
      published,
      ...[0.95, 0.99, 0.999].map((share) => milliseconds(percentile(latencies, share))),
    ]),
    plots: {
      'slow-instance': plot({
        title: 'Latency while one instance of eleven is slow',
        x: {
          label: 'share of calls that were at least as fast',
          scale: 'tail',
          from: 0.5,
          to: 0.9999,
          format: percentLabel,
        },
        y: { label: 'latency, ms', from: 0 },
        series: measured.map(({ strategy, latencies }) => ({
          name: strategy,
          points: shares.map((share) => [share, percentile(latencies, share)]),
        })),
      }),
    },
  };
}
