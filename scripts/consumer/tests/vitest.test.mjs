import { CircuitBreaker, CircuitOpenError, compose, Timeout, TimeoutError } from 'holdfast';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('a breaker opens when calls time out, and closes when it is time for a probe', async () => {
  const breaker = new CircuitBreaker({ failureThreshold: 2, resetTimeout: 10_000 });
  const policy = compose(breaker, new Timeout(1_000));
  for (let call = 0; call < 2; call++) {
    const failed = expect(policy.execute(() => new Promise(() => {}))).rejects.toBeInstanceOf(TimeoutError);
    await vi.advanceTimersByTimeAsync(1_000);
    await failed;
  }
  expect(breaker.state).toBe('open');
  await expect(policy.execute(async () => 'not called')).rejects.toBeInstanceOf(CircuitOpenError);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await policy.execute(async () => 'well again')).toBe('well again');
  expect(breaker.state).toBe('closed');
});
