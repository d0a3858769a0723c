import { equal, rejects } from 'node:assert/strict';
import { mock, test } from 'node:test';
import { CircuitBreaker, CircuitOpenError, compose, Timeout, TimeoutError } from 'holdfast';

let now = performance.now();
mock.method(performance, 'now', () => now);
mock.timers.enable({ apis: ['setTimeout'] });

/** Moves the time by milliseconds, and lets what was due then happen. */
async function advance(milliseconds: number): Promise<void> {
  now += milliseconds;
  mock.timers.tick(milliseconds);
  await new Promise((resolve) => setImmediate(resolve));
}

test('a breaker opens when calls time out, and closes when it is time for a probe', async () => {
  const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 10_000 });
  const policy = compose(breaker, new Timeout(1_000));
  for (let call = 0; call < 2; call++) {
    const failed = rejects(
      policy.execute(() => new Promise(() => {})),
      TimeoutError,
    );
    await advance(1_000);
    await failed;
  }
  equal(breaker.state, 'open');
  await rejects(
    policy.execute(async () => 'not called'),
    CircuitOpenError,
  );
  await advance(10_000);
  equal(await policy.execute(async () => 'well again'), 'well again');
  equal(breaker.state, 'closed');
});
