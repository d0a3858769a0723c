import {
  CircuitBreaker,
  CircuitOpenError,
  constantBackoff,
  type Policy,
  Retry,
  RetryBudget,
  resilient,
} from '../../src/index.ts';
import { arrivals, exponential } from './chance.ts';
import { simulate } from './harness.ts';

export interface Study {
  /** The share of the calls that succeeded. */
  success: number;
  /** Attempts that the service got for each call. */
  load: number;
}

/** Milliseconds of the network, each way. */
const NETWORK = 10;

const AT_ONCE = { backoff: constantBackoff(0) };

/** The strategies of the study, made of our classes, for one client process. */
export const STRATEGIES = {
  'no retries': () => new Retry({ maxAttempts: 1 }),
  'three retries': () => new Retry({ ...AT_ONCE, maxAttempts: 4 }),
  adaptive: () =>
    new Retry({
      ...AT_ONCE,
      maxAttempts: Infinity,
      budget: new RetryBudget({ ratio: 0.1, initial: 5 }),
    }),
  breaker: retriesBehindBreaker,
  'resilient()': () => resilient(),
} satisfies Record<string, () => Pick<Policy, 'execute'>>;

export type StrategyName = keyof typeof STRATEGIES;

/** Three retries while a tenth of the attempts or less fails. The breaker stops retries alone: a first attempt goes past it. */
function retriesBehindBreaker(): Pick<Policy, 'execute'> {
  const breaker = new CircuitBreaker({
    failureRatio: 0.1,
    window: { calls: 100 },
    minimumCalls: 1,
    resetTimeout: Number(process.env.RESET ?? 1000),
  });
  const retry = new Retry({ ...AT_ONCE, maxAttempts: 4 });
  return {
    execute: (operation) =>
      retry.execute((context) =>
        breaker.execute(() => operation(context)).catch((error) => {
          if (context.attempt === 1 && error instanceof CircuitOpenError) return operation(context);
          throw error;
        }),
      ),
  };
}

/** Client processes that begin so many calls a second together, of a service each of whose responses may be a failure. */
export function retryStudy(
  strategy: StrategyName,
  failureRate: number,
  processes: number,
  seed: number,
  { rate = 1_000, seconds = 10 } = {},
): Promise<Study> {
  return simulate(seed, async (world) => {
    const policies = Array.from({ length: processes }, () => STRATEGIES[strategy]());
    let calls = 0;
    let succeeded = 0;
    let attempts = 0;
    const attempt = async () => {
      attempts++;
      await world.sleep(exponential(NETWORK) + exponential(NETWORK));
      if (Math.random() < failureRate) throw new Error('503');
    };
    const all: Promise<void>[] = [];
    await arrivals(world, rate, 1_000 * seconds, () => {
      calls++;
      const policy = policies[Math.floor(Math.random() * processes)]!;
      all.push(
        policy.execute(attempt).then(
          () => {
            succeeded++;
          },
          () => {},
        ),
      );
    });
    await Promise.all(all);
    return { success: succeeded / calls, load: attempts / calls };
  });
}
