import { getHeapStatistics } from 'node:v8';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { currentRequestContext } from '../../../../src/client/propagation.ts';
import { systemClock } from '../../../../src/internal/clock.ts';
import { Admission } from '../../../../src/middleware/server/guard/admission.ts';
import { EventLoopDelay } from '../../../../src/middleware/server/guard/event-loop-delay.ts';
import type { IncomingRequest } from '../../../../src/middleware/server/guard/incoming-request.ts';
import type { LocalResponse } from '../../../../src/middleware/server/guard/local-response.ts';
import {
  ServerGuard,
  type ServerGuardOptions,
} from '../../../../src/middleware/server/guard/server-guard.ts';
import { Health } from '../../../../src/middleware/server/lifecycle/health.ts';
import { AbortScope } from '../../../../src/policies/abort.ts';
import { AdaptiveConcurrency } from '../../../../src/policies/adaptive-concurrency.ts';
import type { LimitSample } from '../../../../src/policies/concurrency-limit.ts';
import { collectWarnings, fakeTime, fling, flush, pass } from '../../../policies/helpers.ts';

beforeEach(fakeTime);

function guarded(request: Partial<IncomingRequest> = {}) {
  const disconnected = new AbortScope(undefined, { onAbort() {} });
  const body = { observe: () => {}, read: async () => {}, isCutOff: () => false };
  return { request: { method: 'GET', path: '/', headers: {}, ...request }, target: '/', disconnected, body };
}

const timeout = (milliseconds: number) => ({ headers: { 'x-request-timeout': String(milliseconds) } });

function bodyOf(decision: unknown): { code?: string } {
  return JSON.parse((decision as LocalResponse).body as string);
}

/** Sends a request that waits; gives the decision about it, once there is one. */
function waiting(guard: ServerGuard, request?: Partial<IncomingRequest>) {
  const asked = guarded(request);
  const followed: { disconnected: AbortScope; decision: unknown } = {
    disconnected: asked.disconnected,
    decision: undefined,
  };
  void Promise.resolve(guard.admit(asked)).then((decision) => {
    followed.decision = decision;
  });
  return followed;
}

function admit(guard: ServerGuard, request?: Partial<IncomingRequest>): Admission {
  const decision = guard.admit(guarded(request));
  expect(decision).toBeInstanceOf(Admission);
  return decision as Admission;
}

describe('the admission of a ServerGuard', () => {
  it('a guard lets a request through that has time left, with its deadline as context', () => {
    const admission = admit(new ServerGuard(), timeout(100));
    expect(admission.run(currentRequestContext)).toMatchObject({ deadline: performance.now() + 100 });
  });

  it('a guard rejects a request after its deadline with 504, and tells listeners', () => {
    const guard = new ServerGuard();
    const rejected: unknown[] = [];
    guard.on('reject', (event) => rejected.push(event));
    const decision = guard.admit(guarded(timeout(0)));
    expect(decision).toMatchObject({ status: 504 });
    expect(bodyOf(decision)).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', status: 504 });
    expect(rejected).toMatchObject([{ rejection: { status: 504 }, request: { path: '/' } }]);
  });

  it.each(['GET', 'HEAD'])('a guard lets a %s of a probe through after its deadline', (method) => {
    for (const path of ['/health/live', '/health/ready']) {
      admit(new ServerGuard(), { method, path, ...timeout(0) });
    }
  });

  it.each([
    ['POST', '/health/live'],
    ['PUT', '/health/ready'],
    ['GET', '/health'],
    ['GET', '/health/live/'],
    ['GET', '/health/records/7'],
    ['GET', '/healthy'],
  ])('a guard does not take a %s of %s for a probe, and rejects it after its deadline', (method, path) => {
    expect(new ServerGuard().admit(guarded({ method, path, ...timeout(0) }))).toMatchObject({ status: 504 });
  });

  it('a guard requires the idempotency key of a POST below /health, too', () => {
    const decision = new ServerGuard({ idempotency: { required: true } }).admit(
      guarded({ method: 'POST', path: '/health/records' }),
    );
    expect(decision).toMatchObject({ status: 400 });
  });

  it("a guard lets the probes of a Health with another prefix through if 'exempt' is its isProbe", () => {
    const health = new Health({ prefix: '/internal' });
    const guard = new ServerGuard({ exempt: health.isProbe });
    admit(guard, { path: '/internal/ready', ...timeout(0) });
    for (const request of [{ path: '/health/ready' }, { path: '/internal/ready', method: 'POST' }]) {
      expect(guard.admit(guarded({ ...request, ...timeout(0) }))).toMatchObject({ status: 504 });
    }
  });

  it('the events of a guard tell only the method and the path of a request', () => {
    const guard = new ServerGuard();
    const events: unknown[] = [];
    guard.on('reject', (event) => events.push(event.request));
    void guard.admit(guarded({ headers: { authorization: 'secret', 'x-request-timeout': '0' } }));
    expect(events).toEqual([{ method: 'GET', path: '/' }]);
  });

  it("a guard lets the requests through that 'exempt' decides, and no others", () => {
    const guard = new ServerGuard({ exempt: ({ path }) => path === '/ping' });
    admit(guard, { path: '/ping', ...timeout(0) });
    expect(guard.admit(guarded({ path: '/health', ...timeout(0) }))).toMatchObject({ status: 504 });
  });
});

