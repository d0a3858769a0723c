import { beforeAll, expect, it, vi } from 'vitest';
import * as errors from '../../src/errors.ts';
import * as requests from '../../src/internal/request-context.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { excludeFromBreaker } from '../../src/policies/outcome.ts';
import { Retry } from '../../src/policies/retry.ts';
import { areRetriesSpent } from '../../src/policies/spent-retries.ts';

/** Loads another copy of the package, as its CommonJS build in a process that imports the other. */
async function loadCopy() {
  vi.resetModules();
  const [copiedErrors, copiedRequests, { Retry: CopiedRetry }, { CircuitBreaker: CopiedBreaker }] =
    await Promise.all([
      import('../../src/errors.ts'),
      import('../../src/internal/request-context.ts'),
      import('../../src/policies/retry.ts'),
      import('../../src/policies/circuit-breaker.ts'),
    ]);
  return {
    errors: copiedErrors,
    requests: copiedRequests,
    Retry: CopiedRetry,
    CircuitBreaker: CopiedBreaker,
  };
}

let copy: Awaited<ReturnType<typeof loadCopy>>;
beforeAll(async () => {
  copy = await loadCopy();
  expect(copy.Retry).not.toBe(Retry);
});

it('an error of another copy of the package is one of the class of the same name, and of no other', () => {
  const error = new copy.errors.DeadlineExceededError('late', 5);
  expect(error).toBeInstanceOf(errors.DeadlineExceededError);
  expect(error).toBeInstanceOf(errors.TimeoutError);
  expect(error).toBeInstanceOf(errors.HoldfastError);
  expect(error).not.toBeInstanceOf(errors.CircuitOpenError);
  expect(new errors.TimeoutError('slow', 5)).not.toBeInstanceOf(copy.errors.DeadlineExceededError);
});

it("a subclass of a user's own has none of the errors of another copy", () => {
  class QuotaError extends errors.TimeoutError {}
  expect(new copy.errors.TimeoutError('slow', 5)).not.toBeInstanceOf(QuotaError);
});

it('the context of a request reaches what another copy does in it', () => {
  const context = { requestId: 'r1', deadline: 5 };
  expect(copy.requests.runInRequestContext(context, requests.currentRequestContext)).toBe(context);
  expect(requests.runInRequestContext(context, copy.requests.currentRequestContext)).toBe(context);
});

it('a Retry does not retry what a Retry of another copy has spent its attempts on', async () => {
  const error = new Error('down');
  const operation = vi.fn(async () => {
    throw error;
  });
  const backoff = () => 0;
  const [outer, inner] = [new Retry({ backoff }), new copy.Retry({ maxAttempts: 2, backoff })];
  await expect(outer.execute(() => inner.execute(operation))).rejects.toBe(error);
  expect(operation).toHaveBeenCalledTimes(2);
  expect(areRetriesSpent(error)).toBe(true);
});

it('a breaker does not count what another copy has excluded', async () => {
  const error = new errors.TimeoutError('no place', 5);
  excludeFromBreaker(error);
  const breaker = new copy.CircuitBreaker({ failureThreshold: 1 });
  await expect(breaker.execute(() => Promise.reject(error))).rejects.toBe(error);
  expect(breaker.state).toBe('closed');
  await expect(breaker.execute(() => Promise.reject(new errors.TimeoutError('slow', 5)))).rejects.toThrow();
  expect(breaker.state).toBe('open');
});

it('a breaker of another copy counts no rejection by a breaker', async () => {
  const open = new CircuitBreaker({ initialState: 'open' });
  const breaker = new copy.CircuitBreaker({ failureThreshold: 1 });
  await expect(breaker.execute(() => open.execute(async () => 1))).rejects.toThrow(errors.CircuitOpenError);
  expect(breaker.state).toBe('closed');
});
