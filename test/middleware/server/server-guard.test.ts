import { beforeEach, describe, expect, it, vi } from 'vitest';
import { currentRequestContext } from '../../../src/client/propagation.ts';
import { Admission } from '../../../src/middleware/server/admission.ts';
import { EventLoopDelay } from '../../../src/middleware/server/event-loop-delay.ts';
import { Health } from '../../../src/middleware/server/health.ts';
import type { IncomingRequest } from '../../../src/middleware/server/incoming-request.ts';
import type { ReadyAnswer } from '../../../src/middleware/server/ready-answer.ts';
import { ServerGuard, type ServerGuardOptions } from '../../../src/middleware/server/server-guard.ts';
import { AbortScope } from '../../../src/policies/abort.ts';
import { AdaptiveConcurrency } from '../../../src/policies/adaptive-concurrency.ts';
import type { LimitSample } from '../../../src/policies/concurrency-limit.ts';
import { fakeTime, fling, flush, pass } from '../../policies/helpers.ts';

beforeEach(fakeTime);

function exchange(request: Partial<IncomingRequest> = {}) {
  const gone = new AbortScope(undefined, { onAbort() {} });
  const body = { observe: () => {}, read: async () => {} };
  return { request: { method: 'GET', path: '/', headers: {}, ...request }, target: '/', gone, body };
}

const timeout = (milliseconds: number) => ({ headers: { 'x-request-timeout': String(milliseconds) } });

function bodyOf(decision: unknown): { code?: string } {
  return JSON.parse((decision as ReadyAnswer).body as string);
}

/** A request that waits, and what was decided of it, if anything. */
function waiting(guard: ServerGuard, request?: Partial<IncomingRequest>) {
  const asked = exchange(request);
  const followed: { gone: AbortScope; decision: unknown } = { gone: asked.gone, decision: undefined };
  void Promise.resolve(guard.admit(asked)).then((decision) => {
    followed.decision = decision;
  });
  return followed;
}

function admit(guard: ServerGuard, request?: Partial<IncomingRequest>): Admission {
  const decision = guard.admit(exchange(request));
  expect(decision).toBeInstanceOf(Admission);
  return decision as Admission;
}

describe('deadlines', () => {
  it('a request that still has time is let through, with its deadline as context', () => {
    const admission = admit(new ServerGuard(), timeout(100));
    expect(admission.run(currentRequestContext)).toMatchObject({ deadline: performance.now() + 100 });
  });

  it('one whose deadline is past is refused with 504, and told to listeners', () => {
    const guard = new ServerGuard();
    const refused: unknown[] = [];
    guard.on('refuse', (event) => refused.push(event));
    const decision = guard.admit(exchange(timeout(0)));
    expect(decision).toMatchObject({ status: 504 });
    expect(bodyOf(decision)).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED', status: 504 });
    expect(refused).toMatchObject([{ refusal: { status: 504 }, request: { path: '/' } }]);
  });

  it.each(['GET', 'HEAD'])('a %s of a probe is let through all the same', (method) => {
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
  ])('a %s of %s is no probe, and is refused as any', (method, path) => {
    expect(new ServerGuard().admit(exchange({ method, path, ...timeout(0) }))).toMatchObject({ status: 504 });
  });

  it('a POST below /health has its idempotency key, as any', () => {
    const decision = new ServerGuard({ idempotency: { required: true } }).admit(
      exchange({ method: 'POST', path: '/health/records' }),
    );
    expect(decision).toMatchObject({ status: 400 });
  });

  it('the probes of a Health with a prefix of its own are let through where the guard is told', () => {
    const health = new Health({ prefix: '/internal' });
    const guard = new ServerGuard({ exempt: health.isProbe });
    admit(guard, { path: '/internal/ready', ...timeout(0) });
    for (const request of [{ path: '/health/ready' }, { path: '/internal/ready', method: 'POST' }]) {
      expect(guard.admit(exchange({ ...request, ...timeout(0) }))).toMatchObject({ status: 504 });
    }
  });

  it('events tell of a request nothing but its method and its path', () => {
    const guard = new ServerGuard();
    const events: unknown[] = [];
    guard.on('refuse', (event) => events.push(event.request));
    void guard.admit(exchange({ headers: { authorization: 'secret', 'x-request-timeout': '0' } }));
    expect(events).toEqual([{ method: 'GET', path: '/' }]);
  });

  it('what is exempt is as the application says', () => {
    const guard = new ServerGuard({ exempt: ({ path }) => path === '/ping' });
    admit(guard, { path: '/ping', ...timeout(0) });
    expect(guard.admit(exchange({ path: '/health', ...timeout(0) }))).toMatchObject({ status: 504 });
  });
});

