import { describe, expect, it, onTestFinished } from 'vitest';
import { engineOf } from '../../src/client/call-engine.ts';
import { relayPrepared } from '../../src/client/relay.ts';
import { prepareRelay } from '../../src/client/relay-request.ts';
import { createVariant, type Variant } from '../../src/client/service-variants.ts';
import {
  CircuitBreaker,
  InMemoryServiceDiscovery,
  LoadBalancer,
  ServiceClient,
  type ServiceOptions,
} from '../../src/index.ts';
import { service } from '../support/mesh-client.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';
import { recorder } from './relaying.ts';

const STABLE = createVariant({ version: '1' });
const CANARY = createVariant({ version: '2' });

const well: Handler = (_request, response) => json(response, {});
const failing: Handler = (_request, response) => json(response, {}, 500);

interface Versions {
  readonly client: ServiceClient;
  readonly loadBalancer: LoadBalancer;
  readonly discovery: InMemoryServiceDiscovery;
  readonly stable: TestServer;
  readonly canary: TestServer;
  /** Sends a request, and gives the status of the response or the code of the error. */
  send(variant?: Variant, method?: string): Promise<number | string>;
}

/** Starts two instances of version 1 and one of version 2, and a client of both. */
async function versions(canaryHandler: Handler, options: ServiceOptions = {}): Promise<Versions> {
  const discovery = new InMemoryServiceDiscovery();
  const stable = await startServer(well);
  const canary = await startServer(canaryHandler);
  const others = await startServer(well);
  for (const [server, version] of [
    [stable, '1'],
    [others, '1'],
    [canary, '2'],
  ] as const) {
    await discovery.register({
      serviceName: service,
      host: '127.0.0.1',
      port: server.port,
      metadata: { version },
    });
  }
  const loadBalancer = new LoadBalancer({ discovery });
  const client = new ServiceClient({ loadBalancer, services: { [service]: { retry: false, ...options } } });
  onTestFinished(async () => {
    await client.close();
    loadBalancer.close();
  });
  const send = async (variant?: Variant, method = 'GET') => {
    const record = recorder();
    const request = prepareRelay({ service, path: '/', method });
    relayPrepared(engineOf(client), { service, variant }, request, record.handler);
    const error = (await record.end) as (Error & { code?: string }) | undefined;
    return error?.code ?? (error === undefined ? record.status : error.message);
  };
  return { client, loadBalancer, discovery, stable, canary, send };
}

function policiesOf({ client }: Versions, variant?: Variant) {
  return engineOf(client).policiesOf(service, variant);
}

async function sendMany(send: () => Promise<unknown>, count: number): Promise<void> {
  for (let index = 0; index < count; index++) await send();
}

