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
const BATCH = 64;

export async function picks(): Promise<void> {
  const rows: string[][] = [];
  for (const strategy of STRATEGIES) {
    const times: Times[] = [];
    for (const size of SIZES) times.push(await timesOf(strategy, size));
    const columns = [...times.map(({ pick }) => pick), ...times.map(({ release }) => release)];
    rows.push([strategy, ...columns.map((nanoseconds) => nanoseconds.toFixed(0))]);
  }
  const sizes = SIZES.map((size) => size.toLocaleString('en'));
  const head = [
    'ns of',
    ...sizes.map((size) => `a pick among ${size}`),
    ...sizes.map((size) => `its release, ${size}`),
  ];
  table('Picks', head, rows);
}

interface Times {
  pick: number;
  release: number;
}

/** Calls begin in batches and end in batches, so that each half is timed by itself. */
async function timesOf(strategy: StrategyName, size: number): Promise<Times> {
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
  const leases = Array.from({ length: BATCH }, () => balancer.tryAcquire('service')!);
  for (const lease of leases) lease.release();
  const rounds: Times[] = [];
  for (let round = -2; round < ROUNDS; round++) {
    let count = 0;
    let picking = 0;
    let releasing = 0;
    const endsAt = performance.now() + ROUND;
    while (performance.now() < endsAt) {
      const startedAt = performance.now();
      for (let index = 0; index < BATCH; index++) {
        leases[index] = balancer.tryAcquire('service', keys[count++ & 1023])!;
      }
      const pickedAt = performance.now();
      for (let index = 0; index < BATCH; index++) leases[index]!.release();
      picking += pickedAt - startedAt;
      releasing += performance.now() - pickedAt;
    }
    if (round >= 0) rounds.push({ pick: (picking / count) * 1e6, release: (releasing / count) * 1e6 });
  }
  balancer.close();
  return {
    pick: median(rounds.map(({ pick }) => pick)),
    release: median(rounds.map(({ release }) => release)),
  };
}