describe('with adaptiveConcurrency', () => {
  const one = { initialLimit: 1, maxLimit: 1 };

  it('a place is held until the answer is finished, and given back once', () => {
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

  it('a limiter that the application made is used as it is', () => {
    const limiter = new AdaptiveConcurrency(one);
    const guard = new ServerGuard({ adaptiveConcurrency: limiter });
    expect(guard.adaptiveConcurrency).toBe(limiter);
    admit(guard);
    expect(limiter.inFlight).toBe(1);
  });

  it('a limiter of the application finds method, path and priority in the attributes', () => {
    const seen: unknown[] = [];
    const limiter = new AdaptiveConcurrency({
      partitions: [{ name: 'a', share: 1 }],
      partition: ({ attributes }) => void seen.push(attributes),
    });
    const guard = new ServerGuard({ adaptiveConcurrency: limiter, priorityOf: () => 'checkout' });
    admit(guard, { method: 'POST', path: '/orders' });
    expect(seen).toEqual([{ method: 'POST', path: '/orders', priority: 'checkout' }]);
  });

  it('the most critical of those that wait is next, and takes the place of the least critical in a full queue', async () => {
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

  it('one that waits past its deadline is refused with 504', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    admit(guard);
    const late = waiting(guard, timeout(100));
    await pass(100);
    expect(late.decision).toMatchObject({ status: 504 });
  });

  it('one that gets a place in time has no timer left', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    const first = admit(guard);
    const second = waiting(guard, timeout(100));
    first.finish(200);
    await flush();
    expect(second.decision).toBeInstanceOf(Admission);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('one that waits for longer than queueTimeout is refused with 503', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1, queueTimeout: 50 } });
    admit(guard);
    const late = waiting(guard, timeout(100));
    await pass(50);
    expect(late.decision).toMatchObject({ status: 503 });
  });

  it('one whose client goes leaves the queue', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: { ...one, maxQueue: 1 } });
    const first = admit(guard);
    const second = waiting(guard);
    second.gone.abort(new Error('gone'));
    await flush();
    expect(guard.adaptiveConcurrency!.queued).toBe(0);
    expect(second.decision).toMatchObject({ status: 499 });
    first.finish(200);
    await flush();
    expect(guard.adaptiveConcurrency!.inFlight).toBe(0);
  });

  it('what the application throws while it is asked for the partition comes out', async () => {
    const error = new Error('broken');
    const partitions = [{ name: 'a', share: 1 }];
    const limiter = new AdaptiveConcurrency({ partitions, partition: () => fling(error) });
    await expect(new ServerGuard({ adaptiveConcurrency: limiter }).admit(exchange())).rejects.toBe(error);
  });

  it.each<[string, () => never | Promise<boolean>]>([
    ['throws', () => fling(new Error('isDropped failed'))],
    ['gives a promise', async () => false],
  ])('an isDropped that %s is told of with each request, and its place is free', async (_, isDropped) => {
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
  });

  it('tells of no failure of the guard where a request fails', async () => {
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

  describe('an answer tells the limiter', () => {
    /** Of ten requests, which is what the limiter needs to draw a conclusion. */
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

    it.each([201, 404])('its latency, where its status is %i', async (status) => {
      expect(await samplesOf(status)).toMatchObject([{ rtt: 40, dropped: 0 }]);
    });

    it.each([500, undefined])(
      'nothing, where its status is %s: it failed or the client has gone',
      async (status) => {
        expect(await samplesOf(status)).toEqual([]);
      },
    );

    it.each([200, 500, undefined])('of overload, where it comes too late, with status %s', async (status) => {
      expect(await samplesOf(status, timeout(30))).toMatchObject([{ calls: 10, dropped: 10 }]);
    });
  });
});

describe('with maxEventLoopDelay', () => {
  function late(delay: number, options: ServerGuardOptions = {}) {
    vi.spyOn(EventLoopDelay.prototype, 'current', 'get').mockReturnValue(delay);
    return new ServerGuard({ maxEventLoopDelay: 100, ...options });
  }

  /** The share of requests that are refused, over all chances. */
  function refused(guard: (random: () => number) => ServerGuard, request?: Partial<IncomingRequest>): number {
    let count = 0;
    for (let chance = 0.005; chance < 1; chance += 0.01) {
      if (!(guard(() => chance).admit(exchange(request)) instanceof Admission)) count++;
    }
    return count / 100;
  }

  it.each([
    [0, 0],
    [100, 0],
    [125, 0.25],
    [150, 0.5],
    [200, 1],
    [1_000, 1],
  ])('of requests at a delay of %d ms the share of %d is refused', (delay, share) => {
    expect(refused((random) => late(delay, { random }))).toBeCloseTo(share, 1);
  });

  it('the least critical are refused first', () => {
    const priorities = {
      priorities: ['checkout', 'report'],
      priorityOf: ({ path }: IncomingRequest) => path,
    };
    const guard = (random: () => number) => late(150, { ...priorities, random });
    expect(refused(guard, { path: 'report' })).toBe(1);
    expect(refused(guard, { path: 'checkout' })).toBe(0);
  });

  it('what is exempt is let through', () => {
    admit(late(1_000), { path: '/health/ready' });
  });

  it('the refusal is 503 and says when to come again, by chance', () => {
    const retryAfter = (chance: number, options?: ServerGuardOptions) => {
      const decision = late(1_000, { random: () => chance, ...options }).admit(exchange()) as ReadyAnswer;
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

  it('the delay can be looked at, until the guard is closed', async () => {
    expect(late(40).eventLoopDelay).toBe(40);
    expect(new ServerGuard().eventLoopDelay).toBe(0);
    vi.restoreAllMocks();
    const guard = new ServerGuard({ maxEventLoopDelay: 1 });
    await guard.close();
    await guard.close();
    admit(guard);
  });
});

describe('options', () => {
  const priorityOf = () => 'a';

  it.each([
    [{ maxEventLoopDelay: 0 }, /maxEventLoopDelay/],
    [{ maxEventLoopDelay: true }, /maxEventLoopDelay/],
    [{ priorities: [] }, /priorities/],
    [{ priorities: ['a', 'a'], priorityOf }, /two of one name/],
    [{ priorities: [''], priorityOf }, /name/],
    [{ priorities: ['a'] }, /priorityOf/],
    [{ priorityOf }, /priorities/],
    [{ retryAfter: -1 }, /retryAfter/],
    [{ exempt: '/health' }, /exempt/],
    [{ adaptiveConcurrency: { maxLimit: 0 } }, /maxLimit/],
    [{ maxEventloopDelay: 1 }, /no option 'maxEventloopDelay'/],
  ])('%j is refused', (options, message) => {
    expect(() => new ServerGuard(options as ServerGuardOptions)).toThrow(message);
  });
});
