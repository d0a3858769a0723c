import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  CircuitOpenError,
  DeadlineExceededError,
  LimitExceededError,
  ServiceResponseError,
  TimeoutError,
} from '../../src/errors.ts';
import {
  AdaptiveConcurrency,
  type AdaptiveConcurrencyOptions,
} from '../../src/policies/adaptive-concurrency.ts';
import type { ConcurrencyLimit, LimitSample } from '../../src/policies/concurrency-limit.ts';
import { excludeFromBreaker } from '../../src/policies/outcome.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  begin,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  listenersOn,
  pass,
  rejectionOf,
  stall,
} from './helpers.ts';
import { beginsNoneThatWasCancelled } from './queueing.ts';

beforeEach(fakeTime);

const refused = { ok: false, error: { code: 'ERR_LIMIT_EXCEEDED' } };

/**
 * An algorithm that takes what a test says for the limit, and keeps the samples that it is shown.
 */
function scripted() {
  const samples: LimitSample[] = [];
  const algorithm: ConcurrencyLimit & { value: number | undefined } = {
    value: undefined,
    next(limit, sample) {
      samples.push(sample);
      return this.value ?? limit;
    },
  };
  return { algorithm, samples };
}

/** Ten calls that take `rtt` milliseconds each, one after the other: a whole window. */
async function callTen(limiter: AdaptiveConcurrency, rtt: number, calls = 10): Promise<void> {
  for (let call = 0; call < calls; call++) {
    const { operation } = begin(limiter);
    await pass(rtt);
    operation.resolve('fine');
    await flush();
  }
}

describe('a limiter with free places', () => {
  it('a limiter with free places passes on the value and the error as they are, and gives the place back', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 1 });
    const value = {};
    const error = new Error('down');
    expect(await limiter.execute(() => value)).toBe(value);
    expect(await rejectionOf(limiter.execute(() => Promise.reject(error)))).toBe(error);
    expect(await rejectionOf(limiter.execute(() => fling(error)))).toBe(error);
    expect(limiter.inFlight).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a limiter with free places begins with a limit of 100 and no queue by default', () => {
    const limiter = new AdaptiveConcurrency();
    const calls = Array.from({ length: 101 }, () => begin(limiter));
    expect(calls.filter((call) => call.began)).toHaveLength(100);
    expect(limiter).toMatchObject({ limit: 100, inFlight: 100, queued: 0 });
  });

  it.each([
    [{ maxLimit: 10 }, 10],
    [{ minLimit: 300 }, 300],
  ])('a limiter with free places begins with the nearest limit that is allowed: %o', (options, limit) => {
    expect(new AdaptiveConcurrency(options).limit).toBe(limit);
  });

  it('a limiter with free places does not make a call that was cancelled before', async () => {
    const limiter = new AdaptiveConcurrency();
    const call = begin(limiter, { signal: AbortSignal.abort(new Error('gone')) });
    await flush();
    expect(call.began).toBe(false);
    expect(call.call.outcome).toMatchObject({ ok: false, error: { message: 'gone' } });
    expect(limiter.inFlight).toBe(0);
  });
});