describe('a ServerGuard with adaptiveConcurrency', () => {
  const one = { initialLimit: 1, maxLimit: 1 };

  it('an admitted request keeps its permit until its response is finished, and gives it back once', () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { initialLimit: 2, maxLimit: 2 } });
    const [first, second] = [admit(guard), admit(guard)];
    expect(guard.adaptiveConcurrency!.inFlight).toBe(2);
    first.finish(200);
    first.finish(200);
    first.finish(undefined);
    return flush().then(() => {
      expect(guard.adaptiveConcurrency!.inFlight).toBe(1);
      second.finish(undefined);
    });
  });

  it('a new guard rejects less than one in a hundred requests of a service that keeps up', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    let rejected = 0;
    const perSecond = 2_000;
    for (let count = 0; count < 5 * perSecond; count++) {
      const decision = guard.admit(guarded());
      if (decision instanceof Admission) setTimeout(() => decision.finish(200), 120);
      else rejected++;
      await vi.advanceTimersByTimeAsync(1_000 / perSecond);
    }
    // Before its first response it can know nothing: it takes in as many requests as initialLimit says.
    expect(rejected - (0.12 * perSecond - 100)).toBeLessThan(0.01 * 60 * perSecond);
    expect(guard.adaptiveConcurrency!.limit).toBeGreaterThan(0.12 * perSecond);
  });

  it('a guard uses an AdaptiveConcurrency that it is given as it is', () => {
    const limiter = new AdaptiveConcurrency(one);
    const guard = new ServerGuard({ adaptiveConcurrency: limiter });
    expect(guard.adaptiveConcurrency).toBe(limiter);
    admit(guard);
    expect(limiter.inFlight).toBe(1);
  });

  it('a guard gives a limiter of the application the method, path and priority of a request as attributes', () => {
    const seen: unknown[] = [];
    const limiter = new AdaptiveConcurrency({
      partitions: [{ name: 'a', share: 1 }],
      partition: ({ attributes }) => void seen.push(attributes),
    });
    const guard = new ServerGuard({ adaptiveConcurrency: limiter, priorityOf: () => 'checkout' });
    admit(guard, { method: 'POST', path: '/orders' });
    expect(seen).toEqual([{ method: 'POST', path: '/orders', priority: 'checkout' }]);
  });

  it('requests of unknown priorities are the least critical, and the guard tells of the first one alone', () => {
    let name = 'checkout';
    const guard = new ServerGuard({ priorities: ['checkout', 'report'], priorityOf: () => name });
    const errors: string[] = [];
    guard.on('decision-error', ({ error }) => errors.push(error.message));
    for (name of ['checkout', 'chekout', 'chekout', 'reprot', 'report']) admit(guard);
    expect(errors).toEqual([
      "ServerGuard option 'priorityOf' must give 'checkout' or 'report', or undefined for 'report'; it gave 'chekout'",
    ]);
  });

  it('a request for which priorityOf gives null has no priority, and the guard tells of nothing', () => {
    const told = vi.fn();
    const limiter = new AdaptiveConcurrency({
      partitions: [{ name: 'a', share: 1 }],
      partition: ({ attributes }) => void told(attributes.priority),
    });
    for (const options of [{ priorities: ['checkout', 'report'] }, { adaptiveConcurrency: limiter }]) {
      const guard = new ServerGuard({ ...options, priorityOf: () => null });
      guard.on('decision-error', told);
      admit(guard);
    }
    expect(told.mock.calls).toEqual([[undefined]]);
  });

  it('the most critical of the waiting requests is admitted first, and displaces the least critical one from a full queue', async () => {
    const guard = new ServerGuard({
      adaptiveConcurrency: { ...one, maxQueue: 2 },
      priorities: ['checkout', { name: 'browse', share: 0 }, 'report'],
      priorityOf: ({ path }) => path.slice(1),
    });
    const first = admit(guard, { path: '/report' });
    const report = waiting(guard, { path: '/report' });
    const browse = waiting(guard, { path: '/browse' });
    const checkout = waiting(guard, { path: '/checkout' });
    await flush();
    expect(report.decision).toMatchObject({ status: 503 });
    first.finish(200);
    await flush();
    expect(checkout.decision).toBeInstanceOf(Admission);
    expect(browse.decision).toBeUndefined();
  });

  it('a guard rejects a request that waits past its deadline with 504', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    admit(guard);
    const late = waiting(guard, timeout(100));
    await pass(100);
    expect(late.decision).toMatchObject({ status: 504 });
  });

  it('a request that gets a permit in time leaves no timer behind', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    const first = admit(guard);
    const second = waiting(guard, timeout(100));
    first.finish(200);
    await flush();
    expect(second.decision).toBeInstanceOf(Admission);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a guard rejects a request that waits for longer than queueTimeout with 503', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1, queueTimeout: 50 } });
    admit(guard);
    const late = waiting(guard, timeout(100));
    await pass(50);
    expect(late.decision).toMatchObject({ status: 503 });
  });

  it('a request leaves the queue when its client disconnects', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    const first = admit(guard);
    const second = waiting(guard);
    second.disconnected.abort(new Error('gone'));
    await flush();
    expect(guard.adaptiveConcurrency!.queued).toBe(0);
    expect(second.decision).toMatchObject({ status: 499 });
    first.finish(200);
    await flush();
    expect(guard.adaptiveConcurrency!.inFlight).toBe(0);
  });

  it("admit() rejects with the error that the limiter's 'partition' throws", async () => {
    const error = new Error('broken');
    const partitions = [{ name: 'a', share: 1 }];
    const limiter = new AdaptiveConcurrency({ partitions, partition: () => fling(error) });
    await expect(new ServerGuard({ adaptiveConcurrency: limiter }).admit(guarded())).rejects.toBe(error);
  });

  it.each<[string, () => never | Promise<boolean>]>([
    ['throws', () => fling(new Error('isDropped failed'))],
    ['gives a promise', async () => false],
  ])(
    "a guard tells of each request whose 'isDropped' %s, and its permit is released",
    async (_, isDropped) => {
      const options = { isDropped, initialLimit: 1, maxLimit: 1, maxQueue: 1 } as never;
      const guard = new ServerGuard({ adaptiveConcurrency: options });
      const failures: unknown[] = [];
      guard.on('decision-error', (event) => failures.push(event));
      const first = admit(guard, { path: '/first' });
      const second = waiting(guard, { path: '/second' });
      first.finish(200);
      await flush();
      expect(second.decision).toBeInstanceOf(Admission);
      (second.decision as Admission).finish(500);
      await flush();
      expect(failures).toMatchObject([
        { error: { message: expect.stringContaining('isDropped') }, request: { path: '/first' } },
        { error: { message: expect.stringContaining('isDropped') }, request: { path: '/second' } },
      ]);
      expect(guard.adaptiveConcurrency!.inFlight).toBe(0);
    },
  );

  it('a guard emits no decision-error when a request fails', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const failures: unknown[] = [];
    guard.on('decision-error', (event) => failures.push(event));
    admit(guard).finish(500);
    admit(guard).finish(undefined);
    const late = admit(guard, timeout(10));
    await pass(20);
    late.finish(200);
    await flush();
    expect(guard.adaptiveConcurrency!.inFlight).toBe(0);
    expect(failures).toEqual([]);
  });

  describe('the response to an admitted request', () => {
    /** The samples of ten requests: the limiter needs as many for one. */
    async function samplesOf(status: number | undefined, request?: Partial<IncomingRequest>) {
      const samples: LimitSample[] = [];
      const next = (limit: number, sample: LimitSample) => {
        samples.push(sample);
        return limit;
      };
      const guard = new ServerGuard({ adaptiveConcurrency: { algorithm: { next }, window: 0 } });
      for (let call = 0; call < 10; call++) {
        const admission = admit(guard, request);
        await pass(40);
        admission.finish(status);
        await flush();
      }
      expect(guard.adaptiveConcurrency!.inFlight).toBe(0);
      return samples;
    }

    it.each([201, 404])('a response of status %i tells the limiter its latency', async (status) => {
      expect(await samplesOf(status)).toMatchObject([{ rtt: 40, dropped: 0 }]);
    });

    it.each([500, undefined])(
      'a response of status %s, which failed or lost its client, tells the limiter nothing',
      async (status) => {
        expect(await samplesOf(status)).toEqual([]);
      },
    );

    it.each([200, 500, undefined])(
      'a response of status %s after the deadline tells the limiter of overload',
      async (status) => {
        expect(await samplesOf(status, timeout(30))).toMatchObject([{ calls: 10, dropped: 10 }]);
      },
    );
  });
});

