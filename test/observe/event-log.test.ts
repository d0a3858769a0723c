import { expect, it, onTestFinished, vi } from 'vitest';
import { EventLog } from '../../src/observe/event-log.ts';
import { fakeTime, pass } from '../policies/helpers.ts';
import { RecordedLog } from './recorded-log.ts';

const error = new Error('Redis is away');

/** Makes a log of a discovery over Redis whose events the test gives. */
function discoveryLog(Log = EventLog, kind = 'redis-service-discovery') {
  fakeTime();
  const log = new RecordedLog();
  const events = new Log(log);
  onTestFinished(() => events.end());
  const source = {};
  const see = (name: string, serviceName: string, known = true) => {
    const payload = { serviceName, error, known, instanceId: 'i1' };
    events.see({ source, kind, name, payload, labels: {} });
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

it('a log of more services than it counts by themselves tells of all troubles before their end', async () => {
  const { see, lines } = discoveryLog();
  const services = Array.from({ length: 150 }, (_, i) => `s${i}`);
  for (const name of services) see('stale', name);
  expect(lines()).toHaveLength(101);
  for (const name of services) see('fresh', name);
  await pass(30_000);
  expect(lines().slice(100, 103)).toEqual(['stale s100 1', 'stale s149 49', 'fresh s0 1']);
  expect(lines().slice(-2)).toEqual(['fresh s100 1', 'fresh s149 49']);
  expect(lines()).toHaveLength(204);
});

it.each([
  ['composite-service-discovery', 'failure'],
  ['redis-service-discovery', 'invalid-entry'],
])('a log of a %s counts the event %s for each service', async (kind, event) => {
  const { see, lines } = discoveryLog(EventLog, kind);
  for (const name of ['a', 'b', 'a']) see(event, name);
  await pass(10_000);
  expect(lines()).toEqual([`${event} a 1`, `${event} b 1`, `${event} a 1`]);
});

it('a log tells of failed heartbeats before an instance that is registered again', async () => {
  fakeTime();
  const log = new RecordedLog();
  const events = new EventLog(log);
  onTestFinished(() => events.end());
  const source = {};
  const instance = { serviceName: 'a', instanceId: 'i1', host: '10.0.0.1', port: 1 };
  const payload = { instance, error, failures: 3 };
  for (const name of ['failure', 'failure', 'failure', 're-registered', 'registered', 'recovered'])
    events.see({ source, kind: 'service-registrar', name, payload, labels: {} });
  await pass(30_000);
  const lines = log.lines.map(({ event, count }) => [event, count]);
  expect(lines).toEqual([
    ['failure', 1],
    ['failure', 2],
    ['re-registered', undefined],
    ['registered', undefined],
    ['recovered', undefined],
  ]);
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
