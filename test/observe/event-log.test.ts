import { expect, it, onTestFinished, vi } from 'vitest';
import { EventLog } from '../../src/observe/event-log.ts';
import { fakeTime, pass } from '../policies/helpers.ts';
import { RecordedLog } from './recorded-log.ts';

const error = new Error('Redis is away');

/** Makes a log of a discovery over Redis whose events the test gives. */
function discoveryLog(Log = EventLog) {
  fakeTime();
  const log = new RecordedLog();
  const events = new Log(log);
  onTestFinished(() => events.end());
  const source = {};
  const see = (name: string, serviceName: string, known = true) => {
    const payload = { serviceName, error, known };
    events.see({ source, kind: 'redis-service-discovery', name, payload, labels: {} });
  };
  const lines = () => log.lines.map(({ event, service, count }) => `${event} ${service} ${count}`);
  return { events, see, lines, log };
}

it('a log names each service that is out of date, and each that is up to date again', async () => {
  const { see, lines } = discoveryLog();
  for (const name of ['a', 'b', 'c']) see('stale', name);
  await pass(3_000);
  for (const name of ['a', 'b', 'c']) see('fresh', name);
  await pass(30_000);
  const services = ['a', 'b', 'c'];
  expect(lines()).toEqual([
    ...services.map((name) => `stale ${name} 1`),
    ...services.map((name) => `fresh ${name} 1`),
  ]);
});

it('a log tells of a trouble before its end, and counts it anew after that', async () => {
  const { see, lines } = discoveryLog();
  for (let i = 0; i < 4; i++) see('stale', 'a');
  see('fresh', 'a');
  see('stale', 'a');
  await pass(30_000);
  expect(lines()).toEqual(['stale a 1', 'stale a 3', 'fresh a 1', 'stale a 1']);
});

it('a discovery that knows nothing of a service is an error, and one that goes by what it knew a warning', () => {
  const { see, log } = discoveryLog();
  see('stale', 'a', false);
  see('stale', 'b', true);
  expect(log.lines.map(({ level }) => level)).toEqual(['error', 'warn']);
});

it('a process that exits logs what was counted by then, and the log leaves no listener', async () => {
  // A copy of its own: logs of other tests may have lines that are not written.
  vi.resetModules();
  const copy = await import('../../src/observe/event-log.ts');
  const before = process.listeners('exit');
  const { see, lines } = discoveryLog(copy.EventLog);
  for (let i = 0; i < 5; i++) see('stale', 'a');
  const [onExit, ...others] = process.listeners('exit').filter((listener) => !before.includes(listener));
  expect(others).toEqual([]);
  onExit!(0);
  expect(lines()).toEqual(['stale a 1', 'stale a 4']);
  expect(process.listeners('exit')).toEqual(before);
  see('stale', 'b');
  expect(process.listenerCount('exit')).toBe(before.length + 1);
  await pass(10_000);
  expect(process.listeners('exit')).toEqual(before);
  expect(vi.getTimerCount()).toBe(0);
});
