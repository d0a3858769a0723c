import type { AcquireOptions } from '../src/balancing/acquire-options.ts';
import type { BalancerConfig } from '../src/balancing/balancer-config.ts';
import { Cluster } from '../src/balancing/cluster.ts';
import type { ClusterObserver } from '../src/balancing/cluster-observer.ts';
import { readOutlierDetectionOptions } from '../src/balancing/outlier-detection.ts';
import { leastConnections } from '../src/balancing/strategies/least-connections.ts';
import { peakEwma } from '../src/balancing/strategies/peak-ewma.ts';
import { powerOfTwo } from '../src/balancing/strategies/power-of-two.ts';
import { random } from '../src/balancing/strategies/random.ts';
import { roundRobin } from '../src/balancing/strategies/round-robin.ts';
import {
  type BalancingStrategy,
  consistentHash,
  StaticServiceDiscovery,
  weightedRoundRobin,
} from '../src/index.ts';
import { systemClock } from '../src/internal/clock.ts';
import { median, table } from './support/measure.ts';

const STRATEGIES: Record<string, BalancingStrategy> = {
  'round-robin': roundRobin,
  random,
  'power-of-two': powerOfTwo,
  'peak-ewma': peakEwma,
  'consistent-hash': consistentHash(),
  'least-connections': leastConnections,
  'weighted-round-robin': weightedRoundRobin(),
};
const SIZES = [10, 1_000, 10_000];
const ROUNDS = 5;
/** Milliseconds of a round. */
const ROUND = 100;
const BATCH = 64;
/** Calls of each instance before the measurement: what they took is what Peak EWMA goes by. */
const CALLS = 20;

const unobserved: ClusterObserver = {
  joined() {},
  left() {},
  ejected() {},
  returned() {},
  renewed() {},
  gotNoResponse() {},
};

export async function picks(): Promise<void> {
  const picking: string[][] = [];
  const leasing: string[][] = [];
  for (const [name, strategy] of Object.entries(STRATEGIES)) {
    const times: Times[] = [];
    for (const size of SIZES) times.push(timesOf(await fleetOf(strategy, size)));
    picking.push([name, ...times.map(({ pick }) => pick.toFixed(0))]);
    leasing.push([
      name,
      ...times.map(({ lease }) => lease.toFixed(0)),
      ...times.map(({ release }) => release.toFixed(0)),
    ]);
  }
  const sizes = SIZES.map((size) => size.toLocaleString('en'));
  table('Picks', ['ns of a pick', ...sizes.map((size) => `among ${size}`)], picking);
  const steps = ['a pick and its lease', 'the release'];
  table('Leases', ['ns of', ...steps.flatMap((step) => sizes.map((size) => `${step}, ${size}`))], leasing);
}

async function fleetOf(strategy: BalancingStrategy, size: number): Promise<Cluster> {
  const origins = Array.from({ length: size }, (_, index) => `http://10.0.${index >> 8}.${index & 255}:8000`);
  const rules: BalancerConfig = {
    clock: systemClock,
    strategy,
    outlierDetection: readOutlierDetectionOptions(undefined),
    slowStart: undefined,
    random: Math.random,
  };
  const fleet = new Cluster(rules, unobserved);
  fleet.update(await new StaticServiceDiscovery({ service: origins }).instances('service'));
  for (let call = 0; call < size * CALLS; call++) {
    fleet.lease(callOf(call))!.release({ latency: 10 + 10 * Math.random() });
  }
  return fleet;
}

interface Times {
  pick: number;
  lease: number;
  release: number;
}

/** A pick alone, then with its lease, then the release: calls begin in batches and end in batches. */
function timesOf(fleet: Cluster): Times {
  const leases = Array.from({ length: BATCH }, () => fleet.lease(callOf(0))!);
  for (const lease of leases) lease.release();
  let count = 0;
  const [pick] = timeOf([() => fleet.pick(callOf(count++))]);
  const [lease, release] = timeOf([
    (index) => {
      leases[index] = fleet.lease(callOf(count++))!;
    },
    (index) => leases[index]!.release(),
  ]);
  return { pick: pick!, lease: lease!, release: release! };
}

/** Nanoseconds of each step, of batches of the first step followed by batches of the second. */
function timeOf(steps: readonly ((index: number) => unknown)[]): number[] {
  const rounds: number[][] = [];
  for (let round = -2; round < ROUNDS; round++) {
    const spent = steps.map(() => 0);
    let batches = 0;
    const endsAt = performance.now() + ROUND;
    for (; performance.now() < endsAt; batches++) {
      steps.forEach((step, which) => {
        const startedAt = performance.now();
        for (let index = 0; index < BATCH; index++) step(index);
        spent[which]! += performance.now() - startedAt;
      });
    }
    if (round >= 0) rounds.push(spent.map((time) => (time / batches / BATCH) * 1e6));
  }
  return steps.map((_, which) => median(rounds.map((round) => round[which]!)));
}

const calls = Array.from({ length: 1024 }, (_, index) => ({ hashKey: `user-${index}` }));

function callOf(count: number): AcquireOptions {
  return calls[count & 1023]!;
}
