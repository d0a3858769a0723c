import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { BulkheadFullError } from '../../src/errors.ts';
import { Bulkhead, type BulkheadOptions } from '../../src/policies/bulkhead.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { begin, fakeTime, fling, flush, follow, listenersOn, pass, rejectionOf, stall } from './helpers.ts';
import { beginsNoneThatWasCancelled } from './queueing.ts';

beforeEach(fakeTime);

describe('a bulkhead with free places', () => {
  it('a bulkhead with free places passes on the value and the error as they are, and gives the place back', async () => {
    const bulkhead = new Bulkhead({ maxConcurrent: 1 });
    const value = {};
    const error = new Error('down');
    expect(await bulkhead.execute(() => value)).toBe(value);
    expect(await rejectionOf(bulkhead.execute(() => Promise.reject(error)))).toBe(error);
    expect(await rejectionOf(bulkhead.execute(() => fling(error)))).toBe(error);
    expect(bulkhead.inFlight).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a bulkhead with free places has 100 places and no queue by default', () => {
    const bulkhead = new Bulkhead();
    const calls = Array.from({ length: 101 }, () => begin(bulkhead));
    expect(calls.filter((call) => call.began)).toHaveLength(100);
    expect(bulkhead).toMatchObject({ inFlight: 100, queued: 0 });
  });

  it('a bulkhead with free places does not make a call that was cancelled before', async () => {
    const bulkhead = new Bulkhead();
    const call = begin(bulkhead, { signal: AbortSignal.abort(new Error('gone')) });
    await flush();
    expect(call.began).toBe(false);
    expect(call.call.outcome).toMatchObject({ ok: false, error: { message: 'gone' } });
    expect(bulkhead.inFlight).toBe(0);
  });
});

describe('a full bulkhead', () => {
  it('a bulkhead rejects a call at once when its places and its queue are full, and emits the rejection', async () => {
    const bulkhead = new Bulkhead({ maxConcurrent: 2, maxQueue: 1 });
    const told: BulkheadFullError[] = [];
    bulkhead.on('reject', ({ error }) => told.push(error));
    for (let i = 0; i < 3; i++) begin(bulkhead);
    const operation = vi.fn();
    const error = await rejectionOf(bulkhead.execute(operation));
    expect(error).toBeInstanceOf(BulkheadFullError);
    expect(error).toMatchObject({ code: 'ERR_BULKHEAD_FULL' });
    expect(operation).not.toHaveBeenCalled();
    expect(told).toEqual([error]);
    expect(bulkhead).toMatchObject({ inFlight: 2, queued: 1 });
  });

  it('a full bulkhead lets waiting calls in first come first served, as places come free', async () => {
    const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 3 });
    const calls = Array.from({ length: 4 }, () => begin(bulkhead));
    for (let turn = 0; turn < 4; turn++) {
      await flush();
      expect(calls.map((call) => call.began)).toEqual(calls.map((_, index) => index <= turn));
      if (turn % 2) calls[turn]!.operation.resolve('fine');
      else calls[turn]!.operation.reject(new Error('down'));
    }
    await flush();
    expect(bulkhead).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it('a full bulkhead lets no newcomer overtake a call that waits', async () => {
    const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 5 });
    const first = begin(bulkhead);
    const waiting = begin(bulkhead);
    let newcomer: ReturnType<typeof begin> | undefined;
    // At the very moment that the place comes free.
    void first.operation.promise.then(() => {
      newcomer = begin(bulkhead);
    });
    first.operation.resolve('done');
    while (bulkhead.queued > 1 || newcomer === undefined) await undefined;
    const another = begin(bulkhead);
    await flush();
    expect([waiting.began, newcomer.began, another.began]).toEqual([true, false, false]);
    expect(bulkhead.inFlight).toBe(1);
  });
});

