import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HedgeLostError } from '../../src/errors.ts';
import { constantBackoff } from '../../src/policies/backoff.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { Hedge } from '../../src/policies/hedge.ts';
import type { Outcome } from '../../src/policies/outcome.ts';
import { compose, type Policy } from '../../src/policies/policy.ts';
import { resilient } from '../../src/policies/resilient.ts';
import { Retry } from '../../src/policies/retry.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { begin, collectWarnings, fakeTime, fling, flush, follow, pass, service } from './helpers.ts';

beforeEach(fakeTime);
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
});

const onDiscard = vi.fn<(value: unknown, context: CallContext) => void>();
beforeEach(() => void onDiscard.mockReset());

const valuesDiscarded = () => onDiscard.mock.calls.map(([value]) => value);

/** Gives each value in turn. */
function giving(...values: unknown[]) {
  return () => values.shift();
}

const unlessFine = (outcome: Outcome<unknown>) => !outcome.ok || outcome.value !== 'fine';

describe('a retry', () => {
  const options = { shouldRetry: unlessFine, backoff: constantBackoff(100), onDiscard };

  it('a retry discards each value that it retries, before the wait, and never its result', async () => {
    const call = follow(new Retry(options).execute(giving('one', 'two', 'three')));
    await flush();
    expect(valuesDiscarded()).toEqual(['one']);
    await pass(200);
    expect(valuesDiscarded()).toEqual(['one', 'two']);
    expect(onDiscard.mock.calls.map(([, { attempt }]) => attempt)).toEqual([1, 2]);
    expect(call.outcome).toEqual({ ok: true, value: 'three' });
  });

  it('a retry tells its listeners of a value before it discards that', async () => {
    const retry = new Retry(options);
    const order: string[] = [];
    onDiscard.mockImplementation(() => void order.push('discard'));
    retry.on('retry', () => void order.push('retry'));
    void retry.execute(giving('one', 'fine'));
    await pass(100);
    expect(order).toEqual(['retry', 'discard']);
  });

  it('a retry discards a value once if its caller cancels during the wait', async () => {
    const controller = new AbortController();
    const call = follow(new Retry(options).execute(() => 'one', { signal: controller.signal }));
    await pass(50);
    controller.abort();
    await flush();
    expect(call.outcome).toMatchObject({ ok: false });
    expect(valuesDiscarded()).toEqual(['one']);
  });

  it.each([
    ['throws', () => fling(new Error('broken'))],
    ['rejects', () => Promise.reject(new Error('broken'))],
  ])('a retry discards the value about which its shouldRetry %s', async (_, shouldRetry) => {
    const call = follow(new Retry({ ...options, shouldRetry }).execute(() => 'one'));
    await flush();
    expect(call.outcome).toMatchObject({ error: { message: 'broken' } });
    expect(valuesDiscarded()).toEqual(['one']);
  });

  it('a retry discards a value about which its shouldRetry still thinks when the caller cancels', async () => {
    const controller = new AbortController();
    const shouldRetry = () => new Promise<boolean>(() => {});
    const retry = new Retry({ ...options, shouldRetry });
    void follow(retry.execute(() => 'one', { signal: controller.signal }));
    await flush();
    controller.abort();
    await flush();
    expect(valuesDiscarded()).toEqual(['one']);
  });
});

describe('a timeout', () => {
  it.each(['its duration', 'the deadline of the call'])(
    'a timeout discards the value that comes after %s',
    async (end) => {
      const byDeadline = end !== 'its duration';
      const timeout = new Timeout(byDeadline ? 1_000 : 100, { onDiscard });
      const { call, operation } = begin(timeout, byDeadline ? { deadline: performance.now() + 100 } : {});
      await pass(100);
      expect(call.outcome).toMatchObject({ ok: false });
      operation.resolve('late');
      await flush();
      expect(valuesDiscarded()).toEqual(['late']);
    },
  );

  it('a timeout discards the value that comes after its caller has cancelled', async () => {
    const controller = new AbortController();
    const { operation } = begin(new Timeout(100, { onDiscard }), { signal: controller.signal });
    controller.abort();
    operation.resolve('late');
    await pass(100);
    expect(valuesDiscarded()).toEqual(['late']);
  });

  it('a timeout hands out a value in time, and one that it waits for', async () => {
    const inTime = begin(new Timeout(100, { onDiscard }));
    inTime.operation.resolve('in time');
    const awaited = begin(new Timeout(100, { onDiscard, strict: false }));
    await pass(100);
    awaited.operation.resolve('late');
    await flush();
    expect(inTime.call.outcome).toEqual({ ok: true, value: 'in time' });
    expect(awaited.call.outcome).toEqual({ ok: true, value: 'late' });
    expect(onDiscard).not.toHaveBeenCalled();
  });
});

