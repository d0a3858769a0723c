import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as cockatiel from 'cockatiel';
import * as mollitia from 'mollitia';
// @ts-expect-error opossum ships no types
import Opossum from 'opossum';
import { Bulkhead, CircuitBreaker, compose, Fallback, Retry, RetryBudget, Timeout } from '../src/index.ts';
import { type Contender, microseconds, table } from './support/measure.ts';

const operation = async () => 1;
const { handleAll, TimeoutStrategy } = cockatiel;

function cockatielFour(strategy: cockatiel.TimeoutStrategy) {
  return cockatiel.wrap(
    cockatiel.retry(handleAll, { maxAttempts: 2, backoff: new cockatiel.ExponentialBackoff() }),
    cockatielBreaker(),
    cockatiel.timeout(1_000, strategy),
    cockatiel.bulkhead(100),
  );
}

function cockatielBreaker() {
  return cockatiel.circuitBreaker(handleAll, {
    halfOpenAfter: 30_000,
    breaker: new cockatiel.ConsecutiveBreaker(5),
  });
}

function mollitiaOf(...modules: mollitia.Module[]) {
  return new mollitia.Circuit({ func: operation, options: { modules } });
}

function holdfast(policy: { execute(operation: () => Promise<number>): unknown }): () => unknown {
  return () => policy.execute(operation);
}

/** Ours, then the nearest peers, on an async function that resolves at once. */
const GROUPS: Record<string, Contender[]> = {
  retry: [
    ['holdfast Retry', holdfast(new Retry())],
    ['holdfast Retry with a RetryBudget', holdfast(new Retry({ budget: new RetryBudget() }))],
    ['cockatiel retry', holdfast(cockatiel.retry(handleAll, { maxAttempts: 2 }))],
  ],
  'circuit breaker': [
    ['holdfast CircuitBreaker, consecutive', holdfast(new CircuitBreaker())],
    ['holdfast CircuitBreaker, by ratio', holdfast(new CircuitBreaker({ failureRatio: 0.5 }))],
    ['cockatiel circuitBreaker, consecutive', holdfast(cockatielBreaker())],
    [
      'cockatiel circuitBreaker, by ratio',
      holdfast(
        cockatiel.circuitBreaker(handleAll, {
          halfOpenAfter: 30_000,
          breaker: new cockatiel.SamplingBreaker({ threshold: 0.5, duration: 10_000 }),
        }),
      ),
    ],
  ],
  timeout: [
    ['holdfast Timeout', holdfast(new Timeout(1_000))],
    ['cockatiel timeout, aggressive', holdfast(cockatiel.timeout(1_000, TimeoutStrategy.Aggressive))],
    ['cockatiel timeout, cooperative', holdfast(cockatiel.timeout(1_000, TimeoutStrategy.Cooperative))],
  ],
  bulkhead: [
    ['holdfast Bulkhead', holdfast(new Bulkhead())],
    ['cockatiel bulkhead', holdfast(cockatiel.bulkhead(100))],
  ],
  fallback: [
    ['holdfast Fallback', holdfast(new Fallback(0))],
    ['cockatiel fallback', holdfast(cockatiel.fallback(handleAll, 0))],
  ],
  'retry + breaker + timeout + bulkhead': [
    ['holdfast', holdfast(compose(new Retry(), new CircuitBreaker(), new Timeout(1_000), new Bulkhead()))],
    ['cockatiel, aggressive timeout', holdfast(cockatielFour(TimeoutStrategy.Aggressive))],
    ['cockatiel, cooperative timeout', holdfast(cockatielFour(TimeoutStrategy.Cooperative))],
    ['opossum (breaker with timeout and capacity)', opossumCall()],
    [
      'mollitia',
      mollitiaCall(
        new mollitia.Retry({ attempts: 2 }),
        new mollitia.SlidingCountBreaker({}),
        new mollitia.Timeout({ delay: 1_000 }),
        new mollitia.Bulkhead({ concurrentSize: 100 }),
      ),
    ],
  ],
};

function opossumCall(): () => unknown {
  const breaker = new Opossum(operation, { timeout: 1_000, capacity: 100 });
  return () => breaker.fire();
}

function mollitiaCall(...modules: mollitia.Module[]): () => unknown {
  const circuit = mollitiaOf(...modules);
  return () => circuit.execute();
}

export async function policies(): Promise<void> {
  const rows: string[][] = [];
  for (const [group, contenders] of Object.entries(GROUPS)) {
    const times = await microseconds([['bare await', operation], ...contenders]);
    const bare = times.get('bare await')!;
    const ours = times.get(contenders[0]![0])! - bare;
    rows.push([`**${group}** (bare await)`, bare.toFixed(2), '', '']);
    for (const [name] of contenders) {
      const added = times.get(name)! - bare;
      rows.push([name, times.get(name)!.toFixed(2), added.toFixed(2), (added / ours).toFixed(1)]);
    }
  }
  table('Overhead of a call that succeeds at once', ['', 'µs a call', 'µs added', 'times ours'], rows);
  heap();
}

function heap(): void {
  const COUNT = 10_000;
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const bytesOf = (make: () => unknown) => {
    const kept: unknown[] = Array.from({ length: COUNT }, () => undefined);
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    for (let index = 0; index < COUNT; index++) kept[index] = make();
    collectGarbage();
    const bytes = (process.memoryUsage().heapUsed - before) / COUNT;
    return kept.length === COUNT ? bytes.toFixed(0) : '';
  };
  table(
    'Heap of an idle circuit breaker',
    ['', 'bytes'],
    [
      ['holdfast CircuitBreaker, consecutive', bytesOf(() => new CircuitBreaker())],
      ['holdfast CircuitBreaker, by ratio', bytesOf(() => new CircuitBreaker({ failureRatio: 0.5 }))],
      ['cockatiel circuitBreaker, consecutive', bytesOf(cockatielBreaker)],
    ],
  );
}
