import fc from 'fast-check';
import { beforeEach, expect, it, vi } from 'vitest';
import { CircuitOpenError } from '../../src/errors.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type { CircuitState } from '../../src/policies/circuit-breaker-options.ts';
import { type Deferred, defer, fakeTime, flush, follow } from './helpers.ts';

beforeEach(fakeTime);

interface Settings {
  failureThreshold: number | undefined;
  failureRatio: number | undefined;
  slowCallRatio: number | undefined;
  slowCallDuration: number;
  window: number | { calls: number };
  minimumCalls: number;
  resetTimeout: number | 'growing';
  halfOpen: { calls: number; failureRatio: number } | undefined;
}

interface ModelCall {
  epoch: number;
  at: number;
}

const growing = (openings: number, previous: number) => 20 * openings + previous;

/**
 * Does what the breaker promises in the plainest way: it remembers every call and counts afresh
 * each time.
 */
class Model {
  readonly settings: Settings;
  state: CircuitState = 'closed';
  now = 0;
  /** Goes up at each change of state: calls of an earlier one do not count. */
  epoch = 0;
  history: { at: number; failed: boolean; slow: boolean }[] = [];
  openings = 0;
  wait = 0;
  probeAt = 0;
  probes = 0;
  results: boolean[] = [];

  constructor(settings: Settings) {
    this.settings = settings;
  }

  enter(state: CircuitState): void {
    this.state = state;
    this.epoch++;
    this.history = [];
    this.probes = 0;
    this.results = [];
    if (state === 'closed') {
      this.openings = 0;
      this.wait = 0;
    }
    if (state === 'open') {
      const { resetTimeout } = this.settings;
      this.openings++;
      this.wait = resetTimeout === 'growing' ? growing(this.openings, this.wait) : resetTimeout;
      this.probeAt = this.now + this.wait;
    }
  }

  start(): ModelCall | { retryAfter: number } {
    if (this.state === 'open' && this.now >= this.probeAt) this.enter('half-open');
    if (this.state === 'isolated') return { retryAfter: Infinity };
    if (this.state === 'open') return { retryAfter: this.probeAt - this.now };
    if (this.state === 'half-open') {
      if (this.opensBy(this.failedProbes + this.probes)) return { retryAfter: 0 };
      this.probes++;
    }
    return { epoch: this.epoch, at: this.now };
  }

  cancel(call: ModelCall): void {
    if (call.epoch === this.epoch && this.state === 'half-open') this.probes--;
  }

  finish(call: ModelCall, failed: boolean): void {
    if (call.epoch !== this.epoch) return;
    const { slowCallRatio, slowCallDuration } = this.settings;
    const slow = slowCallRatio !== undefined && this.now - call.at >= slowCallDuration;
    if (this.state === 'half-open') {
      this.probes--;
      this.results.push(failed || slow);
      const toCome = this.halfOpen.calls - this.results.length;
      if (this.opensBy(this.failedProbes)) this.enter('open');
      else if (!this.opensBy(this.failedProbes + toCome)) this.enter('closed');
      return;
    }
    this.history.push({ at: this.now, failed, slow });
    if (this.tooBad()) this.enter('open');
  }

  get failedProbes(): number {
    return this.results.filter((failed) => failed).length;
  }

  get halfOpen(): { calls: number; failureRatio: number } {
    const { halfOpen, failureRatio, slowCallRatio } = this.settings;
    if (halfOpen !== undefined) return halfOpen;
    return { calls: failureRatio === undefined && slowCallRatio === undefined ? 1 : 2, failureRatio: 1 };
  }

  opensBy(failures: number): boolean {
    return failures > 0 && failures >= this.halfOpen.calls * this.halfOpen.failureRatio;
  }

  tooBad(): boolean {
    const { failureThreshold, failureRatio, slowCallRatio, window, minimumCalls } = this.settings;
    const ratios = failureRatio !== undefined || slowCallRatio !== undefined;
    const threshold = failureThreshold ?? (ratios ? Infinity : 5);
    const lastSuccess = this.history.findLastIndex((call) => !call.failed);
    if (this.history.length - 1 - lastSuccess >= threshold) return true;
    const remembered =
      typeof window === 'number'
        ? this.history.filter(({ at }) => sliceOf(at, window) > sliceOf(this.now, window) - 10)
        : this.history.slice(-window.calls);
    const needed = typeof window === 'number' ? minimumCalls : Math.min(minimumCalls, window.calls);
    if (remembered.length < needed) return false;
    const reached = (bad: number, ratio: number | undefined) =>
      ratio !== undefined && bad > 0 && bad >= ratio * remembered.length;
    return (
      reached(remembered.filter((call) => call.failed).length, failureRatio) ||
      reached(remembered.filter((call) => call.slow).length, slowCallRatio)
    );
  }
}

/** A window of time is remembered in tenths. */
function sliceOf(at: number, window: number): number {
  return Math.floor(at / (window / 10));
}