describe('a limiter without a free place', () => {
  it('a limiter rejects at once a call that neither limit nor queue can hold, and emits the rejection', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 2, maxQueue: 1 });
    const told: LimitExceededError[] = [];
    limiter.on('reject', ({ error }) => told.push(error));
    for (let call = 0; call < 3; call++) begin(limiter);
    const operation = vi.fn();
    const error = await rejectionOf(limiter.execute(operation));
    expect(error).toBeInstanceOf(LimitExceededError);
    expect(operation).not.toHaveBeenCalled();
    expect(told).toEqual([error]);
    expect(limiter).toMatchObject({ inFlight: 2, queued: 1 });
  });

  it('a full limiter lets waiting calls in first come first served, and no newcomer before them', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 1, maxQueue: 3 });
    const calls = Array.from({ length: 3 }, () => begin(limiter));
    let newcomer: ReturnType<typeof begin> | undefined;
    // At the very moment that the place comes free.
    void calls[0]!.operation.promise.then(() => {
      newcomer = begin(limiter);
    });
    calls[0]!.operation.resolve('done');
    await flush();
    expect([calls[1]!.began, calls[2]!.began, newcomer!.began]).toEqual([true, false, false]);
    calls[1]!.operation.reject(new Error('down'));
    await flush();
    expect([calls[2]!.began, newcomer!.began]).toEqual([true, false]);
    expect(limiter).toMatchObject({ inFlight: 1, queued: 1 });
  });

  it('a limiter without a free place rejects after queueTimeout, and the place in the queue is free again', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 1, maxQueue: 1, queueTimeout: 100 });
    const told = vi.fn();
    limiter.on('reject', told);
    begin(limiter);
    const waiting = begin(limiter);
    await pass(99);
    expect(waiting.call.outcome).toBeUndefined();
    await pass(1);
    expect(waiting.call.outcome).toMatchObject(refused);
    expect(told).toHaveBeenCalledTimes(1);
    expect(limiter.queued).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a limiter without a free place releases a caller that cancels while it waits, with its place, its listener and its timer', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 1, maxQueue: 1, queueTimeout: 100 });
    const running = begin(limiter);
    const controller = new AbortController();
    const reason = new Error('user left');
    const waiting = begin(limiter, { signal: controller.signal });
    controller.abort(reason);
    await flush();
    expect(waiting.call.outcome).toEqual({ ok: false, error: reason });
    expect([listenersOn(controller.signal), vi.getTimerCount(), limiter.queued]).toEqual([0, 0, 0]);
    const next = begin(limiter);
    running.operation.resolve('done');
    await flush();
    expect([waiting.began, next.began]).toEqual([false, true]);
  });

  beginsNoneThatWasCancelled((maxQueue) => new AdaptiveConcurrency({ initialLimit: 1, maxQueue }));

  it('a limiter without a free place waits no longer than the deadline that a call came with', async () => {
    const limiter = new AdaptiveConcurrency({ initialLimit: 1, maxQueue: 1 });
    begin(limiter);
    const waiting = begin(limiter, { deadline: performance.now() + 50 });
    await pass(50);
    expect(waiting.call.outcome).toMatchObject(refused);
  });
});

