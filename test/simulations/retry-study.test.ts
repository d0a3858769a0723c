import { expect, it } from 'vitest';
import { meanStudy, type StrategyName } from '../../bench/simulations/retry-study.ts';

it.each<[failures: number, strategy: StrategyName, success: number, load: number]>([
  [0.1, 'three retries', 0.9998, 1.114],
  [0.1, 'adaptive', 0.992, 1.101],
  [0.1, 'breaker', 0.927, 1.031],
  [0.5, 'three retries', 0.938, 1.87],
  [0.5, 'adaptive', 0.575, 1.142],
  [0.5, 'breaker', 0.494, 1],
])(
  'where a share of %f fails by chance, %s does within a point what is published',
  async (failures, strategy, success, load) => {
    const ours = await meanStudy(strategy, failures, 100);
    expect(Math.abs(ours.success - success)).toBeLessThan(0.01);
    expect(Math.abs(ours.load - load)).toBeLessThan(0.01);
  },
);
