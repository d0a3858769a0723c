import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Coalesce } from '../../src/policies/coalesce.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  type Deferred,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  id,
  listenersOn,
  pass,
  rejectionOf,
  service,
} from './helpers.ts';

beforeEach(fakeTime);

const byId = () => new Coalesce({ key: ({ attributes }) => attributes.id as string | undefined });

describe('calls with the same key at the same time', () => {
  it('calls with the same key at the same time share one, and all get its value', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const callers = [1, 2, 3].map(() => follow(coalesce.execute(operation, id('u1'))));
    const value = {};
    calls[0]!.resolve(value);
    await flush();
    expect(calls).toHaveLength(1);
    for (const caller of callers) expect((caller.outcome as { value: unknown }).value).toBe(value);
  });

  it.each(['rejects', 'throws'])(
    'calls with the same key at the same time all get the error where it %s',
    async (how) => {
      const coalesce = byId();
      const error = new Error('down');
      const operation = vi.fn(() => (how === 'throws' ? fling(error) : Promise.reject(error)));
      const callers = [1, 2].map(() => follow(coalesce.execute(operation, id('u1'))));
      await flush();
      expect(operation).toHaveBeenCalledTimes(1);
      expect(callers.map((caller) => caller.outcome)).toEqual([
        { ok: false, error },
        { ok: false, error },
      ]);
      expect(coalesce.inFlight).toBe(0);
    },
  );

  it('a Coalesce emits an event for each call that joins', async () => {
    const coalesce = byId();
    const told = vi.fn();
    coalesce.on('join', told);
    const { calls, operation } = service();
    for (const name of ['u1', 'u1', 'u2', 'u1']) follow(coalesce.execute(operation, id(name)));
    expect(told.mock.calls).toEqual([
      [{ key: 'u1', attributes: { id: 'u1' } }],
      [{ key: 'u1', attributes: { id: 'u1' } }],
    ]);
    expect(calls).toHaveLength(2);
    expect(coalesce.inFlight).toBe(2);
  });
});

describe('calls that do not share', () => {
  it('calls with different keys do not share a call', () => {
    const coalesce = byId();
    const { calls, operation } = service();
    for (const name of ['u1', 'u2']) follow(coalesce.execute(operation, id(name)));
    expect(calls).toHaveLength(2);
  });

  it('calls without a key do not share a call, and keep their own signal', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const { signal } = new AbortController();
    for (let i = 0; i < 2; i++) follow(coalesce.execute(operation, { signal }));
    expect(calls).toHaveLength(2);
    expect(calls[0]!.context.signal).toBe(signal);
    expect(coalesce.inFlight).toBe(0);
  });

  it('calls that come after a shared call has ended make their own', async () => {
    const coalesce = byId();
    for (const value of ['first', 'second']) {
      expect(await coalesce.execute(() => value, id('u1'))).toBe(value);
      expect(coalesce.inFlight).toBe(0);
    }
  });

  it('a call whose key function throws fails with its error', async () => {
    const error = new Error('no key');
    const coalesce = new Coalesce({ key: () => fling(error) });
    expect(await rejectionOf(coalesce.execute(() => 1))).toBe(error);
  });
});

