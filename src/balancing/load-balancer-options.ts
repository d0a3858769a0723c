import type { ServiceDiscovery } from '../discovery/service-discovery.ts';
import { type ServiceInstance, toInstance } from '../discovery/service-instance.ts';
import { type Clock, clockOption, systemClock } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import {
  any,
  boolean,
  either,
  hasMethods,
  isFunction,
  oneOf,
  ratio,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { BalancerConfig } from './balancer-config.ts';
import { MeanLatency } from './latency.ts';
import { Node } from './node.ts';
import { type OutlierDetectionOptions, readOutlierDetectionOptions } from './outlier-detection.ts';
import { priorityByMetadata, priorityOrZero } from './priorities.ts';
import type { CanaryOptions } from './routing.ts';
import { checkSelector, type Selector } from './selector.ts';
import { readSlowStartOptions, type SlowStartOptions } from './slow-start.ts';
import { consistentHash } from './strategies/consistent-hash.ts';
import { leastConnections } from './strategies/least-connections.ts';
import { peakEwma } from './strategies/peak-ewma.ts';
import { powerOfTwo } from './strategies/power-of-two.ts';
import { random } from './strategies/random.ts';
import { roundRobin } from './strategies/round-robin.ts';
import { weightedRoundRobin } from './strategies/weighted-round-robin.ts';
import type { BalancingStrategy, Picker } from './strategy.ts';
import { buildSubsetting, type SubsetOptions } from './subsetting.ts';
import { readZoneOptions, type ZoneOptions } from './zones.ts';

const STRATEGIES = {
  'round-robin': roundRobin,
  random,
  'least-connections': leastConnections,
  'power-of-two': powerOfTwo,
  'peak-ewma': peakEwma,
  'weighted-round-robin': weightedRoundRobin(),
  'consistent-hash': consistentHash(),
} satisfies Record<string, BalancingStrategy>;

const STRATEGY_NAMES = Object.keys(STRATEGIES).join(', ');

export type StrategyName = keyof typeof STRATEGIES;

export interface LoadBalancerOptions {
  /** Lists the instances of each service. */
  discovery: ServiceDiscovery;
  /** How an instance is chosen. Default `peak-ewma`. */
  strategy?: StrategyName | BalancingStrategy | undefined;
  /** Tells when an instance that fails, or does worse than others, is ejected; false for never. */
  outlierDetection?: OutlierDetectionOptions | false | undefined;
  /**
   * Lets an instance that joins others, or returns from an ejection, come to its share of the calls
   * bit by bit; {} for the defaults. Default false: where calls are few such an instance would get
   * none for a while, and Peak EWMA sends fewer calls to a cold instance from its first slow
   * response on.
   */
  slowStart?: SlowStartOptions | false | undefined;
  /**
   * The zone of this client. Calls stay there while its instances need bear no more than those of
   * other zones. With fewer than 6 instances (`minInstances`) zones make no difference.
   */
  zone?: string | ZoneOptions | undefined;
  /** Keeps this client to a few of the instances where there are very many. */
  subset?: SubsetOptions | undefined;
  /**
   * Calls go to the instances with the lowest number while enough of them are well, and then over
   * to the next; true for the number in `metadata.priority`. Where a function gives no number, or
   * throws, the number is 0. Default false.
   */
  priorities?: boolean | ((instance: ServiceInstance) => number) | undefined;
  /** Sends a share of the calls to the instances with some metadata, and the rest to the others. */
  canary?: CanaryOptions | undefined;
  /** The selector of the calls that give none: only the instances with this metadata are called. */
  select?: Selector | undefined;
  /**
   * Whether a selector that matches no instance stands for `any` of them, or for `none`. Default
   * `none`.
   */
  selectFallback?: 'none' | 'any' | undefined;
  /** Source of all chance, 0 to 1. Default `Math.random`. */
  random?: (() => number) | undefined;
  /**
   * Tells the time and sets the timers. If it is set back, the balancer forgets what it learned of the
   * instances. Default: `performance.now()`, `setTimeout` and `clearTimeout`, looked up at each use.
   */
  clock?: Clock | undefined;
}

/**
 * Passes on what a function of the options gave, or `otherwise` where that is no decision.
 *
 * @param option the name of the option.
 */
export type Decide = <T>(value: T, option: string, otherwise: T) => T;

/**
 * Checks the options and adds the defaults.
 *
 * @throws TypeError naming the option that is unknown or has a wrong value.
 */
export function readLoadBalancerOptions(options: LoadBalancerOptions, decide: Decide): BalancerConfig {
  validateOptions('LoadBalancer', options, {
    discovery: hasMethods('instances', 'watch'),
    strategy: either(
      `${STRATEGY_NAMES} or a strategy function`,
      oneOf(...Object.keys(STRATEGIES)),
      isFunction,
    ),
    outlierDetection: any,
    slowStart: any,
    zone: any,
    subset: any,
    priorities: either('true, false or a function', boolean, isFunction),
    canary: any,
    select: checkSelector,
    selectFallback: oneOf('none', 'any'),
    random: isFunction,
    clock: clockOption,
  });
  requireOption('LoadBalancer', options, 'discovery');
  const { strategy = 'peak-ewma', zone, subset, select, random } = options;
  return {
    clock: options.clock ?? systemClock,
    strategy: typeof strategy === 'function' ? checkEachPicker(strategy) : STRATEGIES[strategy],
    outlierDetection: readOutlierDetectionOptions(options.outlierDetection),
    slowStart: readSlowStartOptions(options.slowStart),
    zone: zone === undefined ? undefined : readZoneOptions(zone),
    subset: subset === undefined ? undefined : buildSubsetting(subset),
    priorityOf: buildPriorityOf(options.priorities, decide),
    canary: readCanaryOptions(options.canary),
    select: select && { ...select },
    selectFallback: options.selectFallback,
    random: random === undefined ? Math.random : () => decide(random(), 'random', 0),
  };
}

function buildPriorityOf(priorities: LoadBalancerOptions['priorities'], decide: Decide) {
  if (priorities === undefined || priorities === false) return undefined;
  if (priorities === true) return priorityOrZero(priorityByMetadata);
  return priorityOrZero((instance) => decide(priorities(instance), 'priorities', 0));
}

function readCanaryOptions(options: CanaryOptions | undefined): CanaryOptions | undefined {
  if (options === undefined) return undefined;
  const owner = 'LoadBalancer canary';
  validateOptions(owner, options, { select: checkSelector, share: ratio });
  requireOption(owner, options, 'select');
  requireOption(owner, options, 'share');
  return { select: { ...options.select }, share: options.share };
}

/** Wraps a user's strategy so that each picker it makes is checked, that of a sample at once. */
function checkEachPicker(strategy: BalancingStrategy): BalancingStrategy {
  checkStrategy(strategy);
  return (candidates, context) => {
    const picker = strategy(candidates, context);
    try {
      return checkPicker(picker);
    } catch (error) {
      // Each pick among these instances fails; those among the instances of other services do not.
      return () => {
        throw error;
      };
    }
  };
}

/**
 * Has the strategy make a picker of a sample. It may throw because of the sample, but what it gives
 * must be a picker.
 */
function checkStrategy(strategy: BalancingStrategy): void {
  const sample = new Node(
    toInstance({ serviceName: 'sample', host: 'localhost', port: 1 }),
    new MeanLatency(),
  );
  let picker: Picker;
  try {
    picker = strategy([sample], { random: () => 0 });
  } catch {
    return;
  }
  checkPicker(picker);
}

function checkPicker(picker: Picker): Picker {
  const option = "LoadBalancer option 'strategy'";
  if (typeof decided(picker, option) === 'function') return picker;
  throw new TypeError(
    `${option} must be ${STRATEGY_NAMES} or a function that makes a picker, (request) => candidate, of candidates; it gave a value of type ${typeof picker}`,
  );
}
