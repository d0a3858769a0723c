import {
  type BalancingStrategy,
  LoadBalancer,
  type LoadBalancerOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { arrivals, normal } from './chance.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { mean, percent, type Report } from './report.ts';

export type Trouble = 'mended' | 'once slow';

export interface ReturnOptions {
  /** So many runs, each with a seed of its own, whose mean is given. */
  runs?: number;
  instances?: number;
  /** Calls a second. */
  rate?: number;
  /** Seconds after the trouble. */
  seconds?: number;
}

interface Approach {
  readonly options: Omit<LoadBalancerOptions, 'discovery'>;
  /** Told how each call ended, besides the balancer. */
  observe(host: string, latency: number, failed: boolean): void;
}

/** Milliseconds. */
const LATENCY = 3;
const SLOW = 500;
const FAILING = 6_000;
const BEFORE = 5_000;

const ignore = () => {};

/**
 * Peak EWMA of two random choices, which comes back to an instance as its estimate decays and in no other way.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`. A failure is taken for a second there: Finagle leaves
 * failures to its failure accrual.
 */
function decayAlone(): Approach {
  const decay = 10_000;
  const failure = 1_000;
  const estimates = new Map<string, { value: number; at: number }>();
  const estimateOf = (host: string): number => {
    const { value, at } = estimates.get(host) ?? { value: 0, at: 0 };
    return value * Math.exp((at - performance.now()) / decay);
  };
  const strategy: BalancingStrategy = (candidates, { random }) => {
    const cost = ({ instance, inFlight }: (typeof candidates)[number]) =>
      estimateOf(instance.host) * (inFlight + 1);
    return () => {
      const one = Math.floor(random() * candidates.length);
      const other = (one + 1 + Math.floor(random() * (candidates.length - 1))) % candidates.length;
      return cost(candidates[one]!) <= cost(candidates[other]!) ? candidates[one] : candidates[other];
    };
  };
  return {
    options: { strategy, outlierDetection: false },
    observe: (host, latency, failed) => {
      const seen = failed ? failure : latency;
      const value = estimateOf(host);
      const weight = Math.exp(((estimates.get(host)?.at ?? 0) - performance.now()) / decay);
      estimates.set(host, {
        value: seen > value ? seen : value + seen * (1 - weight),
        at: performance.now(),
      });
    },
  };
}

export const APPROACHES = {
  ours: () => ({ options: {}, observe: ignore }),
  'decay alone': decayAlone,
  'ejected for 30 s': () => ({
    options: {
      strategy: 'power-of-two',
      outlierDetection: { baseEjectionTime: 30_000, maxEjectionTime: 300_000, panicThreshold: 0.5 },
    },
    observe: ignore,
  }),
} satisfies Record<string, () => Approach>;

export type ApproachName = keyof typeof APPROACHES;

/** The share of one instance in each second after its trouble was over, as a multiple of its fair share. */
export async function returned(
  approach: ApproachName,
  trouble: Trouble,
  options: ReturnOptions = {},
): Promise<number[]> {
  const { runs = 20, instances = 5, rate = 100, seconds = 70 } = options;
  const shares: number[][] = [];
  for (let seed = 1; seed <= runs; seed++)
    shares.push(await oneRun(APPROACHES[approach](), trouble, seed, { instances, rate, seconds }));
  return Array.from({ length: seconds }, (_, second) => mean(shares.map((run) => run[second]!)));
}

function oneRun(
  { options, observe }: Approach,
  trouble: Trouble,
  seed: number,
  { instances, rate, seconds }: Required<Omit<ReturnOptions, 'runs'>>,
): Promise<number[]> {
  return simulate(seed, async (world) => {
    const origins = Array.from({ length: instances }, (_, index) => `http://10.0.0.${index + 1}:80`);
    const discovery = new StaticServiceDiscovery({ backend: origins });
    const balancer = new LoadBalancer({ discovery, ...options });
    const over = trouble === 'mended' ? BEFORE + FAILING : BEFORE + SLOW;
    const all = new Array<number>(seconds).fill(0);
    const its = new Array<number>(seconds).fill(0);
    let slow = trouble === 'once slow';
    const call = async () => {
      const lease = await balancer.acquire('backend');
      const { host } = lease.instance;
      const startedAt = performance.now();
      const troubled = host === '10.0.0.1' && startedAt >= BEFORE && startedAt < over;
      const failed = troubled && trouble === 'mended';
      const late = troubled && slow;
      if (late) slow = false;
      await world.sleep(late ? SLOW : normal(LATENCY, 0.2));
      observe(host, performance.now() - startedAt, failed);
      lease.release(failed ? { error: new Error('503') } : {});
      const second = Math.floor((startedAt - over) / 1_000);
      if (second < 0 || second >= seconds) return;
      all[second]!++;
      if (host === '10.0.0.1') its[second]!++;
    };
    const calls: Promise<void>[] = [];
    await arrivals(world, rate, over + 1_000 * seconds, () => calls.push(call()));
    await Promise.all(calls);
    balancer.close();
    return its.map((count, second) => (count * instances) / all[second]!);
  });
}

/** Over the seconds from one to another. */
export function shareBetween(shares: readonly number[], from: number, to: number): number {
  return mean(shares.slice(from, to));
}

const SPANS: [from: number, to: number][] = [
  [0, 3],
  [3, 6],
  [6, 15],
  [15, 30],
  [30, 70],
];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const plots: Record<string, string> = {};
  for (const trouble of ['mended', 'once slow'] as const) {
    const series: { name: string; points: [number, number][] }[] = [];
    for (const name of Object.keys(APPROACHES) as ApproachName[]) {
      const shares = await returned(name, trouble);
      series.push({ name, points: shares.map((share, second) => [second + 0.5, share]) });
      rows.push([trouble, name, ...SPANS.map(([from, to]) => percent(shareBetween(shares, from, to), 0))]);
    }
    plots[`returning-${trouble.replace(' ', '-')}`] = plot({
      title:
        trouble === 'mended'
          ? 'An instance of five after six seconds of failures'
          : 'An instance of five after one slow response',
      x: { label: 'seconds since it is well', from: 0, to: 70 },
      y: { label: 'share of the calls, 1 is fair', from: 0, to: 1.5 },
      series,
    });
  }
  return {
    title: 'An instance that is well again gets its share back',
    source:
      "Finagle's PeakEwma (a decay of 10 s) and Envoy's 'Outlier detection' (30 s for the first ejection), which " +
      'publish no figures for this',
    assumed:
      'Five instances, 3 ms a call, 100 calls a second at random moments; one fails for 6 s, or takes 500 ms for one ' +
      'call. Decay alone: peak EWMA without ejections and without exploring, a failure counts as a second. Ejected ' +
      'for 30 s: Envoy ejects for so long after five failures in a row; by power-of-two, which does not look at latency. ' +
      'The share of that instance in the seconds after its trouble, 100 % is fair; the mean of 20 runs.',
    head: ['instance', 'approach', ...SPANS.map(([from, to]) => `${from}–${to} s`)],
    rows,
    plots,
  };
}
