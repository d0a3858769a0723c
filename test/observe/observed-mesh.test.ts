import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { engineOf } from '../../src/client/call-engine.ts';
import { createVariant } from '../../src/client/service-variants.ts';
import {
  CircuitBreaker,
  CompositeServiceDiscovery,
  defineSaga,
  gracefulShutdown,
  Health,
  InMemoryEventBus,
  InMemorySagaStore,
  InMemoryServiceDiscovery,
  nodeGuard,
  observe,
  SagaOrchestrator,
  ServerGuard,
  ServiceClient,
  type ServiceDiscovery,
  ServiceRegistrar,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { startGateway } from '../support/gateway.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';
import { RecordedLog } from './recorded-log.ts';

const down = new Error('it is down');
const call = { service, path: '/users/u1?token=hunter2' };
const once = { retry: false, circuitBreaker: { failureThreshold: 1 } } as const;

afterEach(() => void vi.useRealTimers());

function observed(target: object): RecordedLog {
  const log = new RecordedLog();
  onTestFinished(observe(target, { logger: log }));
  return log;
}

it('observe of a client logs an opened circuit of a service that was first called later, with the name of the service', async () => {
  const server = await startServer((_request, response) => json(response, {}, 500));
  const discovery = new InMemoryServiceDiscovery();
  const client = new ServiceClient({ discovery, defaults: once });
  onTestFinished(() => client.close());
  const log = observed(client);
  await discovery.register({ serviceName: 'later', instanceId: 'i1', host: '127.0.0.1', port: server.port });
  await rejectionOf(client.call({ ...call, service: 'later' }));
  expect(log.of('circuit opened')).toMatchObject([
    { level: 'error', service: 'later', componentName: 'later', failures: 1, code: 'ERR_SERVICE_RESPONSE' },
  ]);
  expect(JSON.stringify(log.lines)).not.toContain('hunter2');
});

it('observe of a client logs an ejected instance and its return', async () => {
  let status = 500;
  const bad = await startServer((_request, response) => json(response, {}, status));
  const client = clientOf([bad], { retry: false, circuitBreaker: false });
  const log = observed(client);
  for (let i = 0; i < 5; i++) await rejectionOf(client.call(call));
  expect(log.of('instance ejected')).toMatchObject([
    { level: 'warn', component: 'load-balancer', service, address: `127.0.0.1:${bad.port}` },
  ]);
  status = 200;
  await vi.waitFor(async () => {
    await client.call(call);
    expect(log.of('instance returned')).toMatchObject([{ level: 'info', service }]);
  });
});

it('observe of a client logs the full bulkhead of an instance, those that were called before included', async () => {
  let release = () => {};
  const server = await startServer(async (_request, response) => {
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    json(response, {});
  });
  const client = clientOf([server], { retry: false, bulkhead: { maxConcurrent: 1 } });
  const first = client.call(call);
  await vi.waitFor(() => expect(server.requests).toHaveLength(1));
  const log = observed(client);
  await rejectionOf(client.call(call));
  expect(log.of('calls rejected: bulkhead full')).toMatchObject([{ service, count: 1 }]);
  expect(log.lines[0]?.instanceId).toBeTypeOf('string');
  release();
  await first;
});

it('observe of a client covers the breakers of versions of a service', () => {
  const client = clientOf([]);
  const policies = (version: string) =>
    engineOf(client).policiesOf(service, createVariant({ version })).circuitBreaker!;
  policies('1');
  const log = observed(client);
  policies('1').isolate();
  policies('2').isolate();
  expect(log.of('circuit isolated')).toMatchObject([
    { service, componentName: `${service} (version=1)` },
    { service, componentName: `${service} (version=2)` },
  ]);
});

it('services that are observed are forgotten as they are without, and observed when they come back', () => {
  const client = new ServiceClient({ discovery: new InMemoryServiceDiscovery() });
  onTestFinished(() => client.close());
  const log = observed(client);
  const engine = engineOf(client);
  const first = engine.policiesOf('first');
  for (let i = 0; i < 2_000; i++) engine.policiesOf(`service-${i}`);
  expect(engine.policiesOf('first')).not.toBe(first);
  const { circuitBreaker } = client.policies('first');
  circuitBreaker!.isolate();
  expect(log.of('circuit isolated')).toMatchObject([{ service: 'first' }]);
});

it('observe of a client logs what its discovery says, behind a balancer and a composite', async () => {
  const broken: ServiceDiscovery = Object.assign(new InMemoryServiceDiscovery(), {
    instances: () => Promise.reject(down),
  });
  const discovery = new CompositeServiceDiscovery([broken, new InMemoryServiceDiscovery()]);
  const client = new ServiceClient({ discovery });
  onTestFinished(async () => {
    await client.close();
    await discovery.close();
  });
  const log = observed(client);
  await rejectionOf(client.call(call));
  expect(log.of('discovery passed over: it failed')).toMatchObject([{ service, error: 'it is down' }]);
});

it('observe of a registrar logs that it cannot register, and that it could after all', async () => {
  vi.useFakeTimers();
  const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  const instance = { serviceName: service, instanceId: 'i1', host: '10.0.0.1', port: 80 };
  const registrar = new ServiceRegistrar({ discovery, instance, heartbeatInterval: 1_000 });
  onTestFinished(() => registrar.close());
  const log = observed(registrar);
  const register = vi.spyOn(discovery, 'register').mockRejectedValueOnce(down);
  const registered = registrar.register();
  await vi.advanceTimersByTimeAsync(1_000);
  await registered;
  expect(register).toHaveBeenCalledTimes(2);
  expect(log.messages).toEqual(['registration failed', 'instance registered']);
  vi.spyOn(discovery, 'heartbeat').mockRejectedValueOnce(down).mockRejectedValueOnce(down);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(log.of('registration failed')[0]).toMatchObject({ level: 'error', error: 'it is down' });
  expect(log.of('registration recovered')).toMatchObject([{ level: 'info', service, failures: 2 }]);
});

it('observe of a guard logs that requests are shed, and neither their headers nor what clients do wrong', async () => {
  const guard = new ServerGuard();
  onTestFinished(() => guard.close());
  const log = observed(guard);
  const server = await startServer((request, response) => {
    nodeGuard(guard, (_request, guarded) => void guarded.end())(request, response);
  });
  const headers = { 'x-request-timeout': '0', authorization: 'hunter2' };
  for (let i = 0; i < 3; i++) await fetch(`${server.origin}/orders?token=hunter2`, { headers });
  expect(log.messages).toEqual(['requests rejected']);
  expect(log.lines[0]).toMatchObject({ level: 'warn', code: 'ERR_DEADLINE_EXCEEDED', path: '/orders' });
  expect(JSON.stringify(log.lines)).not.toContain('hunter2');
});

it('observe of a health logs each change of its status with the check that fails, and the breakers that it shows', async () => {
  vi.useFakeTimers();
  let works = true;
  const breaker = new CircuitBreaker({ name: 'payments' });
  const database = async () => {
    if (!works) throw new Error('no connection');
  };
  const health = new Health({ checks: { database }, breakers: { payments: breaker } });
  const log = observed(health);
  const probe = async () => {
    await health.ready();
    await vi.advanceTimersByTimeAsync(1_000);
  };
  await probe();
  works = false;
  await probe();
  await probe();
  breaker.isolate();
  works = true;
  await probe();
  breaker.reset();
  await probe();
  expect(log.of('health changed')).toMatchObject([
    { level: 'error', from: 'pass', to: 'fail', reasons: ['check database'], error: 'no connection' },
    { level: 'warn', from: 'fail', to: 'warn', reasons: ['breaker payments'] },
    { level: 'info', from: 'warn', to: 'pass', reasons: [] },
  ]);
  expect(log.of('circuit isolated')).toMatchObject([{ componentName: 'payments' }]);
});

it('observe of a graceful shutdown logs its beginning, a step that fails, and its end, and covers what it ends', async () => {
  const client = clientOf([]);
  const close = [() => Promise.reject(down)];
  const shutdown = gracefulShutdown({ client, close, drainDelay: 0, signals: false });
  const log = observed(shutdown);
  client.policies(service).circuitBreaker!.isolate();
  await shutdown.shutDown('test');
  expect(log.messages).toEqual([
    'circuit isolated',
    'shutdown begun',
    'shutdown step failed',
    'shutdown done',
  ]);
  expect(log.lines.at(-2)).toMatchObject({ level: 'error', step: 'close', error: 'it is down' });
  expect(log.lines.at(-1)).toMatchObject({ level: 'info', reason: 'test', failures: 1, cut: 0 });
});

it('observe of a bus logs failures of handlers and dead letters, and no data of an event', async () => {
  const bus = new InMemoryEventBus({ source: 'test' });
  onTestFinished(() => bus.close());
  const log = observed(bus);
  const handler = () => Promise.reject(down);
  await bus.subscribe('order.created', handler, { group: 'mail', maxAttempts: 2, backoff: () => 0 });
  await bus.publish({ eventType: 'order.created', aggregateId: 'o1', data: { card: 'hunter2' } });
  await vi.waitFor(() => expect(log.of('event gone to the dead letters')).toHaveLength(1));
  expect(log.messages).toEqual(['event handler failed', 'event gone to the dead letters']);
  expect(log.lines.at(-1)).toMatchObject({
    level: 'error',
    group: 'mail',
    eventType: 'order.created',
    aggregateId: 'o1',
    attempts: 2,
    error: 'it is down',
  });
  expect(JSON.stringify(log.lines)).not.toContain('hunter2');
});

it('observe of an orchestrator logs a saga that is stuck, and covers its client and its bus', async () => {
  vi.useFakeTimers();
  const client = clientOf([]);
  const bus = new InMemoryEventBus({ source: 'test' });
  const saga = defineSaga<null>('order', { version: 1 })
    .step('charge', {
      run: () => ({}),
      compensate: { run: () => Promise.reject(down), retry: { maxAttempts: 2, backoff: () => 1 } },
    })
    .step('ship', { run: () => Promise.reject(down), retry: { maxAttempts: 1 } });
  const store = new InMemorySagaStore();
  const orchestrator = new SagaOrchestrator({ store, sagas: [saga], client, bus, closeTimeout: 0 });
  onTestFinished(async () => {
    await orchestrator.close();
    await bus.close();
  });
  const log = observed(orchestrator);
  client.policies(service).circuitBreaker!.isolate();
  await orchestrator.start(saga, null, { sagaId: 's1' });
  await vi.advanceTimersByTimeAsync(5_000);
  expect(log.messages).toEqual([
    'circuit isolated',
    'saga step failed',
    'saga compensates',
    'saga step failed',
    'saga stuck: it waits for an operator',
  ]);
  expect(log.lines.at(-1)).toMatchObject({
    level: 'error',
    saga: 'order',
    sagaId: 's1',
    step: 'charge',
    error: 'it is down',
  });
});

it('observe of a gateway logs a service that is away, its breaker, and configurations', async () => {
  const gone = await startServer(() => {});
  await gone.stop();
  const { gateway, url } = await startGateway([gone.origin], {}, once);
  const log = observed(gateway);
  for (let i = 0; i < 3; i++) expect((await fetch(`${url}/users?token=hunter2`)).status).toBeGreaterThan(500);
  expect(log.of('circuit opened')).toMatchObject([{ service: 'shop' }]);
  expect(log.of('requests failed at the gateway')).toMatchObject([
    { level: 'error', service: 'shop', status: 502, problem: 'bad-gateway', path: '/users', count: 1 },
    { level: 'error', service: 'shop', status: 503, problem: 'service-unavailable', count: 1 },
  ]);
  await gateway.reload({ cors: false });
  await rejectionOf(gateway.reload({ routes: [{ path: 'no' } as never] }));
  expect(log.of('gateway configuration in force')).toMatchObject([{ level: 'info', routes: 1 }]);
  expect(log.of('gateway configuration rejected: the old one stays')).toMatchObject([
    { level: 'error', code: 'ERR_GATEWAY_CONFIG' },
  ]);
  await gateway.close();
  expect(log.messages.slice(-2)).toEqual(['shutdown begun', 'shutdown done']);
  expect(JSON.stringify(log.lines)).not.toContain('hunter2');
});