describe('the limit', () => {
  const make = (options: AdaptiveConcurrencyOptions = {}) => {
    const { algorithm, samples } = scripted();
    const limiter = new AdaptiveConcurrency({ algorithm, initialLimit: 2, window: 100, ...options });
    const changes: unknown[] = [];
    limiter.on('limit', (change) => changes.push(change));
    return { limiter, algorithm, samples, changes };
  };

  it('an adaptive limit follows the algorithm, within its bounds, and tells of each change', async () => {
    const { limiter, algorithm, changes } = make({ maxLimit: 30, minLimit: 2 });
    for (const [value, limit] of [
      [7.9, 7],
      [7.1, 7],
      [1_000, 30],
      [-5, 2],
      [Number.NaN, 2],
    ] as const) {
      algorithm.value = value;
      await callTen(limiter, 20);
      expect(limiter.limit).toBe(limit);
    }
    expect(changes).toEqual([
      { from: 2, to: 7 },
      { from: 7, to: 30 },
      { from: 30, to: 2 },
    ]);
  });

  it('an adaptive limit stays where it is when the algorithm gives what is no number at all', async () => {
    const algorithm = { next: () => undefined as unknown as number };
    const limiter = new AdaptiveConcurrency({ algorithm, initialLimit: 2, window: 100 });
    await callTen(limiter, 20);
    expect(limiter.limit).toBe(2);
  });

  it('an adaptive limit keeps its fraction from one window to the next', async () => {
    const limiter = new AdaptiveConcurrency({
      algorithm: { next: (limit) => limit + 0.4 },
      initialLimit: 2,
      window: 100,
    });
    for (let window = 0; window < 3; window++) await callTen(limiter, 20);
    expect(limiter.limit).toBe(3);
  });

  it('an adaptive limit that rises admits as many waiting calls as it then holds', async () => {
    const { limiter, algorithm } = make({ initialLimit: 1, maxQueue: 30 });
    const calls = Array.from({ length: 15 }, () => begin(limiter));
    algorithm.value = 4;
    for (let call = 0; call < 10; call++) {
      await pass(20);
      calls[call]!.operation.resolve('fine');
      await flush();
    }
    expect(calls.slice(10).map((call) => call.began)).toEqual([true, true, true, true, false]);
    expect(limiter).toMatchObject({ limit: 4, inFlight: 4, queued: 1 });
  });

  it('an adaptive limit that fell admits no call until as many have ended', async () => {
    const { limiter, algorithm } = make({ initialLimit: 13, maxQueue: 1 });
    const calls = Array.from({ length: 14 }, () => begin(limiter));
    algorithm.value = 2;
    for (let call = 0; call < 10; call++) {
      if (call === 9) await pass(100);
      calls[call]!.operation.resolve('fine');
      await flush();
    }
    expect(limiter).toMatchObject({ limit: 2, inFlight: 4, queued: 0 });
    const waiting = begin(limiter);
    for (let call = 10; call < 12; call++) {
      calls[call]!.operation.resolve('fine');
      await flush();
      expect(waiting.began).toBe(false);
    }
    calls[12]!.operation.resolve('fine');
    await flush();
    expect(waiting.began).toBe(true);
  });

  it('an adaptive limit is found from how long successes took and how many were under way', async () => {
    const { limiter, samples } = make();
    await callTen(limiter, 30);
    expect(samples).toMatchObject([{ rtt: 30, inFlight: 1, calls: 10, dropped: 0 }]);
  });

  it('an adaptive limit does not count the time in the queue', async () => {
    const { limiter, samples } = make({ initialLimit: 1, maxQueue: 10 });
    const calls = Array.from({ length: 10 }, () => begin(limiter));
    for (const call of calls) {
      await pass(50);
      call.operation.resolve('fine');
      await flush();
    }
    expect(samples).toMatchObject([{ rtt: 50 }]);
  });

  it('an adaptive limit stays as it is while the clock stands still', async () => {
    const { limiter, algorithm } = make();
    algorithm.value = 9;
    for (let call = 0; call < 100; call++) await limiter.execute(() => 'fine');
    expect(limiter.limit).toBe(2);
  });

  const response = (status: number) =>
    new ServiceResponseError('no', {
      serviceName: 's',
      instanceId: 'i',
      status,
      headers: {},
      body: undefined,
    });
  const exempted = new TimeoutError('one instance of many', 10);
  excludeFromBreaker(exempted);

  it.each<[string, unknown, boolean]>([
    ['a timeout', new TimeoutError('late', 10), true],
    ['an answer of 503', response(503), true],
    ['an answer of 429', response(429), true],
    ['an answer of 500', response(500), false],
    ['any other error', new Error('bug'), false],
    ['a deadline of the caller', new DeadlineExceededError('passed', 10), false],
    ['a refusal by Holdfast', new CircuitOpenError('open', 0), false],
    ['a refusal by a limiter further in', new LimitExceededError('full'), false],
    ['an error that says nothing about the whole', exempted, false],
    [
      'a timeout within which this process was blocked',
      new TimeoutError('late', 10, 'ERR_TIMEOUT', 20),
      false,
    ],
  ])('the end of a call counts for an adaptive limit as it should: %s', async (_, error, counted) => {
    const { limiter, samples } = make();
    await rejectionOf(limiter.execute(() => Promise.reject(error)));
    await callTen(limiter, 20, 9);
    expect(samples).toMatchObject(counted ? [{ calls: 10, rtt: 20, dropped: 1 }] : []);
    await callTen(limiter, 20, 1);
    expect(samples).toMatchObject([{ calls: 10, rtt: 20, dropped: counted ? 1 : 0 }]);
  });

  it('an adaptive limiter counts an outcome as dropped if isDropped says so, a response or an error', async () => {
    const { limiter, samples } = make({
      isDropped: (outcome) =>
        outcome.ok ? outcome.value === 'busy' : (outcome.error as Error).message === 'busy',
    });
    await limiter.execute(() => 'busy');
    await rejectionOf(limiter.execute(() => Promise.reject(new Error('busy'))));
    await rejectionOf(limiter.execute(() => Promise.reject(new TimeoutError('late', 1))));
    for (let call = 0; call < 8; call++) {
      await pass(20);
      await limiter.execute(() => 'fine');
    }
    expect(samples).toMatchObject([{ calls: 10, dropped: 2 }]);
  });

  it.each(['inside', 'outside'])(
    'an adaptive limit learns nothing from a Timeout %s that ends a call while this process is blocked',
    async (where) => {
      const { limiter, samples } = make();
      const timeout = new Timeout(100);
      const call = begin(where === 'inside' ? compose(limiter, timeout) : compose(timeout, limiter));
      await stall(300);
      expect(call.call.outcome).toMatchObject({ error: { stalled: 200 } });
      call.operation.resolve('too late');
      await flush();
      await callTen(limiter, 20);
      expect(samples).toMatchObject([{ calls: 10, dropped: 0 }]);
    },
  );

  it('an adaptive limit learns nothing from a call that its caller cancelled', async () => {
    const { limiter, samples } = make();
    for (const end of ['resolve', 'reject'] as const) {
      const controller = new AbortController();
      const call = begin(limiter, { signal: controller.signal });
      controller.abort(new DeadlineExceededError('passed', 10));
      call.operation[end](new TimeoutError('late', 1));
      await flush();
    }
    await callTen(limiter, 20);
    expect(samples).toMatchObject([{ calls: 10, dropped: 0 }]);
  });

  it.each(['resolve', 'reject'] as const)(
    'an adaptive limit takes a call that an enclosing Timeout gave up for dropped, however it ends: %s',
    async (end) => {
      const { limiter, samples } = make();
      const result = defer();
      follow(compose(new Timeout(50), limiter).execute(() => result.promise));
      await pass(50);
      expect(limiter.inFlight).toBe(1);
      result[end](new Error('aborted'));
      await flush();
      await callTen(limiter, 20);
      expect(samples).toMatchObject([{ calls: 10, dropped: 1 }]);
    },
  );

  it.each(['isDropped', 'next', 'a listener'])(
    'a limiter frees the place of a call even if %s throws',
    async (which) => {
      const fail = () => fling(new Error('bug'));
      const limiter = new AdaptiveConcurrency({
        algorithm: { next: which === 'next' ? fail : (limit) => limit + 1 },
        window: 0,
        initialLimit: 1,
        ...(which === 'isDropped' && { isDropped: fail }),
      });
      const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
      if (which === 'a listener') limiter.on('limit', fail);
      const calls = [];
      for (let call = 0; call < 10; call++) {
        calls.push(follow(limiter.execute(() => 'fine')));
        await flush();
      }
      expect(limiter.inFlight).toBe(0);
      expect(calls[9]!.outcome?.ok).toBe(which === 'a listener');
      expect(warned).toHaveBeenCalledTimes(which === 'a listener' ? 1 : 0);
      warned.mockRestore();
    },
  );
});

