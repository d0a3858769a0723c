import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { AbortScope, OnAbort, toAbortable } from '../../src/policies/abort.ts';
import { listenersOn } from './helpers.ts';

describe("a caller's signal that many calls share", () => {
  it("a caller's signal that many calls share carries one listener while anyone waits, and none otherwise", () => {
    const { signal } = new AbortController();
    const abortable = toAbortable(signal);
    const listeners = Array.from({ length: 100 }, () => new OnAbort(() => {}));
    expect(listenersOn(signal)).toBe(0);
    for (const listener of listeners) abortable.listen(listener);
    expect(listenersOn(signal)).toBe(1);
    for (const listener of listeners) abortable.unlisten(listener);
    expect(listenersOn(signal)).toBe(0);
  });

  it("a caller's signal that many calls share is the same one for every call", () => {
    const { signal } = new AbortController();
    expect(toAbortable(signal)).toBe(toAbortable(signal));
    expect(toAbortable(signal)).not.toBe(toAbortable(new AbortController().signal));
  });

  it("a caller's signal that many calls share tells everyone once, in order, with its reason", () => {
    const controller = new AbortController();
    const abortable = toAbortable(controller.signal);
    const told: unknown[] = [];
    for (let i = 0; i < 3; i++) abortable.listen(new OnAbort((reason) => told.push([i, reason])));
    controller.abort('why');
    controller.abort('again');
    expect(told).toEqual([
      [0, 'why'],
      [1, 'why'],
      [2, 'why'],
    ]);
    expect(listenersOn(controller.signal)).toBe(0);
    expect(abortable).toMatchObject({ aborted: true, reason: 'why' });
  });

  it("a caller's signal that many calls share does not tell one that another has made leave meanwhile", () => {
    const controller = new AbortController();
    const abortable = toAbortable(controller.signal);
    const second = new OnAbort(vi.fn());
    abortable.listen(new OnAbort(() => abortable.unlisten(second)));
    abortable.listen(second);
    controller.abort();
    expect(second.onAbort).not.toHaveBeenCalled();
  });

  it("a caller's signal that many calls share tells exactly those who listen, whoever came and went before", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(9)), { maxLength: 60 }), (steps) => {
        const controller = new AbortController();
        const abortable = toAbortable(controller.signal);
        const told = new Set<number>();
        const listening = new Set<number>();
        const listeners = Array.from({ length: 10 }, (_, index) => new OnAbort(() => told.add(index)));
        for (const [join, index] of steps) {
          if (join && !listening.has(index)) {
            listening.add(index);
            abortable.listen(listeners[index]!);
          } else if (!join) {
            listening.delete(index);
            abortable.unlisten(listeners[index]!);
          }
          expect(listenersOn(controller.signal)).toBe(listening.size === 0 ? 0 : 1);
        }
        controller.abort();
        expect([...told].sort()).toEqual([...listening].sort());
      }),
    );
  });
});

describe('a part of a call that can be aborted by itself', () => {
  it('a part of a call that can be aborted by itself is aborted with the call that it belongs to, and tells its owner first', () => {
    const controller = new AbortController();
    const told: unknown[] = [];
    const scope = new AbortScope(
      toAbortable(controller.signal),
      new OnAbort((reason) => told.push(['owner', reason])),
    );
    scope.listen(new OnAbort((reason) => told.push(['listener', reason])));
    scope.signal.addEventListener('abort', () => told.push(['signal', scope.signal.reason]));
    controller.abort('why');
    expect(told).toEqual([
      ['owner', 'why'],
      ['signal', 'why'],
      ['listener', 'why'],
    ]);
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a part of a call that can be aborted by itself is aborted once', () => {
    const owner = vi.fn();
    const scope = new AbortScope(undefined, new OnAbort(owner));
    scope.abort('first');
    scope.abort('second');
    expect(owner).toHaveBeenCalledExactlyOnceWith('first');
    expect(scope.reason).toBe('first');
  });

  it('a part of a call that can be aborted by itself does not hear the call any more once it has ended', () => {
    const controller = new AbortController();
    const owner = vi.fn();
    const scope = new AbortScope(toAbortable(controller.signal), new OnAbort(owner));
    scope.end();
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort();
    expect(owner).not.toHaveBeenCalled();
    scope.end();
  });

  it('a part of a call that can be aborted by itself tells exactly those who listen, each once, whoever came and went before', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(4)), { maxLength: 40 }), (steps) => {
        const scope = new AbortScope(undefined, new OnAbort(() => {}));
        const told: number[] = [];
        const listening = new Set<number>();
        const listeners = Array.from({ length: 5 }, (_, index) => new OnAbort(() => void told.push(index)));
        for (const [join, index] of steps) {
          if (join && !listening.has(index)) scope.listen(listeners[index]!);
          else if (!join) scope.unlisten(listeners[index]!);
          if (join) listening.add(index);
          else listening.delete(index);
        }
        scope.abort('why');
        expect(told.sort()).toEqual([...listening].sort());
        expect(listeners.some((listener) => listener.listening)).toBe(false);
      }),
    );
  });

  it('a part of a call that can be aborted by itself gives an aborted signal if asked only after the abort', () => {
    const scope = new AbortScope(undefined, new OnAbort(() => {}));
    scope.abort('why');
    expect(scope.signal).toMatchObject({ aborted: true, reason: 'why' });
    expect(scope.signal).toBe(scope.signal);
  });
});
