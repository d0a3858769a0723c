import { beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { ServiceRegistrar } from '../../src/discovery/service-registrar.ts';
import * as errors from '../../src/errors.ts';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import * as frames from '../../src/internal/caller-frames.ts';
import * as requests from '../../src/internal/request-context.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { excludeFromBreaker } from '../../src/policies/outcome.ts';
import { Retry } from '../../src/policies/retry.ts';
import { areRetriesSpent } from '../../src/policies/spent-retries.ts';
import { oneAtATime } from '../../src/postgres/one-at-a-time.ts';
import { defer } from '../policies/helpers.ts';

/** Loads another copy of the package, as its CommonJS build in a process that imports the other. */
async function loadCopy() {
  vi.resetModules();
  const [errors, requests, frames, { oneAtATime }, ...classes] = await Promise.all([
    import('../../src/errors.ts'),
    import('../../src/internal/request-context.ts'),
    import('../../src/internal/caller-frames.ts'),
    import('../../src/postgres/one-at-a-time.ts'),
    import('../../src/policies/retry.ts'),
    import('../../src/policies/circuit-breaker.ts'),
    import('../../src/events/in-memory-event-bus.ts'),
    import('../../src/discovery/service-registrar.ts'),
  ]);
  const [{ Retry }, { CircuitBreaker }, { InMemoryEventBus }, { ServiceRegistrar }] = classes;
  return { errors, requests, frames, oneAtATime, Retry, CircuitBreaker, InMemoryEventBus, ServiceRegistrar };
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

it('a signal ends the process once the registrars of all copies are closed, and has one listener', async () => {
  const exited = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
  const others = process.listeners('SIGTERM');
  process.removeAllListeners('SIGTERM');
  onTestFinished(() => {
    exited.mockRestore();
    for (const listener of others) process.on('SIGTERM', listener);
  });
  const deregistration = defer<boolean>();
  const registering = [ServiceRegistrar, copy.ServiceRegistrar].map(async (Registrar, index) => {
    const discovery = new InMemoryServiceDiscovery();
    if (index === 0) vi.spyOn(discovery, 'deregister').mockReturnValue(deregistration.promise);
    const instance = { serviceName: 'user-service', host: '10.0.0.1', port: 8001 };
    const registrar = new Registrar({ discovery, instance, deregisterOn: 'SIGTERM' });
    await registrar.register();
    return registrar;
  });
  const registrars = await Promise.all(registering);
  expect(process.listenerCount('SIGTERM')).toBe(1);
  process.emit('SIGTERM', 'SIGTERM');
  await registrars[1]!.close();
  expect(exited).not.toHaveBeenCalled();
  deregistration.resolve(true);
  await vi.waitFor(() => expect(exited).toHaveBeenCalledExactlyOnceWith(143));
});

it('handlers on the buses of two copies that close the bus of each other do not wait for themselves', async () => {
  const one = new InMemoryEventBus({ source: 'one' });
  const other = new copy.InMemoryEventBus({ source: 'other' });
  const began = defer<void>();
  const event = { eventType: 'order.placed', aggregateId: 'o1', data: {} };
  const handled = [
    [one, other],
    [other, one],
  ].map(async ([own, foreign]) => {
    const ended = defer<void>();
    const handle = async () => {
      if (own === other) began.resolve();
      await began.promise;
      await foreign!.close();
      ended.resolve();
    };
    await own!.subscribe(event.eventType, handle, { group: 'orders' });
    await own!.publish(event);
    return ended.promise;
  });
  await expect(Promise.all(handled)).resolves.toHaveLength(2);
});

it('a once() in a transaction knows of one by another copy', async () => {
  const tx = { query: vi.fn(), raw: {} };
  const running = defer<void>();
  const first = oneAtATime(tx, 'one', () => running.promise);
  await expect(copy.oneAtATime(tx, 'two', async () => {})).rejects.toThrow(/another once\(\) is under way/);
  running.resolve();
  await first;
  await expect(copy.oneAtATime(tx, 'two', async () => 2)).resolves.toBe(2);
});

it('an error whose stack another copy has to complete is known to it', () => {
  const error = new errors.TimeoutError('slow', 5);
  frames.markDetached(error);
  expect(copy.frames.isDetached(error)).toBe(true);
});