describe('partitions', () => {
  const inPartition = (kind: string) => ({ attributes: { kind } });
  const make = (options: AdaptiveConcurrencyOptions = {}) =>
    new AdaptiveConcurrency({
      algorithm: { next: (limit) => limit },
      initialLimit: 10,
      partitions: [
        { name: 'checkout', share: 0.5 },
        { name: 'browse', share: 0.3 },
        { name: 'report', share: 0 },
      ],
      partition: ({ attributes }) => attributes.kind as string,
      ...options,
    });
  const many = (limiter: AdaptiveConcurrency, count: number, kind: string) =>
    Array.from({ length: count }, () => begin(limiter, inPartition(kind)));
  const begun = (calls: ReturnType<typeof begin>[]) => calls.filter((call) => call.began).length;

  it('a limiter with partitions lets any of them use what the others leave free', () => {
    expect(begun(many(make(), 12, 'report'))).toBe(10);
  });

  it('a limiter gives each partition its share once earlier calls have ended, and the rest to the most critical', async () => {
    const limiter = make();
    const reports = many(limiter, 20, 'report');
    const browses = many(limiter, 20, 'browse');
    const checkouts = many(limiter, 20, 'checkout');
    for (const report of reports.slice(0, 10)) report.operation.resolve('done');
    await flush();
    expect([begun(checkouts), begun(browses), begun(reports)]).toEqual([7, 3, 10]);
    expect(limiter.inFlight).toBe(10);
  });

  it('a limiter keeps the share of a partition that more critical ones would crowd out', async () => {
    const limiter = make();
    let checkouts = many(limiter, 40, 'checkout');
    const browses = many(limiter, 20, 'browse');
    for (let round = 0; round < 4; round++) {
      const running = checkouts.filter((call) => call.began);
      checkouts = checkouts.filter((call) => !call.began);
      for (const call of running) call.operation.resolve('done');
      await flush();
    }
    expect(begun(browses)).toBe(3);
    expect(begun(checkouts)).toBe(7);
  });

  it('a limiter guarantees each partition at least one place at any limit, but none for a share of 0', async () => {
    const limiter = make({ initialLimit: 2 });
    const checkouts = many(limiter, 5, 'checkout');
    const [browse] = many(limiter, 1, 'browse');
    const [report] = many(limiter, 1, 'report');
    checkouts[0]!.operation.resolve('done');
    await flush();
    expect([begun(checkouts), browse!.began, report!.began]).toEqual([2, true, false]);
  });

  it('a limiter with a full queue rejects the least critical of the waiting calls, the last come first', async () => {
    const limiter = make({ maxQueue: 3 });
    const told: unknown[] = [];
    limiter.on('reject', ({ error }) => told.push(error));
    many(limiter, 10, 'checkout');
    const [first, second] = many(limiter, 2, 'report') as [
      ReturnType<typeof begin>,
      ReturnType<typeof begin>,
    ];
    many(limiter, 2, 'checkout');
    await flush();
    expect([first.call.outcome, second.call.outcome]).toMatchObject([undefined, refused]);
    expect(told).toEqual([(second.call.outcome as { error: unknown }).error]);
    many(limiter, 1, 'checkout');
    await flush();
    expect(first.call.outcome).toMatchObject(refused);
    expect(limiter.queued).toBe(3);
    const [late] = many(limiter, 1, 'report');
    const [tooMany] = many(limiter, 1, 'checkout');
    await flush();
    expect([late!.call.outcome, tooMany!.call.outcome]).toMatchObject([refused, refused]);
  });

  it('a limiter makes room in a full queue for a partition below its share, at the cost of a more critical one above', async () => {
    const limiter = make({ maxQueue: 4 });
    const checkouts = many(limiter, 14, 'checkout');
    const browses = many(limiter, 4, 'browse');
    await flush();
    expect(checkouts.filter((call) => call.call.outcome !== undefined)).toHaveLength(3);
    expect(browses.map((call) => call.call.outcome)).toMatchObject([
      undefined,
      undefined,
      undefined,
      refused,
    ]);
  });

  it('a limiter takes no place from calls that wait within the share of their partition', async () => {
    const limiter = make({ maxQueue: 3 });
    many(limiter, 10, 'checkout');
    const browses = many(limiter, 3, 'browse');
    const [checkout] = many(limiter, 1, 'checkout');
    await flush();
    expect(checkout!.call.outcome).toMatchObject(refused);
    expect(browses.every((call) => call.call.outcome === undefined)).toBe(true);
  });

  it('a limiter counts a call for which partition gives null as the least critical', async () => {
    const limiter = make({ maxQueue: 1, partition: ({ attributes }) => (attributes.kind as string) ?? null });
    many(limiter, 10, 'checkout');
    const none = begin(limiter);
    many(limiter, 1, 'browse');
    await flush();
    expect(none.call.outcome).toMatchObject(refused);
  });

  it('a limiter counts a call of an unknown partition as the least critical', async () => {
    const limiter = make({ maxQueue: 1 });
    many(limiter, 10, 'report');
    const unknown = begin(limiter);
    many(limiter, 1, 'browse');
    await flush();
    expect(unknown.call.outcome).toMatchObject(refused);
  });

  it('a limiter holds the bound of its queue when a listener makes another call as one is rejected', async () => {
    const limiter = make({ maxQueue: 1 });
    many(limiter, 10, 'checkout');
    many(limiter, 1, 'report');
    limiter.once('reject', () => many(limiter, 1, 'browse'));
    many(limiter, 1, 'checkout');
    await flush();
    expect(limiter.queued).toBe(1);
  });

  it('a limiter rejects a call whose partition function throws, with its error', async () => {
    const error = new Error('bug');
    const limiter = make({ partition: () => fling(error) });
    expect(await rejectionOf(limiter.execute(() => 'fine'))).toBe(error);
    expect(limiter.inFlight).toBe(0);
  });
});