describe('a caller that cancels', () => {
  it('a caller of a shared call that cancels is released at once with its reason, and the others get the value', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const leader = new AbortController();
    const follower = new AbortController();
    const left = follow(coalesce.execute(operation, id('u1', { signal: leader.signal })));
    const leftToo = follow(coalesce.execute(operation, id('u1', { signal: follower.signal })));
    const stays = follow(coalesce.execute(operation, id('u1')));
    leader.abort('changed my mind');
    follower.abort('me too');
    await flush();
    expect([left.outcome, leftToo.outcome, stays.outcome]).toEqual([
      { ok: false, error: 'changed my mind' },
      { ok: false, error: 'me too' },
      undefined,
    ]);
    expect(calls[0]!.context.signal.aborted).toBe(false);
    calls[0]!.resolve('value');
    await flush();
    expect(stays.outcome).toEqual({ ok: true, value: 'value' });
  });

  it('a caller that cancels aborts the shared call, with its reason, if it is the last', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const controllers = [new AbortController(), new AbortController()];
    for (const { signal } of controllers) follow(coalesce.execute(operation, id('u1', { signal })));
    controllers[0]!.abort('first');
    expect(calls[0]!.context.signal.aborted).toBe(false);
    controllers[1]!.abort('last');
    expect(calls[0]!.context.signal.reason).toBe('last');
    expect(coalesce.inFlight).toBe(0);
    calls[0]!.reject(new Error('nobody hears this'));
    await flush();
  });

  it('a caller that cancels is released before the shared call is aborted', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const controller = new AbortController();
    const order: string[] = [];
    void coalesce
      .execute(operation, id('u1', { signal: controller.signal }))
      .catch((reason) => order.push(`caller: ${reason}`));
    let again: ReturnType<typeof follow> | undefined;
    calls[0]!.context.signal.addEventListener('abort', () => {
      again = follow(coalesce.execute(operation, id('u1')));
    });
    controller.abort('gone');
    await flush();
    expect(order).toEqual(['caller: gone']);
    // Whoever calls from the abort of the old makes a new one.
    expect(calls).toHaveLength(2);
    expect(calls[1]!.context.signal.aborted).toBe(false);
    expect(again!.outcome).toBeUndefined();
  });

  it('a caller of a shared call that cancels may share its signal with all the others', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const controller = new AbortController();
    const callers = [1, 2, 3].map(() =>
      follow(coalesce.execute(operation, id('u1', { signal: controller.signal }))),
    );
    controller.abort('all');
    await flush();
    for (const caller of callers) expect(caller.outcome).toEqual({ ok: false, error: 'all' });
    expect(calls[0]!.context.signal.aborted).toBe(true);
  });

  it('a caller of a shared call that cancels makes no call if it has cancelled before', async () => {
    const coalesce = byId();
    const operation = vi.fn();
    const signal = AbortSignal.abort('before');
    expect(await rejectionOf(coalesce.execute(operation, id('u1', { signal })))).toBe('before');
    expect(operation).not.toHaveBeenCalled();
  });

  it('a caller of a shared call that cancels leaves no listener and no timer behind, nor does one that gets its value', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const controllers = [new AbortController(), new AbortController()];
    for (const { signal } of controllers) {
      follow(coalesce.execute(operation, id('u1', { signal, deadline: performance.now() + 1_000 })));
    }
    controllers[0]!.abort();
    expect(listenersOn(controllers[0]!.signal)).toBe(0);
    expect(vi.getTimerCount()).toBe(1);
    calls[0]!.resolve('value');
    await flush();
    expect(listenersOn(controllers[1]!.signal)).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('after all have left', () => {
  it('after all callers of a shared call have left, the next makes a new one, which a late result does not reach', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const controller = new AbortController();
    follow(coalesce.execute(operation, id('u1', { signal: controller.signal })));
    controller.abort();
    const next = follow(coalesce.execute(operation, id('u1')));
    calls[0]!.resolve('late');
    await flush();
    expect(next.outcome).toBeUndefined();
    // The late one has not taken the place of the new one either.
    const joined = follow(coalesce.execute(operation, id('u1')));
    expect(calls).toHaveLength(2);
    calls[1]!.resolve('new');
    await flush();
    expect([next.outcome, joined.outcome]).toEqual([
      { ok: true, value: 'new' },
      { ok: true, value: 'new' },
    ]);
  });
});

describe('the deadline', () => {
  it('the deadline of one caller of a shared call ends its own wait alone, even that of the first', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const first = follow(coalesce.execute(operation, id('u1', { deadline: performance.now() + 50 })));
    const second = follow(coalesce.execute(operation, id('u1', { deadline: performance.now() + 100 })));
    const third = follow(coalesce.execute(operation, id('u1')));
    expect(calls[0]!.context.deadline).toBe(Infinity);
    await pass(50);
    expect(first.outcome).toMatchObject({ ok: false, error: { code: 'ERR_DEADLINE_EXCEEDED', timeout: 50 } });
    expect(second.outcome).toBeUndefined();
    await pass(50);
    expect(second.outcome).toMatchObject({ ok: false, error: { code: 'ERR_DEADLINE_EXCEEDED' } });
    calls[0]!.resolve('value');
    await flush();
    expect(third.outcome).toEqual({ ok: true, value: 'value' });
  });

  it('the deadline of the last caller aborts the shared call', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    follow(coalesce.execute(operation, id('u1', { deadline: performance.now() + 50 })));
    await pass(50);
    expect(calls[0]!.context.signal.reason).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
  });

  it('a caller whose deadline has passed makes no shared call, and joins none', async () => {
    const coalesce = byId();
    const operation = vi.fn(() => defer().promise);
    const late = () => rejectionOf(coalesce.execute(operation, id('u1', { deadline: performance.now() })));
    expect(await late()).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
    expect(operation).not.toHaveBeenCalled();
    follow(coalesce.execute(operation, id('u1')));
    expect(await late()).toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
    expect(coalesce.inFlight).toBe(1);
  });

  it('the deadline of each caller of a shared call is watched by its own enclosing Timeout alone, if there is one', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const hasty = follow(compose(new Timeout(50), coalesce).execute(operation, id('u1')));
    const patient = follow(compose(new Timeout(500), coalesce).execute(operation, id('u1')));
    expect(vi.getTimerCount()).toBe(2);
    await pass(50);
    expect(hasty.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
    calls[0]!.resolve('value');
    await flush();
    expect(patient.outcome).toEqual({ ok: true, value: 'value' });
  });

  it('the deadline of a caller of a shared call may be further away than a timer reaches', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const call = follow(coalesce.execute(operation, id('u1', { deadline: 1e12 })));
    await pass(1_000);
    calls[0]!.resolve('value');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'value' });
  });
});

