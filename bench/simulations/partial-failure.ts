import { LoadBalancer, type LoadBalancerOptions, StaticServiceDiscovery } from '../../src/index.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { percentLabel, plot } from './plot.ts';
import { percent, type Report } from './report.ts';

export interface PartialFailureOptions {
  seed?: number;
  instances?: number;
  /** Calls a second. */
  rate?: number;
  /** Seconds that are counted, after as many that are not. */
  seconds?: number;
}

type BalancerOptions = Omit<LoadBalancerOptions, 'discovery'>;

export const BALANCERS = {
  ours: {},
  'ours, round-robin': { strategy: 'round-robin' },
  'panic at 50 %': {
    strategy: 'round-robin',
    outlierDetection: { baseEjectionTime: 30_000, maxEjectionTime: 300_000, panicThreshold: 0.5 },
  },
} satisfies Record<string, BalancerOptions>;

export type BalancerName = keyof typeof BALANCERS;

/** The share of calls that succeed, each with one attempt, while so many of the instances fail all of theirs. */
export function successWith(
  name: BalancerName,
  bad: number,
  options: PartialFailureOptions = {},
): Promise<number> {
  const { seed = 1, instances = 10, rate = 100, seconds = 20 } = options;
  return simulate(seed, async (world) => {
    const origins = Array.from({ length: instances }, (_, index) => `http://10.0.0.${index}:80`);
    const discovery = new StaticServiceDiscovery({ backend: origins });
    const balancer = new LoadBalancer({ discovery, ...BALANCERS[name] });
    const isBad = (host: string) => Number(host.slice('10.0.0.'.length)) < bad;
    let calls = 0;
    let succeeded = 0;
    const call = async () => {
      const counts = performance.now() >= 1_000 * seconds;
      const lease = await balancer.acquire('backend');
      const failed = isBad(lease.instance.host);
      await world.sleep(failed ? 1 : Math.max(1, normal(5, 1)));
      lease.release(failed ? { error: new Error('503') } : {});
      if (!counts) return;
      calls++;
      if (!failed) succeeded++;
    };
    const all: Promise<void>[] = [];
    await arrivals(world, rate, 2_000 * seconds, () => all.push(call()));
    await Promise.all(all);
    balancer.close();
    return succeeded / calls;
  });
}

const COUNTS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

export async function report(): Promise<Report> {
  const series: { name: BalancerName; points: [number, number][] }[] = [];
  for (const name of Object.keys(BALANCERS) as BalancerName[]) {
    const points: [number, number][] = [];
    for (const bad of COUNTS) points.push([bad, await successWith(name, bad)]);
    series.push({ name, points });
  }
  return {
    title: 'Some of ten instances fail all of their calls',
    source:
      "Envoy, 'Outlier detection' and 'Panic threshold': with more than half of the instances ejected all of them get " +
      'calls again, so that K bad ones of ten cost K calls of ten',
    assumed:
      'Ten instances, 100 calls a second at random moments, each with one attempt: no retries; counted from 20 s to ' +
      '40 s after the first call. What fails with ours is probes. Panic at 50 %: round-robin, 30 s for the first ' +
      'ejection.',
    head: ['bad of ten', ...series.map(({ name }) => name), 'panic, published'],
    rows: COUNTS.map((bad) => [
      String(bad),
      ...series.map(({ points }) => percent(points[bad]![1])),
      bad > 5 ? percent(1 - bad / 10, 0) : '–',
    ]),
    plots: {
      'partial-failure': plot({
        title: 'Calls that succeed at the first attempt while some of ten instances fail',
        x: { label: 'instances that fail', from: 0, to: 9 },
        y: { label: 'share of calls that succeed', from: 0, to: 1, format: percentLabel },
        series,
      }),
    },
  };
}
