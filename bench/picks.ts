import { LoadBalancer, StaticServiceDiscovery, type StrategyName } from '../src/index.ts';
import { median, table } from './support/measure.ts';

const STRATEGIES: StrategyName[] = [
  'round-robin',
  'random',
  'power-of-two',
  'peak-ewma',
  'consistent-hash',
  'least-connections',
  'weighted-round-robin',
];
const SIZES = [10, 1_000, 10_000];
const ROUNDS = 5;
/** Milliseconds of a round. */
const ROUND = 100;

export async function picks(): Promise<void> {
  const rows: string[][] = [];
  for (const strategy of STRATEGIES) {
    const row: string[] = [strategy];
    for (const size of SIZES) row.push((await nanosecondsOfAPick(strategy, size)).toFixed(0));
    rows.push(row);
  }
  const head = [
    'ns of a pick and its release',
    ...SIZES.map((size) => `${size.toLocaleString('en')} instances`),
  ];
  table('Picks', head, rows);
}

async function nanosecondsOfAPick(strategy: StrategyName, size: number): Promise<number> {
  const instances = Array.from(
    { length: size },
    (_, index) => `http://10.0.${index >> 8}.${index & 255}:8000`,
  );
  const balancer = new LoadBalancer({
    discovery: new StaticServiceDiscovery({ service: instances }),
    strategy,
  });
  const keys = Array.from({ length: 1024 }, (_, index) => ({ hashKey: `user-${index}` }));
  (await balancer.acquire('service')).release();
  const times: number[] = [];
  for (let round = -2; round < ROUNDS; round++) {
    let count = 0;
    const startedAt = performance.now();
    while (performance.now() < startedAt + ROUND) {
      for (let index = 0; index < 64; index++)
        balancer.tryAcquire('service', keys[count++ & 1023])!.release();
    }
    if (round >= 0) times.push(((performance.now() - startedAt) / count) * 1e6);
  }
  balancer.close();
  return median(times);
}
