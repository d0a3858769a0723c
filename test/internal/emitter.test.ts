import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { beforeEach, describe, expect, it, type MockInstance, onTestFinished, vi } from 'vitest';
import { Emitter } from '../../src/internal/emitter.ts';
import { fling, flush } from '../policies/helpers.ts';

interface Events {
  open: [wait: number];
  close: [];
}

let warn: MockInstance<typeof process.emitWarning>;
beforeEach(() => {
  warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
});

describe('a listener', () => {
  it('a listener is told every event with its arguments until it is taken off', () => {
    const emitter = new Emitter<Events>('test');
    const listener = vi.fn();
    expect(emitter.on('open', listener)).toBe(emitter);
    emitter.emit('open', 1);
    emitter.emit('open', 2);
    emitter.off('open', listener);
    emitter.emit('open', 3);
    expect(listener.mock.calls).toEqual([[1], [2]]);
  });

  it('a listener is told one event with once(), and can be taken off before', () => {
    const emitter = new Emitter<Events>('test');
    const told = vi.fn();
    const removed = vi.fn();
    emitter.once('close', told);
    emitter.once('close', removed);
    emitter.off('close', removed);
    emitter.emit('close');
    emitter.emit('close');
    expect(told).toHaveBeenCalledTimes(1);
    expect(removed).not.toHaveBeenCalled();
    expect(emitter.listenerCount('close')).toBe(0);
  });

  it('a listener can be added and taken off under the other names too', () => {
    const emitter = new Emitter<Events>('test');
    const listener = vi.fn(() => fling(new Error('guarded?')));
    emitter.addListener('close', listener);
    expect(() => emitter.emit('close')).not.toThrow();
    emitter.removeListener('close', listener);
    emitter.emit('close');
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it('a listener taken off two emitters that share it leaves each alone', () => {
    const [one, two] = [new Emitter<Events>('test'), new Emitter<Events>('test')];
    const listener = vi.fn();
    one.on('close', listener);
    two.on('close', listener);
    one.off('close', listener);
    one.emit('close');
    two.emit('close');
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it('a listener that was never added can be taken off, and all of them at once', () => {
    const emitter = new Emitter<Events>('test');
    emitter.off('close', () => {});
    const listener = vi.fn();
    emitter.on('close', listener);
    emitter.off('close');
    emitter.emit('close');
    expect(listener).not.toHaveBeenCalled();
  });

  it.each([undefined, null, 'log', {}])('a listener must be a function; %o is not', (listener) => {
    expect(() => new Emitter<Events>('test').on('open', listener as never)).toThrow(TypeError);
    expect(() => new Emitter<Events>('test').once('open', listener as never)).toThrow(TypeError);
  });
});

describe('a listener that fails', () => {
  it.each([
    new Error('broken'),
    'text',
    undefined,
    null,
    Symbol('odd'),
    Object.create(null),
    Object.assign(new Error('odd stack'), { stack: 5 }),
    Object.assign(new Error('no stack'), { stack: undefined }),
    {
      toString() {
        throw new Error('even this');
      },
    },
  ])(
    'a listener that fails with %o disturbs neither the emitter nor other listeners, and becomes a warning',
    async (error) => {
      const emitter = new Emitter<Events>('test');
      const other = vi.fn();
      emitter.on('open', () => fling(error));
      emitter.on('open', async () => fling(error));
      emitter.on('open', other);
      emitter.emit('open', 1);
      emitter.emit('open', 2);
      await flush();
      expect(other).toHaveBeenCalledTimes(2);
      expect(warn).toHaveBeenCalledTimes(4);
      for (const [message, options] of warn.mock.calls) {
        expect(message).toBeTypeOf('string');
        expect(options).toMatchObject({ type: 'HoldfastListenerWarning' });
      }
    },
  );

  it('a listener that fails shows where it failed', () => {
    const emitter = new Emitter<Events>('test');
    emitter.once('close', () => fling(new Error('broken')));
    emitter.emit('close');
    expect(warn.mock.calls[0]![0]).toMatch(/broken[\s\S]*emitter\.test/);
  });
});

describe('a diagnostics channel', () => {
  function subscribed(name: string) {
    const published: unknown[] = [];
    const listener = (message: unknown) => void published.push(message);
    subscribe(name, listener);
    onTestFinished(() => void unsubscribe(name, listener));
    return published;
  }

  it('a diagnostics channel carries the events of all objects of a kind, with their source', () => {
    const published = subscribed('holdfast:test:open');
    const [one, other] = [new Emitter<Events>('test'), new Emitter<Events>('test')];
    one.emit('open', 1);
    other.emit('open', 2);
    one.emit('close');
    expect(published).toEqual([
      { source: one, event: 1 },
      { source: other, event: 2 },
    ]);
    expect((published[0] as { source: unknown }).source).toBe(one);
  });

  it('a diagnostics channel carries no event of another kind, and none after the subscriber has left', () => {
    const published: unknown[] = [];
    const listener = (message: unknown) => void published.push(message);
    subscribe('holdfast:test:open', listener);
    new Emitter<Events>('other').emit('open', 1);
    unsubscribe('holdfast:test:open', listener);
    new Emitter<Events>('test').emit('open', 2);
    expect(published).toEqual([]);
  });
});

describe('whether an event is observed', () => {
  it('an event is observed if the object has listeners or its kind has subscribers', () => {
    const emitter = new Emitter<Events>('observed');
    const listener = () => {};
    expect(emitter.isObserved('open')).toBe(false);
    emitter.on('open', listener);
    expect([emitter.isObserved('open'), emitter.isObserved('close')]).toEqual([true, false]);
    emitter.off('open', listener);
    expect(emitter.isObserved('open')).toBe(false);
    subscribe('holdfast:observed:open', listener);
    expect([emitter.isObserved('open'), emitter.isObserved('close')]).toEqual([true, false]);
    unsubscribe('holdfast:observed:open', listener);
    expect(emitter.isObserved('open')).toBe(false);
  });
});
