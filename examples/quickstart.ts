import {
  CircuitBreaker,
  compose,
  exponentialBackoff,
  Retry,
  RetryBudget,
  Timeout,
  wrap,
} from '../src/index.ts';

// Any async function will do. This one fails twice, then works, then is down for good.
let calls = 0;
async function fetchPrice(item: string): Promise<number> {
  calls++;
  if (calls <= 2 || calls > 4) throw new Error(`price service unavailable (call ${calls})`);
  return item.length * 10;
}

const breaker = new CircuitBreaker({ failureThreshold: 4, resetTimeout: 10_000 });
const retry = new Retry({
  maxAttempts: 3,
  backoff: exponentialBackoff({ base: 20, max: 500 }),
  budget: new RetryBudget({ ratio: 0.2 }),
});
retry.on('retry', ({ attempt, delay }) => console.log(`  try ${attempt} follows in ${delay.toFixed(0)} ms`));
breaker.on('open', ({ wait }) => console.log(`  the circuit opened for ${wait / 1000} s`));

// The outermost first: one second for all attempts; each attempt goes through the breaker.
const safeFetchPrice = wrap(compose(new Timeout(1_000), retry, breaker), fetchPrice);

for (const item of ['pear', 'plum', 'apple', 'quince', 'lemon']) {
  try {
    console.log(`${item}: ${await safeFetchPrice(item)}`);
  } catch (error) {
    console.log(`${item}: ${error}`);
  }
}