describe('a call that waits in the queue', () => {
  const full = (options: BulkheadOptions = {}) => {
    const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 1, ...options });
    return { bulkhead, running: begin(bulkhead) };
  };

  it('a call that waits for a bulkhead is rejected after queueTimeout, and its place in the queue is free again', async () => {
    const { bulkhead, running } = full({ queueTimeout: 100 });
    const told = vi.fn();
    bulkhead.on('reject', told);
    const waiting = begin(bulkhead);
    await pass(99);
    expect(waiting.call.outcome).toBeUndefined();
    await pass(1);
    expect(waiting.call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_BULKHEAD_FULL' } });
    expect(told).toHaveBeenCalledTimes(1);
    expect(bulkhead.queued).toBe(0);
    const next = begin(bulkhead);
    running.operation.resolve('done');
    await flush();
    expect(next.began).toBe(true);
    expect(waiting.began).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a call that waits for a bulkhead is released at once when its caller cancels, and leaves its place, its listener and its timer', async () => {
    const { bulkhead, running } = full({ queueTimeout: 100 });
    const controller = new AbortController();
    const reason = new Error('user left');
    const waiting = begin(bulkhead, { signal: controller.signal });
    expect(listenersOn(controller.signal)).toBe(1);
    expect(vi.getTimerCount()).toBe(1);
    controller.abort(reason);
    await flush();
    expect(waiting.call.outcome).toEqual({ ok: false, error: reason });
    expect(listenersOn(controller.signal)).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    expect(bulkhead.queued).toBe(0);
    const next = begin(bulkhead);
    running.operation.resolve('done');
    await flush();
    expect([waiting.began, next.began]).toEqual([false, true]);
  });

  it('a call that waits for a bulkhead leaves neither listener nor timer once it has its place', async () => {
    const { bulkhead, running } = full({ queueTimeout: 100 });
    const { signal } = new AbortController();
    const waiting = begin(bulkhead, { signal });
    running.operation.resolve('done');
    await flush();
    expect(waiting.began).toBe(true);
    expect(listenersOn(signal)).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  beginsNoneThatWasCancelled((maxQueue) => new Bulkhead({ maxConcurrent: 1, maxQueue }));

  it('a call that waits for a bulkhead waits no longer than the deadline that it came with', async () => {
    const { bulkhead } = full();
    const waiting = begin(bulkhead, { deadline: performance.now() + 50 });
    await pass(49);
    expect(waiting.call.outcome).toBeUndefined();
    await pass(1);
    expect(waiting.call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_BULKHEAD_FULL' } });
    expect(bulkhead.queued).toBe(0);
  });

  it('a call that waits for a bulkhead is ended by an enclosing Timeout, with its error', async () => {
    const { bulkhead } = full();
    const call = follow(compose(new Timeout(50), bulkhead).execute(() => 'never'));
    await pass(50);
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    expect(bulkhead.queued).toBe(0);
  });

  it('a call waits for a bulkhead without a bound, on no timer', async () => {
    const { bulkhead, running } = full();
    const waiting = begin(bulkhead);
    expect(vi.getTimerCount()).toBe(0);
    await pass(86_400_000);
    running.operation.resolve('done');
    await flush();
    expect(waiting.began).toBe(true);
  });
});

it('a bulkhead never holds more than its places and its queue, and serves in order, with any behaviour of callers', async () => {
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.constant({ do: 'start' as const, call: 0 }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constantFrom('succeed' as const, 'fail' as const), call: fc.nat(9) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), call: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), call: fc.nat(120) }) },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 0, max: 4 }),
      fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
      fc.array(command, { maxLength: 60, size: 'max' }),
      async (maxConcurrent, maxQueue, queueTimeout, commands) => {
        const bulkhead = new Bulkhead({ maxConcurrent, maxQueue, queueTimeout });
        type Call = ReturnType<typeof begin> & { controller: AbortController; at: number };
        let running: Call[] = [];
        let waiting: Call[] = [];
        for (const next of commands) {
          if (next.do === 'start') {
            const controller = new AbortController();
            const call = Object.assign(begin(bulkhead, { signal: controller.signal }), {
              controller,
              at: performance.now(),
            }) as Call;
            await flush();
            if (running.length < maxConcurrent) running.push(call);
            else if (waiting.length < maxQueue) waiting.push(call);
            else expect(call.call.outcome).toMatchObject({ error: { code: 'ERR_BULKHEAD_FULL' } });
          } else if (next.do === 'pass') {
            vi.advanceTimersByTime(next.call);
            waiting = waiting.filter((call) => performance.now() - call.at < (queueTimeout ?? Infinity));
            await flush();
          } else if (next.do === 'cancel') {
            const chosen = waiting[next.call % waiting.length];
            waiting = waiting.filter((call) => call !== chosen);
            chosen?.controller.abort();
            await flush();
          } else {
            const chosen = running[next.call % running.length];
            if (chosen === undefined) continue;
            running = running.filter((call) => call !== chosen);
            if (next.do === 'succeed') chosen.operation.resolve('fine');
            else chosen.operation.reject(new Error('down'));
            const admitted = waiting.shift();
            if (admitted !== undefined) running.push(admitted);
            await flush();
          }
          expect(bulkhead).toMatchObject({ inFlight: running.length, queued: waiting.length });
          for (const call of running) expect(call.call.outcome).toBeUndefined();
        }
        for (const call of [...running, ...waiting]) call.operation.resolve('end');
        await flush();
        await flush();
        expect(bulkhead).toMatchObject({ inFlight: 0, queued: 0 });
        expect(vi.getTimerCount()).toBe(0);
      },
    ),
    { numRuns: 200 },
  );
});

it('a bulkhead gives a call the place that came free while this process was blocked for its queueTimeout', async () => {
  const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 2, queueTimeout: 100 });
  const first = begin(bulkhead);
  const [second, third] = [begin(bulkhead), begin(bulkhead)];
  await stall(300, () => first.operation.resolve('read'));
  expect(second.began).toBe(true);
  expect(third.call.outcome).toMatchObject({ error: { code: 'ERR_BULKHEAD_FULL' } });
});

describe('the options of a bulkhead', () => {
  it.each<[string, Record<string, unknown>]>([
    ['maxConcurrent', { maxConcurrent: 0 }],
    ['maxConcurrent', { maxConcurrent: Infinity }],
    ['maxQueue', { maxQueue: -1 }],
    ['maxQueue', { maxQueue: Infinity }],
    ['queueTimeout', { queueTimeout: -1 }],
    ['maxQueued', { maxQueued: 1 }],
  ])('a bulkhead names the wrong option %s (%o)', (option, options) => {
    expect(() => new Bulkhead(options)).toThrow(option);
  });
});
