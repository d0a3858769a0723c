import { describe, expect, it, onTestFinished } from 'vitest';
import {
  defineSaga,
  HoldfastError,
  InMemoryServiceDiscovery,
  LoadBalancer,
  SagaOrchestrator,
  type SagaStore,
  ServiceRegistrar,
} from '../../src/index.ts';
import type { Database } from '../../src/postgres/index.ts';
import { PostgresSagaStore } from '../../src/postgres/index.ts';
import { RedisEventBus, RedisSagaStore, RedisServiceDiscovery } from '../../src/redis/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { freePort } from '../support/free-port.ts';

const instance = { serviceName: 'users', instanceId: 'u1', host: '10.0.0.1', port: 8_001 };
const away = { host: '127.0.0.1', port: await freePort() };
const soon = 5;

function closing<T extends { close(): unknown }>(made: T): T {
  onTestFinished(async () => void (await made.close()));
  return made;
}

const discovery = () => closing(new RedisServiceDiscovery({ redis: away, timeout: soon }));
const bus = () =>
  closing(new RedisEventBus({ redis: away, source: 'test', commandTimeout: soon, publishTimeout: soon }));
const saga = defineSaga('orders', { version: 1 }).step('pay', { run: () => 1 });
const orchestrator = (store: SagaStore) => closing(new SagaOrchestrator({ store, sagas: [saga] }));
const redisStore = () => closing(new RedisSagaStore({ redis: away, commandTimeout: soon }));
const silent = new Promise<never>(() => {});
const database: Database = {
  query: () => silent,
  transaction: async (run) => run({ raw: undefined, query: () => silent }),
};
const postgresStore = () => new PostgresSagaStore({ database, commandTimeout: soon });
const registrar = (discovery: InMemoryServiceDiscovery | RedisServiceDiscovery) => {
  const made = closing(new ServiceRegistrar({ discovery, instance }));
  made.on('failure', () => {});
  return made;
};

/** Where a test fails, its name shows up in the stack. */
async function errorOf(call: () => Promise<unknown>): Promise<HoldfastError> {
  return (await rejectionOf(
    (async function nameOfTheCaller() {
      return await call();
    })(),
  )) as HoldfastError;
}

describe('the stack of an error names the functions that await the call', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['register() of a ServiceRegistrar', () => registrar(discovery()).register({ timeout: soon })],
    ['register() of a discovery', () => discovery().register(instance)],
    ['deregister() of a discovery', () => discovery().deregister('users', 'u1')],
    ['instances() of a discovery', () => discovery().instances('users')],
    [
      'acquire() of a LoadBalancer',
      () => closing(new LoadBalancer({ discovery: discovery() })).acquire('users'),
    ],
    [
      'publish() of an event bus',
      () => bus().publish({ eventType: 'order.created', aggregateId: 'o1', data: {} }),
    ],
    ['subscribe() of an event bus', () => bus().subscribe('order.*', () => {}, { group: 'g' })],
    ['start() of an orchestrator over Redis', () => orchestrator(redisStore()).start(saga, {})],
    ['get() of an orchestrator over Redis', () => orchestrator(redisStore()).get('o1')],
    ['start() of an orchestrator over PostgreSQL', () => orchestrator(postgresStore()).start(saga, {})],
    ['get() of an orchestrator over PostgreSQL', () => orchestrator(postgresStore()).get('o1')],
  ])('by %s', async (_, call) => {
    const error = await errorOf(call);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error.stack).toContain('nameOfTheCaller');
  });

  it('of two callers that share a registration, the first in the error that both get', async () => {
    const made = registrar(
      Object.assign(new InMemoryServiceDiscovery(), { register: () => Promise.reject(new Error('away')) }),
    );
    const first = errorOf(() => made.register());
    const second = rejectionOf(
      (async function nameOfAnother() {
        return await made.register();
      })(),
    );
    await new Promise((resolve) => made.once('failure', resolve));
    await made.close();
    const error = await first;
    expect(await second).toBe(error);
    expect(error).toMatchObject({ code: 'ERR_DISCOVERY_UNAVAILABLE' });
    expect(error.stack).toContain('nameOfTheCaller');
    expect(error.stack).not.toContain('nameOfAnother');
  });
});