it('a limiter holds limit, bounds and queue, and loses no call, with any behaviour of callers', async () => {
  const command = fc.record({
    do: fc.constantFrom('start', 'start', 'start', 'succeed', 'succeed', 'drop', 'fail', 'cancel', 'pass'),
    call: fc.nat(29),
    kind: fc.constantFrom('a', 'b', 'c'),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('gradient2', 'vegas', 'aimd', 'any'),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.integer({ min: -1, max: 12 }), { minLength: 1 }),
      fc.array(command, { maxLength: 120, size: 'max' }),
      async (name, initialLimit, maxQueue, limits, commands) => {
        let turn = 0;
        const algorithm = name === 'any' ? { next: () => limits[turn++ % limits.length]! } : name;
        const limiter = new AdaptiveConcurrency({
          algorithm: algorithm as ConcurrencyLimit,
          initialLimit,
          maxLimit: 8,
          window: 5,
          maxQueue,
          queueTimeout: 90,
          partitions: [
            { name: 'a', share: 0.5 },
            { name: 'b', share: 0.3 },
            { name: 'c', share: 0.2 },
          ],
          partition: ({ attributes }) => attributes.kind as string,
        });
        const calls: { call: ReturnType<typeof follow>; controller: AbortController }[] = [];
        const running = new Set<ReturnType<typeof defer>>();
        const start = (kind: string) => {
          const operation = defer();
          const controller = new AbortController();
          let ended = false;
          const call = follow(
            limiter.execute(
              () => {
                expect(ended).toBe(false);
                running.add(operation);
                return operation.promise;
              },
              { signal: controller.signal, attributes: { kind } },
            ),
          );
          void operation.promise
            .catch(() => {})
            .then(() => {
              ended = true;
            });
          calls.push({ call, controller });
        };
        for (const next of commands) {
          const before = { limit: limiter.limit, inFlight: limiter.inFlight };
          const operation = [...running][next.call % running.size];
          if (next.do === 'start') start(next.kind);
          else if (next.do === 'pass') vi.advanceTimersByTime(next.call * 3);
          else if (next.do === 'cancel') calls[next.call % calls.length]?.controller.abort();
          else if (operation !== undefined) {
            running.delete(operation);
            if (next.do === 'succeed') operation.resolve('fine');
            else operation.reject(next.do === 'drop' ? new TimeoutError('late', 1) : new Error('down'));
          }
          await flush();
          expect(limiter.limit).toBeGreaterThanOrEqual(1);
          expect(limiter.limit).toBeLessThanOrEqual(8);
          expect(limiter.inFlight).toBe(running.size);
          // More than the limit are only those that were let in before it fell.
          expect(limiter.inFlight).toBeLessThanOrEqual(Math.max(limiter.limit, before.inFlight));
          expect(limiter.queued).toBeLessThanOrEqual(maxQueue);
          if (limiter.queued > 0) expect(limiter.inFlight).toBeGreaterThanOrEqual(limiter.limit);
        }
        while (running.size > 0) {
          for (const operation of running) operation.resolve('end');
          running.clear();
          await flush();
        }
        expect(calls.every(({ call }) => call.outcome !== undefined)).toBe(true);
        expect(limiter).toMatchObject({ inFlight: 0, queued: 0 });
        expect(vi.getTimerCount()).toBe(0);
      },
    ),
    { numRuns: 100 },
  );
});

