import type { Clock } from '../internal/clock.ts';
import type { OutlierDetection } from './outlier-detection.ts';
import type { RoutingConfig } from './routing.ts';
import type { Selector } from './selector.ts';
import type { SlowStart } from './slow-start.ts';

/** The checked options of a balancer, with their defaults. All of its clusters share them. */
export interface BalancerConfig extends RoutingConfig {
  readonly clock: Clock;
  readonly outlierDetection: OutlierDetection;
  readonly slowStart: SlowStart | undefined;
  /** The selector of the calls that give none. */
  readonly select?: Selector | undefined;
  /** The instances that a selector stands for if it matches none. Default `none`. */
  readonly selectFallback?: 'none' | 'any' | undefined;
}