describe('the policies of a variant', () => {
  it('a version that fails opens its own breaker alone, and the other version is called as before', async () => {
    const world = await versions(failing);
    await sendMany(() => world.send(CANARY), 40);
    expect(policiesOf(world, CANARY).circuitBreaker!.state).toBe('open');
    await expect(world.send(CANARY)).resolves.toBe('ERR_CIRCUIT_OPEN');
    expect(policiesOf(world, STABLE).circuitBreaker!.state).toBe('closed');
    expect(policiesOf(world).circuitBreaker!.state).toBe('closed');
    await expect(world.send(STABLE)).resolves.toBe(200);
    await expect(world.send()).resolves.toBe(200);
  });

  it('the breaker of a version opens although the instances of the other are well, and is named after it', async () => {
    const world = await versions(failing);
    await Promise.all([sendMany(() => world.send(STABLE), 40), sendMany(() => world.send(CANARY), 40)]);
    const { circuitBreaker } = policiesOf(world, CANARY);
    expect(circuitBreaker!.state).toBe('open');
    expect(circuitBreaker!.name).toBe(`${service} (version=2)`);
  });

  it('a call with a variant goes to its instances alone', async () => {
    const world = await versions(well);
    await sendMany(() => world.send(CANARY), 10);
    expect(world.canary.requests).toHaveLength(10);
    await sendMany(() => world.send(STABLE), 10);
    expect(world.canary.requests).toHaveLength(10);
  });

  it('variants with equal selectors have the same policies, whoever has made them', async () => {
    const world = await versions(well);
    const one = createVariant({ version: '2', zone: 'a' });
    const other = createVariant({ zone: 'a', version: '2' });
    expect(policiesOf(world, one)).toBe(policiesOf(world, other));
    expect(policiesOf(world, one)).not.toBe(policiesOf(world, CANARY));
  });

  it('the retries of a version that fails do not spend the budget of the other', async () => {
    const world = await versions((_request, response) => json(response, {}, 503), {
      retry: { backoff: () => 0 },
      circuitBreaker: false,
    });
    const full = policiesOf(world, STABLE).retryBudget!.balance;
    await sendMany(() => world.send(CANARY), 20);
    expect(policiesOf(world, CANARY).retryBudget!.balance).toBeLessThan(1);
    expect(policiesOf(world, STABLE).retryBudget!.balance).toBe(full);
    expect(policiesOf(world).retryBudget!.balance).toBe(full);
  });

  it('the rate limit of a service counts the calls to all of its versions', async () => {
    const world = await versions(well, { rateLimit: { limit: 2, interval: 60_000 } });
    await expect(world.send(STABLE)).resolves.toBe(200);
    await expect(world.send(CANARY)).resolves.toBe(200);
    await expect(world.send(STABLE)).resolves.toBe('ERR_RATE_LIMITED');
    await expect(world.send(CANARY)).resolves.toBe('ERR_RATE_LIMITED');
    await expect(world.send()).resolves.toBe('ERR_RATE_LIMITED');
  });

  it('a write to a version drops what the cache of the service keeps of the path', async () => {
    const fresh: Handler = (_request, response) => json(response, {}, 200, { 'cache-control': 'max-age=60' });
    const world = await versions(fresh, { cache: {} });
    const read = () => world.client.call({ service, path: '/', select: CANARY.select });
    await read();
    await read();
    expect(world.canary.requests).toHaveLength(1);
    await expect(world.send(STABLE, 'POST')).resolves.toBe(200);
    await read();
    expect(world.canary.requests).toHaveLength(2);
  });

  it('a breaker that the user has made holds for all versions', async () => {
    const circuitBreaker = new CircuitBreaker();
    const world = await versions(well, { circuitBreaker });
    expect(policiesOf(world, STABLE).circuitBreaker).toBe(circuitBreaker);
    expect(policiesOf(world, CANARY).circuitBreaker).toBe(circuitBreaker);
  });

  it('a new instance of a version has its open breaker probe at once, and that of the other wait', async () => {
    const world = await versions(failing, { circuitBreaker: { failureThreshold: 3, resetTimeout: 60_000 } });
    const unused = createVariant({ version: '1', cell: 'x' });
    await sendMany(() => world.send(CANARY), 5);
    policiesOf(world, unused).circuitBreaker!.trip();
    expect(policiesOf(world, CANARY).circuitBreaker!.holding).toBe(true);
    const mended = await startServer(well);
    await world.discovery.register({
      serviceName: service,
      host: '127.0.0.1',
      port: mended.port,
      metadata: { version: '2' },
    });
    await expect.poll(() => policiesOf(world, CANARY).circuitBreaker!.holding).toBe(false);
    expect(policiesOf(world, unused).circuitBreaker!.holding).toBe(true);
  });

  it('variants of earlier configurations are forgotten once they are idle, and one in use is kept', async () => {
    const world = await versions(well);
    const kept = policiesOf(world, CANARY);
    const isolated = createVariant({ version: 'isolated' });
    policiesOf(world, isolated).circuitBreaker!.isolate();
    const early = policiesOf(world, createVariant({ version: 'early' }));
    kept.enter();
    for (let index = 0; index < 100; index++) policiesOf(world, createVariant({ version: `v${index}` }));
    expect(policiesOf(world, CANARY)).toBe(kept);
    expect(policiesOf(world, isolated).circuitBreaker!.state).toBe('isolated');
    expect(policiesOf(world, createVariant({ version: 'early' }))).not.toBe(early);
  });

  it('the engine tells whether there is an instance of a version, once it knows the service', async () => {
    const world = await versions(well);
    const engine = engineOf(world.client);
    expect(engine.hasInstance(service, CANARY)).toBeUndefined();
    await world.send(STABLE);
    expect(engine.hasInstance(service, CANARY)).toBe(true);
    expect(engine.hasInstance(service, createVariant({ version: '3' }))).toBe(false);
    const [left] = (await world.discovery.instances(service)).filter(
      ({ metadata }) => metadata.version === '2',
    );
    await world.discovery.deregister(service, left!.instanceId);
    expect(engine.hasInstance(service, CANARY)).toBe(false);
  });
});
