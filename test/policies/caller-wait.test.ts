import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CircuitBreaker, CircuitOpenError, Timeout, TimeoutError } from '../../src/index.ts';
import { systemClock } from '../../src/internal/clock.ts';
import { CallerWait } from '../../src/policies/caller-wait.ts';
import { Context } from '../../src/policies/context.ts';

beforeEach(() => {
  vi.useFakeTimers();
});

const never = () => new Promise<never>(() => {});

/** Gives the context of a call that can wait for its caller. */
function contextWith(callerWait: CallerWait): Context {
  return new Context(1, Infinity, { attributes: {}, callerWait }, undefined, false);
}

describe('a call that waits for its caller', () => {
  it.each([
    ['strict', true],
    ['cooperative', false],
  ])('has the whole time of a %s Timeout after each wait', async (_name, strict) => {
    const wait = new CallerWait(systemClock);
    const ended = vi.fn();
    const operation = strict
      ? never
      : ({ signal }: { signal: AbortSignal }) =>
          new Promise<never>((_resolve, reject) =>
            signal.addEventListener('abort', () => reject(signal.reason)),
          );
    new Timeout(100, { strict }).execute(operation, contextWith(wait)).catch(ended);
    await vi.advanceTimersByTimeAsync(90);
    wait.begin();
    await vi.advanceTimersByTimeAsync(1_000);
    wait.end();
    await vi.advanceTimersByTimeAsync(99);
    expect(ended).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(ended).toHaveBeenCalledWith(expect.any(TimeoutError));
  });

  it('has no timer left once it is over, whether it waits then or not', async () => {
    for (const waits of [true, false]) {
      const wait = new CallerWait(systemClock);
      const call = new Timeout(100).execute(async () => {
        wait.begin();
        if (!waits) wait.end();
      }, contextWith(wait));
      await call;
      wait.end();
      wait.begin();
      wait.end();
      await vi.advanceTimersByTimeAsync(1_000);
      expect(vi.getTimerCount()).toBe(0);
    }
  });

  it('tells how long it has waited', () => {
    const wait = new CallerWait(systemClock);
    wait.begin();
    vi.advanceTimersByTime(50);
    expect(wait.waited).toBe(50);
    wait.end();
    vi.advanceTimersByTime(50);
    wait.begin();
    wait.begin();
    vi.advanceTimersByTime(25);
    wait.end();
    wait.end();
    expect(wait.waited).toBe(75);
  });

  it('leaves its place as a probe of a CircuitBreaker to others meanwhile', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 10 });
    breaker.trip();
    await vi.advanceTimersByTimeAsync(10);
    const wait = new CallerWait(systemClock);
    const probe = breaker.execute(never, contextWith(wait));
    await expect(breaker.execute(() => 1)).rejects.toThrow(CircuitOpenError);
    wait.begin();
    expect(breaker.state).toBe('half-open');
    expect(await breaker.execute(() => 1)).toBe(1);
    expect(breaker.state).toBe('closed');
    expect(probe).toBeInstanceOf(Promise);
  });

  it('gives its place as a probe back once, whenever it ends', async () => {
    const halfOpen = { calls: 5, failureRatio: 0 };
    for (const waits of [true, false]) {
      const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 10, halfOpen });
      breaker.trip();
      await vi.advanceTimersByTimeAsync(10);
      const wait = new CallerWait(systemClock);
      await breaker.execute(async () => {
        wait.begin();
        if (!waits) wait.end();
      }, contextWith(wait));
      const other = breaker.execute(never);
      await expect(breaker.execute(() => 1)).rejects.toThrow(CircuitOpenError);
      expect(other).toBeInstanceOf(Promise);
    }
  });

  it('is not slow for a CircuitBreaker, however long it takes', async () => {
    const breaker = new CircuitBreaker({ slowCallRatio: 0.5, slowCallDuration: 10, minimumCalls: 1 });
    const call = breaker.execute(
      () => new Promise((resolve) => setTimeout(resolve, 1_000)),
      contextWith(new CallerWait(systemClock)),
    );
    await vi.advanceTimersByTimeAsync(1_000);
    await call;
    expect(breaker.state).toBe('closed');
  });
});
