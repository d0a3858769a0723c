import { expect, it } from 'vitest';
import type { ContenderName } from '../../bench/simulations/client-processes.ts';
import { collapse, SEEDS, successAfterWave, WAVES, type Wave } from '../../bench/simulations/collapse.ts';
import { mean } from '../../bench/simulations/report.ts';

/** Gives the share of calls that succeed after the wave, for each seed. */
function successes(wave: Wave, client: ContenderName, processes: number, seeds: number[]): Promise<number[]> {
  const seconds = WAVES[wave].calm + 20;
  return seeds.reduce<Promise<number[]>>(async (before, seed) => {
    const shares = await before;
    return [...shares, successAfterWave(wave, await collapse(wave, client, processes, { seed, seconds }))];
  }, Promise.resolve([]));
}

/** Gives the lowest success of three runs. */
async function worst(wave: Wave, client: ContenderName, processes: number): Promise<number> {
  return Math.min(...(await successes(wave, client, processes, SEEDS.slice(0, 2))));
}

it('three attempts of each call without a budget keep a server down after a spike', async () => {
  expect(await worst('spike', 'three attempts', 20)).toBe(0);
});

it('a floor of ten retries a second in each of a hundred processes keeps a server down after a spike', async () => {
  expect(await worst('spike', 'with a floor of 10 a second', 100)).toBe(0);
});

it.each([1, 20, 100])(
  'a server recovers from a spike within ten seconds of %i processes with a RetryBudget',
  async (processes) => {
    expect(await worst('spike', 'with a RetryBudget', processes)).toBeGreaterThan(0.95);
  },
);

it.each([1, 20, 100])(
  'a server recovers from a spike within ten seconds of %i processes with resilient()',
  async (processes) => {
    expect(await worst('spike', 'resilient()', processes)).toBeGreaterThan(0.95);
  },
);

it.each([
  [20, 4],
  [100, 1],
] as const)(
  'a server recovers from a spike within ten seconds of %i processes with a ServiceClient for %i instances',
  async (processes, instances) => {
    const client = instances === 1 ? 'ServiceClient, 1 instance' : 'ServiceClient, 4 instances';
    expect(await worst('spike', client, processes)).toBeGreaterThan(0.95);
  },
);

it.each(['resilient()', 'ServiceClient, 4 instances'] as const)(
  'a server recovers from a ramp within ten seconds of a hundred processes with %s',
  async (client) => {
    expect(mean(await successes('ramp', client, 100, SEEDS))).toBeGreaterThan(0.95);
  },
);