/** The share of requests that are rejected, over all chances. */
function rejected(guard: (random: () => number) => ServerGuard, request?: Partial<IncomingRequest>): number {
  let count = 0;
  for (let chance = 0.005; chance < 1; chance += 0.01) {
    if (!(guard(() => chance).admit(guarded(request)) instanceof Admission)) count++;
  }
  return count / 100;
}

describe('a ServerGuard with maxEventLoopDelay', () => {
  function late(delay: number, options: ServerGuardOptions = {}) {
    vi.spyOn(EventLoopDelay.prototype, 'current', 'get').mockReturnValue(delay);
    return new ServerGuard({ maxEventLoopDelay: 100, ...options });
  }

  it.each([
    [0, 0],
    [100, 0],
    [125, 0.25],
    [150, 0.5],
    [200, 1],
    [1_000, 1],
  ])('at an event loop delay of %d ms a guard rejects the share %d of requests', (delay, share) => {
    expect(rejected((random) => late(delay, { random }))).toBeCloseTo(share, 1);
  });

  it('a guard rejects the least critical requests first while the event loop is late', () => {
    const priorities = {
      priorities: ['checkout', 'report'],
      priorityOf: ({ path }: IncomingRequest) => path,
    };
    const guard = (random: () => number) => late(150, { ...priorities, random });
    expect(rejected(guard, { path: 'report' })).toBe(1);
    expect(rejected(guard, { path: 'checkout' })).toBe(0);
  });

  it('a guard lets an exempt request through while the event loop is late', () => {
    admit(late(1_000), { path: '/health/ready' });
  });

  it('a guard rejects an excess request with 503 and a Retry-After with jitter', () => {
    const retryAfter = (chance: number, options?: ServerGuardOptions) => {
      const decision = late(1_000, { random: () => chance, ...options }).admit(guarded()) as LocalResponse;
      expect(decision).toMatchObject({ status: 503 });
      expect(bodyOf(decision)).toMatchObject({ code: 'ERR_OVERLOADED' });
      return decision.headers['retry-after'];
    };
    expect([retryAfter(0), retryAfter(0.49), retryAfter(0.51), retryAfter(0.99)]).toEqual([
      '1',
      '1',
      '2',
      '2',
    ]);
    expect([retryAfter(0, { retryAfter: 5_000 }), retryAfter(0.99, { retryAfter: 5_000 })]).toEqual([
      '5',
      '10',
    ]);
    expect(retryAfter(0.5, { retryAfter: 0 })).toBe('1');
  });

  it('a guard tells its event loop delay until it is closed', async () => {
    expect(late(40).eventLoopDelay).toBe(40);
    expect(new ServerGuard().eventLoopDelay).toBe(0);
    vi.restoreAllMocks();
    const guard = new ServerGuard({ maxEventLoopDelay: 1 });
    await guard.close();
    await guard.close();
    admit(guard);
  });
});