describe('a hedge', () => {
  const options = { delay: 10, onDiscard };

  it('a hedge discards the value of a loser', async () => {
    const { calls, operation } = service();
    const call = follow(new Hedge(options).execute(operation));
    await pass(10);
    calls[1]!.resolve('second');
    await flush();
    expect(calls[0]!.context.signal.reason).toBeInstanceOf(HedgeLostError);
    calls[0]!.resolve('first');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'second' });
    expect(onDiscard.mock.calls).toEqual([['first', expect.objectContaining({ attempt: 1 })]]);
  });

  it('a hedge discards a failed value once another attempt succeeds, fails too, or the call is cancelled', async () => {
    for (const end of ['fine', 'worse', 'cancel'] as const) {
      onDiscard.mockClear();
      const { calls, operation } = service();
      const controller = new AbortController();
      const hedge = new Hedge({ ...options, isFailure: unlessFine });
      const call = follow(hedge.execute(operation, { signal: controller.signal }));
      await pass(10);
      calls[0]!.resolve('bad');
      await flush();
      if (end === 'cancel') controller.abort();
      else calls[1]!.resolve(end);
      await flush();
      expect(valuesDiscarded(), end).toEqual(['bad']);
      if (end !== 'cancel') expect(call.outcome).toEqual({ ok: true, value: end });
      calls[1]!.resolve('late');
      await flush();
      expect(valuesDiscarded(), end).toEqual(end === 'cancel' ? ['bad', 'late'] : ['bad']);
    }
  });
});

it.each([
  ['throws', () => fling(new Error('broken'))],
  ['rejects', () => Promise.reject(new Error('broken'))],
])('an onDiscard that %s becomes a process warning, and its call goes on', async (_, broken) => {
  const collected = collectWarnings('HoldfastListenerWarning');
  onDiscard.mockImplementation(broken as never);
  const retry = new Retry({ shouldRetry: unlessFine, backoff: constantBackoff(0), onDiscard });
  expect(await retry.execute(giving('one', 'fine'))).toBe('fine');
  await flush();
  await collected.stop();
  expect(collected.warnings).toHaveLength(1);
  expect(collected.warnings[0]!.message).toContain('broken');
});

it('a function for the values of its own operation is an onDiscard', async () => {
  const cancelled: string[] = [];
  const cancel = (response: { name: string }) => void cancelled.push(response.name);
  const retry = new Retry({ maxAttempts: 2, shouldRetry: () => true, backoff: () => 0, onDiscard: cancel });
  await retry.execute(giving({ name: 'first' }, { name: 'second' }));
  expect(cancelled).toEqual(['first']);
});

interface Attempt {
  readonly takes: number;
  readonly ends: 'fine' | 'bad' | 'throws';
}

const attempts = fc.array(
  fc.record<Attempt>({
    takes: fc.integer({ min: 0, max: 120 }),
    ends: fc.constantFrom('fine', 'bad', 'throws'),
  }),
  { minLength: 12, maxLength: 12 },
);

type Make = () => Policy;
const isBad = ({ ok, ...rest }: Outcome<unknown>) =>
  !ok || (rest as { value: string }).value.startsWith('bad');
const retry: Make = () => new Retry({ shouldRetry: isBad, backoff: constantBackoff(20), onDiscard });
const hedge: Make = () => new Hedge({ delay: 15, maxHedges: 2, isFailure: isBad, onDiscard });
const timeout =
  (duration: number): Make =>
  () =>
    new Timeout(duration, { onDiscard });
const compositions: Make[] = [
  () =>
    resilient({
      timeout: 200,
      attemptTimeout: 50,
      retry: { shouldRetry: isBad, backoff: constantBackoff(20) },
      circuitBreaker: false,
      onDiscard,
    }),
  () => compose(timeout(150)(), retry(), new CircuitBreaker(), hedge(), timeout(60)()),
  () => compose(hedge(), timeout(40)()),
  () => compose(timeout(70)(), hedge()),
  () => compose(retry(), timeout(30)()),
];

it('every value reaches the caller or is discarded, once, however calls time out, are retried, hedged and cancelled', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...compositions),
      attempts,
      fc.option(fc.integer({ min: 0, max: 200 }), { nil: undefined }),
      async (make, script, cancelledAt) => {
        onDiscard.mockReset();
        const given: string[] = [];
        const left = [...script];
        const controller = new AbortController();
        const call = follow(
          make().execute(
            async () => {
              const { takes, ends } = left.shift() ?? { takes: 0, ends: 'fine' };
              await new Promise((resolve) => setTimeout(resolve, takes));
              if (ends === 'throws') throw new Error('down');
              given.push(`${ends} ${given.length}`);
              return given.at(-1);
            },
            { signal: controller.signal },
          ),
        );
        if (cancelledAt !== undefined) {
          await pass(cancelledAt);
          controller.abort();
        }
        await vi.runAllTimersAsync();
        const delivered = call.outcome?.ok === true ? [call.outcome.value] : [];
        expect([...valuesDiscarded(), ...delivered].sort()).toEqual([...given].sort());
      },
    ),
    { numRuns: 300 },
  );
});