it('a saturated limiter gives every partition its share, with any shares', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(10), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 20 }),
      fc.infiniteStream(fc.nat(1_000)),
      async (weights, limit, choices) => {
        const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
        const partitions = weights.map((weight, index) => ({ name: `p${index}`, share: weight / total }));
        const limiter = new AdaptiveConcurrency({
          algorithm: { next: (now) => now },
          initialLimit: limit,
          maxQueue: 1_000,
          partitions,
          partition: ({ attributes }) => attributes.kind as string,
        });
        const running: { kind: string; operation: ReturnType<typeof defer> }[] = [];
        const start = (kind: string) => {
          follow(
            limiter.execute(
              () => {
                const operation = defer();
                running.push({ kind, operation });
                return operation.promise;
              },
              { attributes: { kind } },
            ),
          );
        };
        // The least critical come first, and take all there is.
        for (const { name } of partitions.toReversed()) {
          for (let call = 0; call < limit + 1; call++) start(name);
        }
        for (let turn = 0; turn < 4 * limit; turn++) {
          const index = turn < 2 * limit ? 0 : choices.next().value! % running.length;
          const [ended] = running.splice(index, 1);
          start(ended!.kind);
          ended!.operation.resolve('done');
          await flush();
          if (turn < 2 * limit) continue;
          const guaranteed = ({ share }: { share: number }) =>
            share === 0 ? 0 : Math.max(1, Math.floor(share * limit + 1e-9));
          let left = limit;
          for (const partition of partitions) {
            const { name } = partition;
            const held = running.filter(({ kind }) => kind === name).length;
            // If shares of less than a place make too many, the most critical come first.
            expect(held).toBeGreaterThanOrEqual(Math.min(left, guaranteed(partition)));
            left -= Math.min(left, guaranteed(partition));
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

describe('in front of a server', () => {
  /** A server with so many workers, each busy for 20 ms with a call, and a queue of any length. */
  function server(workers: number) {
    let freeAt: number[] = [];
    const call = () => {
      const now = performance.now();
      freeAt = freeAt.sort((a, b) => a - b).slice(-serving.workers);
      while (freeAt.length < serving.workers) freeAt.unshift(now);
      const endsAt = Math.max(now, freeAt[0]!) + 20;
      freeAt[0] = endsAt;
      return new Promise<string>((resolve) => setTimeout(() => resolve('done'), endsAt - now));
    };
    const serving = { workers, call };
    return serving;
  }

  it.each(['gradient2', 'vegas'] as const)(
    '%s in front of a server lets in about as many calls as it serves at once, and follows as they halve and return',
    async (algorithm) => {
      const limiter = new AdaptiveConcurrency({ algorithm, window: 100, maxQueue: 10 });
      const serving = server(10);
      let open = true;
      const callers = Array.from({ length: 60 }, async () => {
        while (open) {
          await limiter.execute(serving.call).catch(() => new Promise((resolve) => setTimeout(resolve, 20)));
        }
      });
      for (const workers of [10, 5, 10]) {
        serving.workers = workers;
        await pass(6_000);
        expect(limiter.limit).toBeGreaterThanOrEqual(0.75 * workers);
        expect(limiter.limit).toBeLessThanOrEqual(1.5 * workers + 30);
      }
      open = false;
      await pass(2_000);
      await Promise.all(callers);
      expect(limiter).toMatchObject({ inFlight: 0, queued: 0 });
    },
  );
});

describe('the options of an adaptive limiter', () => {
  const partition = () => 'a';
  it.each<[string, Record<string, unknown>]>([
    ['algorithm', { algorithm: 'bbr' }],
    ['algorithm', { algorithm: {} }],
    ['minLimit', { minLimit: 0 }],
    ['maxLimit', { maxLimit: Infinity }],
    ['maxLimit', { minLimit: 10, maxLimit: 9 }],
    ['initialLimit', { initialLimit: 10_001 }],
    ['initialLimit', { initialLimit: 9, minLimit: 10 }],
    ['initialLimit', { initialLimit: 1.5 }],
    ['window', { window: -1 }],
    ['maxQueue', { maxQueue: -1 }],
    ['maxQueue', { maxQueue: 0, partitions: [{ name: 'a', share: 1 }], partition }],
    ['queueTimeout', { queueTimeout: -1 }],
    ['isDropped', { isDropped: true }],
    ['partition', { partitions: [{ name: 'a', share: 1 }] }],
    ['partitions', { partition }],
    ['partitions', { partitions: [], partition }],
    ['partitions', { partitions: { a: 1 }, partition }],
    ['partitions', { partitions: [null], partition }],
    ['name', { partitions: [{ name: '', share: 1 }], partition }],
    ['share', { partitions: [{ name: 'a' }], partition }],
    ['share', { partitions: [{ name: 'a', share: 1.1 }], partition }],
    [
      'sum',
      {
        partitions: [
          { name: 'a', share: 0.6 },
          { name: 'b', share: 0.6 },
        ],
        partition,
      },
    ],
    [
      "'a'",
      {
        partitions: [
          { name: 'a', share: 0.1 },
          { name: 'a', share: 0.1 },
        ],
        partition,
      },
    ],
    ['limit', { limit: 10 }],
  ])('an adaptive limiter names the wrong option %s (%o)', (option, options) => {
    expect(() => new AdaptiveConcurrency(options)).toThrow(option);
  });

  it('an adaptive limiter allows shares that add up to 1 but for a rounding error', () => {
    const partitions = [0.7, 0.2, 0.1].map((share) => ({ name: `${share}`, share }));
    expect(() => new AdaptiveConcurrency({ partitions, partition })).not.toThrow();
  });
});