describe('a ServerGuard with maxEventLoopUtilization or maxHeapUsedBytes', () => {
  /** Measures this much from now on. */
  function measure({ utilization = 0, heapUsed = 0 }) {
    return {
      eventLoop: vi
        .spyOn(performance, 'eventLoopUtilization')
        .mockReturnValue({ idle: 0, active: 0, utilization }),
      heap: vi.spyOn(process, 'memoryUsage').mockReturnValue({ heapUsed } as NodeJS.MemoryUsage),
    };
  }

  it.each([
    [0.9, 0],
    [0.92, 0.2],
    [0.95, 0.5],
    [1, 1],
  ])(
    'at an event loop utilization of %d a guard rejects the share %d of requests',
    async (utilization, share) => {
      measure({ utilization });
      let chance = 0;
      const guard = new ServerGuard({ maxEventLoopUtilization: 0.9, random: () => chance });
      const random = (given: () => number) => {
        chance = given();
        return guard;
      };
      expect(rejected(random)).toBe(0); // what happened before the first request says nothing
      await pass(499);
      expect(rejected(random)).toBe(0);
      await pass(1);
      expect(rejected(random)).toBeCloseTo(share, 2);
    },
  );

  it.each([
    [1_000, 0],
    [1_025, 0.25],
    [1_050, 0.5],
    [1_100, 0.9],
    [5_000, 0.9],
  ])('with %d bytes of heap in use a guard rejects the share %d of requests', (heapUsed, share) => {
    measure({ heapUsed });
    expect(rejected((random) => new ServerGuard({ maxHeapUsedBytes: 1_000, random }))).toBeCloseTo(share, 2);
  });

  it('a guard takes a sample twice a second at most, and accepts requests again when there is room', async () => {
    const { heap } = measure({ heapUsed: 2_000 });
    const guard = new ServerGuard({ maxHeapUsedBytes: 1_000, random: () => 0 });
    for (let request = 0; request < 3; request++)
      expect(guard.admit(guarded())).not.toBeInstanceOf(Admission);
    heap.mockReturnValue({ heapUsed: 900 } as NodeJS.MemoryUsage);
    await pass(499);
    expect(guard.admit(guarded())).not.toBeInstanceOf(Admission);
    expect(heap).toHaveBeenCalledTimes(1);
    await pass(1);
    admit(guard);
    expect(heap).toHaveBeenCalledTimes(2);
  });

  it('a guard rejects the least critical requests first, and never all, while the heap is full', () => {
    measure({ heapUsed: 2_000 });
    const priorities = {
      priorities: ['checkout', 'report'],
      priorityOf: ({ path }: IncomingRequest) => path,
    };
    const guard = (random: () => number) =>
      new ServerGuard({ maxHeapUsedBytes: 1_000, ...priorities, random });
    expect(rejected(guard, { path: 'report' })).toBe(1);
    expect(rejected(guard, { path: 'checkout' })).toBeCloseTo(0.8, 2);
  });

  it('a guard whose maxHeapUsedBytes the heap cannot reach warns of it, once in a process', async () => {
    const { warnings, stop } = collectWarnings('HoldfastOptionWarning');
    const { heap_size_limit: limit } = getHeapStatistics();
    for (const maxHeapUsedBytes of [limit, limit + 1, limit]) new ServerGuard({ maxHeapUsedBytes });
    new ServerGuard({ maxHeapUsedBytes: limit - 1 });
    await stop();
    expect(warnings.map(({ message }) => message)).toEqual(
      [limit, limit + 1].map((bytes) =>
        expect.stringMatching(`'maxHeapUsedBytes' is ${bytes}, .* ${limit} bytes.*--max-old-space-size`),
      ),
    );
  });

  it('a guard measures nothing that has no limit', () => {
    const { eventLoop, heap } = measure({ utilization: 1, heapUsed: 1e12 });
    const delay = vi.spyOn(EventLoopDelay.prototype, 'current', 'get').mockReturnValue(1_000);
    admit(new ServerGuard());
    admit(
      new ServerGuard({ maxEventLoopUtilization: false, maxHeapUsedBytes: false, maxEventLoopDelay: false }),
    );
    expect([eventLoop, heap, delay].flatMap(({ mock }) => mock.calls)).toEqual([]);
  });

  it('a guard rejects nothing at the highest event loop utilization where all of it is allowed', async () => {
    measure({ utilization: 1 });
    const guard = new ServerGuard({ maxEventLoopUtilization: 1, random: () => 0 });
    admit(guard);
    await pass(500);
    admit(guard);
  });
});

