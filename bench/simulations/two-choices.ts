import { LoadBalancer, StaticServiceDiscovery, type StrategyName } from '../../src/index.ts';
import { simulate } from './harness.ts';
import { plot } from './plot.ts';
import { count, mean, type Report } from './report.ts';

/** As many calls as instances begin and none ends: the most that one instance has under way, of each run. */
export async function fullestOf(
  strategy: StrategyName,
  { instances, runs, seed = 1 }: { instances: number; runs: number; seed?: number },
): Promise<number[]> {
  const discovery = new StaticServiceDiscovery({
    bins: Array.from({ length: instances }, (_, index) => `http://10.0.${index >> 8}.${index & 255}:80`),
  });
  return simulate(seed, async () => {
    const fullest: number[] = [];
    for (let run = 0; run < runs; run++) {
      const balancer = new LoadBalancer({ discovery, strategy });
      await balancer.getInstance('bins');
      let most = 0;
      for (let ball = 0; ball < instances; ball++)
        most = Math.max(most, balancer.tryAcquire('bins')!.candidate.inFlight);
      fullest.push(most);
      balancer.close();
    }
    return fullest;
  });
}

/** Which maximum came up in which share of the runs: '4: 70 %, 5: 30 %'. */
function spread(maxima: readonly number[]): string {
  return [...new Set(maxima)]
    .sort((a, b) => a - b)
    .map(
      (most) =>
        `${most}: ${((100 * maxima.filter((it) => it === most).length) / maxima.length).toFixed(0)} %`,
    )
    .join(', ');
}

const SIZES: [instances: number, runs: number][] = [
  [16, 200],
  [256, 200],
  [4_096, 50],
  [65_536, 5],
];

export async function report(): Promise<Report> {
  const rows: string[][] = [];
  const random: [number, number][] = [];
  const powerOfTwo: [number, number][] = [];
  for (const [instances, runs] of SIZES) {
    const one = await fullestOf('random', { instances, runs });
    const two = await fullestOf('power-of-two', { instances, runs });
    random.push([instances, mean(one)]);
    powerOfTwo.push([instances, mean(two)]);
    rows.push([
      count(instances),
      spread(one),
      oneChoice(instances).toFixed(1),
      spread(two),
      `${twoChoices(instances).toFixed(1)} + O(1)`,
    ]);
  }
  return {
    title: 'The fullest instance when n calls go to n instances',
    source:
      "Mitzenmacher, 'The Power of Two Choices in Randomized Load Balancing' (2001); Azar, Broder, Karlin, Upfal, " +
      "'Balanced Allocations' (1999)",
    assumed:
      'No call ends. Ours: which maximum came up in which share of the runs. Theory: Γ⁻¹(n) − 3/2 for one choice ' +
      '(Gonnet), ln ln n / ln 2 + O(1) for two.',
    head: ['instances', 'random', 'theory', 'power-of-two', 'theory'],
    rows,
    plots: {
      'two-choices': plot({
        title: 'Calls under way on the fullest instance when n calls go to n instances',
        x: { label: 'instances', scale: 'log' },
        y: { label: 'calls, mean of the runs', from: 0 },
        series: [
          { name: 'random', points: random },
          { name: 'power-of-two', points: powerOfTwo },
        ],
      }),
    },
  };
}

/** Gonnet: the inverse of the gamma function at n, less 3/2. */
export function oneChoice(n: number): number {
  let low = 2;
  let high = 100;
  while (high - low > 1e-9) {
    const middle = (low + high) / 2;
    if (logGamma(middle) < Math.log(n)) low = middle;
    else high = middle;
  }
  return low - 1.5;
}

export function twoChoices(n: number): number {
  return Math.log(Math.log(n)) / Math.LN2;
}

/** Stirling's series, far enough for arguments from 2. */
function logGamma(x: number): number {
  if (x < 10) return logGamma(x + 1) - Math.log(x);
  return (x - 0.5) * Math.log(x) - x + Math.log(2 * Math.PI) / 2 + 1 / (12 * x) - 1 / (360 * x ** 3);
}