describe('forget', () => {
  it('forget() lets the next caller make its own call; waiting callers get the result of theirs', async () => {
    const coalesce = byId();
    const { calls, operation } = service();
    const before = follow(coalesce.execute(operation, id('u1')));
    coalesce.forget('u1');
    const after = follow(coalesce.execute(operation, id('u1')));
    calls[0]!.resolve('old');
    await flush();
    expect([before.outcome, after.outcome]).toEqual([{ ok: true, value: 'old' }, undefined]);
    // The end of the old one has not opened the place of the new one.
    follow(coalesce.execute(operation, id('u1')));
    expect(calls).toHaveLength(2);
  });
});

it('a Coalesce never has two operations under way for a key, and gives each caller its result, with any behaviour of callers', async () => {
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('call' as const), which: fc.nat(2) }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constantFrom('succeed' as const, 'fail' as const), which: fc.nat(9) }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('cancel' as const), which: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), which: fc.nat(40) }) },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(command, fc.boolean()), { maxLength: 60, size: 'max' }),
      async (commands) => {
        const coalesce = byId();
        interface Operation extends Deferred<unknown> {
          key: string;
          context: CallContext;
          ended: boolean;
        }
        const operations: Operation[] = [];
        const callers: {
          call: ReturnType<typeof follow>;
          shares: Operation;
          controller: AbortController;
          left: boolean;
          deadline: number;
        }[] = [];
        const underWay = () => operations.filter(({ ended, context }) => !ended && !context.signal.aborted);
        for (const [{ do: what, which }, pause] of commands) {
          if (what === 'call') {
            const key = `k${which}`;
            const controller = new AbortController();
            const deadline = which === 0 ? performance.now() + 30 : Infinity;
            const call = follow(
              coalesce.execute(
                (context) => {
                  const operation = Object.assign(defer(), { key, context, ended: false });
                  operations.push(operation);
                  return operation.promise;
                },
                id(key, { signal: controller.signal, deadline }),
              ),
            );
            const shares = operations.findLast((operation) => operation.key === key)!;
            callers.push({ call, shares, controller, left: false, deadline });
          } else if (what === 'cancel') {
            const waiting = callers.filter(({ left, shares }) => !left && !shares.ended);
            const chosen = waiting[which % waiting.length];
            if (chosen !== undefined) {
              chosen.left = true;
              chosen.controller.abort('left');
            }
          } else if (what === 'pass') {
            vi.advanceTimersByTime(which);
            for (const caller of callers) {
              if (!caller.shares.ended && performance.now() >= caller.deadline) caller.left = true;
            }
          } else {
            // Those that were abandoned may still end.
            const open = operations.filter(({ ended }) => !ended);
            const chosen = open[which % open.length];
            if (chosen !== undefined) {
              if (what === 'succeed') chosen.resolve(chosen);
              else chosen.reject(chosen);
              await flush();
              chosen.ended = true;
            }
          }
          if (pause) await flush();
          const keys = underWay().map(({ key }) => key);
          expect(new Set(keys).size).toBe(keys.length);
          expect(coalesce.inFlight).toBe(keys.length);
        }
        await flush();
        for (const { call, shares, left } of callers) {
          if (left) expect(call.outcome).toMatchObject({ ok: false });
          else if (!shares.ended) expect(call.outcome).toBeUndefined();
          else expect(Object.values(call.outcome!)[1]).toBe(shares);
          if (left) expect(Object.values(call.outcome!)[1]).not.toBe(shares);
        }
        for (const operation of underWay()) operation.resolve('end');
        await flush();
        expect(coalesce.inFlight).toBe(0);
        expect(vi.getTimerCount()).toBe(0);
        for (const { controller } of callers) expect(listenersOn(controller.signal)).toBe(0);
      },
    ),
    { numRuns: 200 },
  );
});

describe('the options', () => {
  it.each<[string, Record<string, unknown>]>([
    ['key', {}],
    ['key', { key: 'id' }],
    ['keys', { key: () => 'k', keys: 1 }],
  ])('a Coalesce names the wrong option %s (%o)', (option, options) => {
    expect(() => new Coalesce(options as never)).toThrow(option);
  });
});