describe('the options of a ServerGuard', () => {
  const priorityOf = () => 'a';

  it.each([
    [{ maxEventLoopDelay: 0 }, /maxEventLoopDelay/],
    [{ maxEventLoopDelay: true }, /maxEventLoopDelay/],
    [{ maxEventLoopUtilization: 1.5 }, /maxEventLoopUtilization/],
    [{ maxHeapUsedBytes: '1g' }, /maxHeapUsedBytes/],
    [{ priorities: [] }, /priorities/],
    [{ priorities: ['a', 'a'], priorityOf }, /two of one name/],
    [{ priorities: [''], priorityOf }, /name/],
    [{ priorities: ['a'] }, /priorityOf/],
    [{ priorityOf }, /priorities/],
    [{ retryAfter: -1 }, /retryAfter/],
    [{ exempt: '/health' }, /exempt/],
    [{ adaptiveConcurrency: { maxLimit: 0 } }, /maxLimit/],
    [{ adaptiveConcurrency: { clock: systemClock } }, /takes no 'clock'/],
    [{ maxEventloopDelay: 1 }, /no option 'maxEventloopDelay'/],
  ])('a guard rejects the options %j', (options, message) => {
    expect(() => new ServerGuard(options as ServerGuardOptions)).toThrow(message);
  });
});
