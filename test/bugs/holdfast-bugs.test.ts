// Put into test/<room>/ of the repo (two levels deep). Each fails today.
import { expect, it, onTestFinished, vi } from 'vitest';
import { callState } from '../../src/client/call-state.ts';
import { requestContextFrom } from '../../src/client/propagation.ts';
import { prepare, type ServiceCall } from '../../src/client/service-call.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { type InstanceRegistration, toInstance } from '../../src/discovery/service-instance.ts';
import { ServiceRegistrar } from '../../src/discovery/service-registrar.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { ClosedError, InvalidInstanceError, ServiceClient } from '../../src/index.ts';
import { defer, flush, rejectionOf } from '../policies/helpers.ts';
import { json, startServer } from '../support/server.ts';

const reg = (instanceId: string, fields: object = {}): InstanceRegistration => ({
  serviceName: 's',
  instanceId,
  host: '10.0.0.1',
  port: 80,
  ...fields,
});
const prepared = (call: object) => prepare({ service: 's', path: '/', ...call } as ServiceCall);

it('1 a header value is never taken for a header name', () => {
  const headers = { 'x-a': 'content-type', 'x-b': 'evil.example', 'content-type': 'host' };
  expect(prepared({ headers }).headers).toEqual(Object.entries(headers).flat());
});
it('1 …so that values cannot choose the Host header', async () => {
  const server = await startServer((request, response) => json(response, { host: request.headers.host }));
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ s: [server.origin] }) });
  onTestFinished(() => client.close());
  const headers = { 'x-a': 'content-type', 'x-b': 'evil.example', 'content-type': 'host' };
  const call = client.call({ service: 's', method: 'POST', path: '/', body: 'x', headers });
  expect(await call).toEqual({ host: new URL(server.origin).host });
});
it('2 a header value that reads like a propagated header does not stop the propagation', () => {
  const call = { service: 's', path: '/', headers: { 'x-note': 'x-request-id' } };
  expect(callState(call, prepare(call), ['x-request-id', 'r1']).headers).toContain('r1');
});
it('3 others see the changes in order though a listener makes one', async () => {
  const discovery = new InMemoryServiceDiscovery();
  const told: string[][] = [];
  const unsubscribe = discovery.watch('s', () => {
    unsubscribe();
    void discovery.register(reg('u2'));
  });
  discovery.watch('s', (list) => told.push(list.map(({ instanceId }) => instanceId)));
  await discovery.register(reg('u1'));
  expect(told).toEqual([['u1'], ['u1', 'u2']]);
});
it.each(['unsubscribed', 'closed'])(
  '4 one that another listener has just %s is not told any more',
  async (how) => {
    const discovery = new InMemoryServiceDiscovery();
    const second = vi.fn();
    discovery.watch('s', () => (how === 'closed' ? void discovery.close() : unsubscribe()));
    const unsubscribe = discovery.watch('s', second);
    await discovery.register(reg('u1'));
    expect(second).not.toHaveBeenCalled();
  },
);
it.each<[string, unknown]>([
  ...['2', true, null, [], 1n, new Date(5), Symbol('a')].map(
    (value) => ['weight', value] as [string, unknown],
  ),
  ['port', 80n],
  ['metadata', { a: 1n }],
  ['host', '999.1.1.1'],
  ['host', '1.2.3.4.5'],
  ['healthCheckUrl', 'http://10.0.0.1:80\\@evil.example/'],
  ['healthCheckUrl', 'blob:http://10.0.0.1:80/x'],
])('5 6 9 the %s %o is refused and named', (field, value) => {
  expect(() => toInstance(reg('u1', { [field]: value }))).toThrow(InvalidInstanceError);
  expect(() => toInstance(reg('u1', { [field]: value }))).toThrow(`the ${field} of an instance`);
});
it('7 a registrar that was registered and closed does not register any more', async () => {
  const registrar = new ServiceRegistrar({ discovery: new InMemoryServiceDiscovery(), instance: reg('u1') });
  await registrar.register();
  await registrar.close();
  expect(await rejectionOf(registrar.register())).toBeInstanceOf(ClosedError);
});
it('8 with two registrars the signal ends the process when both have deregistered', async () => {
  const kill = vi.spyOn(process, 'kill').mockReturnValue(true);
  const others = process.listeners('SIGTERM');
  process.removeAllListeners('SIGTERM');
  onTestFinished(() => others.forEach((listener) => void process.on('SIGTERM', listener)));
  const slow = defer<boolean>();
  for (const deregister of [() => slow.promise, async () => true]) {
    const discovery = {
      register: async (registration: InstanceRegistration) => toInstance(registration),
      heartbeat: async () => true,
      deregister,
    };
    const options = { discovery: discovery as never, instance: reg('u1'), deregisterOn: 'SIGTERM' as const };
    await new ServiceRegistrar(options).register();
  }
  process.emit('SIGTERM', 'SIGTERM');
  await flush();
  expect(kill).not.toHaveBeenCalled();
  slow.resolve(true);
  await flush();
  expect(kill).toHaveBeenCalledTimes(1);
});
it.each([
  new ArrayBuffer(3),
  new Uint16Array([1]),
  new DataView(new ArrayBuffer(2)),
  new Blob(['a']),
  new FormData(),
])('10 bytes and forms are not sent as the JSON of an empty object (%o)', (body) => {
  let sent: unknown;
  try {
    sent = prepared({ method: 'POST', body }).body;
  } catch {
    return; // refusing it is fine too
  }
  expect(typeof sent).not.toBe('string');
});
it('11 one idempotency key is sent, not two', () => {
  const { headers } = prepared({ method: 'POST', idempotencyKey: 'k', headers: { 'Idempotency-Key': 'b' } });
  expect(headers.filter((header) => header === 'idempotency-key')).toHaveLength(1);
});
it.each([
  `ff-${'1'.repeat(32)}-${'1'.repeat(16)}-01`,
  `00-${'0'.repeat(32)}-${'1'.repeat(16)}-01`,
  `00-${'1'.repeat(32)}-${'0'.repeat(16)}-01`,
])('12 the traceparent %s, which W3C calls invalid, is not passed on', (traceparent) => {
  expect(requestContextFrom({ traceparent }).traceparent).toBeUndefined();
});
it.each([null, undefined])('13 a static entry that is %s is refused with a clear error', (entry) => {
  expect(() => new StaticServiceDiscovery({ s: [entry as never] })).toThrow(InvalidInstanceError);
});
it.each(['_a', `${'a'.repeat(63)}.${'b'.repeat(63)}.example`])(
  '13 a static host %s needs no id',
  async (host) => {
    expect(await new StaticServiceDiscovery({ s: [{ host, port: 80 }] }).instances('s')).toHaveLength(1);
  },
);