type Command =
  | { do: 'start' }
  | { do: 'isolate' }
  | { do: 'reset' }
  | { do: 'succeed' | 'fail' | 'cancel'; call: number }
  | { do: 'pass'; milliseconds: number };

const settings: fc.Arbitrary<Settings> = fc.record({
  failureThreshold: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
  failureRatio: fc.option(fc.constantFrom(0, 0.25, 0.5, 1), { nil: undefined }),
  slowCallRatio: fc.option(fc.constantFrom(0.25, 0.5, 1), { nil: undefined }),
  slowCallDuration: fc.integer({ min: 1, max: 40 }),
  window: fc.oneof(
    fc.constantFrom(20, 100, 300),
    fc.integer({ min: 1, max: 8 }).map((calls) => ({ calls })),
  ),
  minimumCalls: fc.integer({ min: 1, max: 6 }),
  resetTimeout: fc.oneof(fc.constant('growing' as const), fc.integer({ min: 0, max: 60 })),
  halfOpen: fc.option(
    fc.record({
      calls: fc.integer({ min: 1, max: 5 }),
      failureRatio: fc.constantFrom(0, 0.3, 0.5, 1),
    }),
    { nil: undefined },
  ),
});

const call = fc.nat({ max: 7 });
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 8, arbitrary: fc.constant({ do: 'start' as const }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('succeed' as const), call }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('fail' as const), call }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), call }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('pass' as const), milliseconds: fc.integer({ min: 1, max: 70 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      { do: 'isolate' as const },
      { do: 'reset' as const },
      { do: 'reset' as const },
    ),
  },
);

interface Running {
  model: ModelCall;
  operation: Deferred<unknown>;
  controller: AbortController;
}

it('a breaker does what its model does, with calls that begin, end and are cancelled in any order', async () => {
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      settings,
      fc.array(command, { maxLength: 80, size: 'max' }),
      async (options, commands) => {
        const model = new Model(options);
        const { resetTimeout, ...rest } = options;
        const breaker = new CircuitBreaker({
          ...rest,
          resetTimeout: resetTimeout === 'growing' ? growing : resetTimeout,
        });
        const origin = performance.now();
        // The slices of a time window begin at multiples of its tenth.
        model.now = origin;
        let running: Running[] = [];
        const abandoned: Deferred<unknown>[] = [];
        const probesUnderWay = () => running.filter(({ model: { epoch } }) => epoch === model.epoch).length;

        for (const next of commands) {
          if (next.do === 'start') {
            const operation = defer();
            const controller = new AbortController();
            let admitted = false;
            const followed = follow(
              breaker.execute(
                () => {
                  admitted = true;
                  return operation.promise;
                },
                { signal: controller.signal },
              ),
            );
            const expected = model.start();
            await flush();
            expect(admitted).toBe(!('retryAfter' in expected));
            if ('retryAfter' in expected) {
              const error = followed.outcome?.ok === false ? followed.outcome.error : undefined;
              expect(error).toBeInstanceOf(CircuitOpenError);
              expect((error as CircuitOpenError).retryAfter).toBeCloseTo(expected.retryAfter, 6);
            } else {
              running.push({ model: expected, operation, controller });
            }
          } else if (next.do === 'pass') {
            vi.advanceTimersByTime(next.milliseconds);
            model.now += next.milliseconds;
          } else if (next.do === 'isolate') {
            breaker.isolate();
            if (model.state !== 'isolated') model.enter('isolated');
          } else if (next.do === 'reset') {
            breaker.reset();
            model.enter('closed');
          } else if (running.length > 0) {
            const chosen = running[next.call % running.length]!;
            running = running.filter((other) => other !== chosen);
            if (next.do === 'cancel') {
              chosen.controller.abort();
              model.cancel(chosen.model);
              abandoned.push(chosen.operation);
            } else {
              if (next.do === 'succeed') chosen.operation.resolve('fine');
              else chosen.operation.reject(new Error('down'));
              model.finish(chosen.model, next.do === 'fail');
            }
            await flush();
          }
          expect(breaker.state).toBe(model.state);
          if (model.state === 'half-open') {
            expect(probesUnderWay()).toBe(model.probes);
            expect(model.probes + model.results.length).toBeLessThanOrEqual(model.halfOpen.calls);
          }
          seen.add(`${next.do} when ${model.state}`);
        }

        // However cancelled operations end, and whenever: nothing changes.
        for (const operation of abandoned) operation.reject(new Error('too late'));
        await flush();
        expect(breaker.state).toBe(model.state);
        if (options.slowCallRatio !== undefined) vi.advanceTimersByTime(options.slowCallDuration);
        expect(vi.getTimerCount()).toBe(0);
      },
    ),
    { numRuns: 400 },
  );
  // The runs reach every state by every kind of command.
  for (const what of ['start', 'succeed', 'fail', 'cancel', 'pass'] as const) {
    for (const state of ['closed', 'open', 'half-open', 'isolated'] as const) {
      expect(seen).toContain(`${what} when ${state}`);
    }
  }
});
