import { beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { deregistrationSignals } from '../../src/discovery/deregistration-signals.ts';
import { type Deferred, defer, fakeTime, flush, pass } from '../policies/helpers.ts';

beforeEach(fakeTime);

/** Has the process exit in appearance only, and nobody else listen to the signal until the test is over. */
function isolate() {
  const exited = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
  const others = process.listeners('SIGTERM');
  process.removeAllListeners('SIGTERM');
  onTestFinished(() => {
    exited.mockRestore();
    process.removeAllListeners('SIGTERM');
    for (const other of others) process.on('SIGTERM', other);
  });
  return exited;
}

/** Has a registrar wait for the signal, whose deregistration takes until `closed` is resolved. */
function addRegistrar(): { close: ReturnType<typeof vi.fn<() => Promise<void>>>; closed: Deferred<void> } {
  const closed = defer<void>();
  const registrar = { close: vi.fn(() => closed.promise) };
  deregistrationSignals.add('SIGTERM', registrar);
  return { ...registrar, closed };
}

const raise = () => process.emit('SIGTERM', 'SIGTERM');

/** Ends the process by the signal if nobody else listens to it, as signal-exit does. */
function addReRaisingListener() {
  const killed = vi.fn();
  const listener = () => {
    if (process.listenerCount('SIGTERM') === 1) killed();
  };
  return { listener, killed };
}

it.each(['before', 'after'])(
  'a listener that raises the signal again where it is alone, added %s the registrar, lets it deregister',
  async (order) => {
    isolate();
    const { listener, killed } = addReRaisingListener();
    if (order === 'before') process.on('SIGTERM', listener);
    const { close, closed } = addRegistrar();
    if (order === 'after') process.on('SIGTERM', listener);
    raise();
    await flush();
    expect(close).toHaveBeenCalledTimes(1);
    expect(killed).not.toHaveBeenCalled();
    closed.resolve();
    await flush();
    raise();
    expect(killed).toHaveBeenCalledTimes(1);
  },
);

it('the promise of the registrars that signals have closed resolves once their listener is gone', async () => {
  isolate();
  const { closed } = addRegistrar();
  raise();
  expect(process.listenerCount('SIGTERM')).toBe(1);
  const listeners = deregistrationSignals.closed.then(() => process.listenerCount('SIGTERM'));
  closed.resolve();
  expect(await listeners).toBe(0);
});

it('a second signal while registrars deregister has the process exit at once, and the same one twice does not', async () => {
  const exited = isolate();
  const { close, closed } = addRegistrar();
  raise();
  await pass(499);
  raise();
  expect(exited).not.toHaveBeenCalled();
  await pass(1);
  raise();
  expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  expect(close).toHaveBeenCalledTimes(1);
  closed.resolve();
  await flush();
});

it('a second signal while registrars deregister is left to another listener', async () => {
  const exited = isolate();
  const other = vi.fn();
  process.on('SIGTERM', other);
  const { closed } = addRegistrar();
  raise();
  await pass(1_000);
  raise();
  closed.resolve();
  await flush();
  expect(other).toHaveBeenCalledTimes(2);
  expect(exited).not.toHaveBeenCalled();
  expect(process.listeners('SIGTERM')).toEqual([other]);
});

it('a registrar that is added while others deregister waits for the next signal', async () => {
  isolate();
  process.on('SIGTERM', () => {});
  const first = addRegistrar();
  raise();
  const second = addRegistrar();
  first.closed.resolve();
  await flush();
  expect(second.close).not.toHaveBeenCalled();
  raise();
  expect(second.close).toHaveBeenCalledTimes(1);
  second.closed.resolve();
  await flush();
  expect(process.listenerCount('SIGTERM')).toBe(1);
});

it('a registrar that is removed while others deregister leaves their listener', async () => {
  isolate();
  const { closed } = addRegistrar();
  raise();
  const other = { close: async () => {} };
  deregistrationSignals.add('SIGTERM', other);
  deregistrationSignals.remove('SIGTERM', other);
  expect(process.listenerCount('SIGTERM')).toBe(1);
  closed.resolve();
  await flush();
  expect(process.listenerCount('SIGTERM')).toBe(0);
});
