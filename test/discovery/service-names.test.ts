import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { MeshTargets } from '../../src/client/mesh-target.ts';
import { checkServiceName } from '../../src/discovery/service-instance.ts';
import {
  CompositeServiceDiscovery,
  DnsServiceDiscovery,
  InMemoryServiceDiscovery,
  InvalidInstanceError,
  ServiceClient,
  ServiceRegistrar,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { json, startServer } from '../support/server.ts';
import { FakeDns } from './dns-helpers.ts';

/** Every way in which the name of a service comes to be, but for Redis, whose tests have it. */
const ways: Record<string, (serviceName: string) => Promise<unknown>> = {
  'InMemoryServiceDiscovery.register()': (serviceName) =>
    new InMemoryServiceDiscovery().register({ serviceName, host: 'a', port: 1 }),
  'CompositeServiceDiscovery.register()': (serviceName) =>
    new CompositeServiceDiscovery([new InMemoryServiceDiscovery()]).register({
      serviceName,
      host: 'a',
      port: 1,
    }),
  'ServiceRegistrar.register()': async (serviceName) => {
    const discovery = new InMemoryServiceDiscovery();
    const registrar = new ServiceRegistrar({ discovery, instance: { serviceName, host: 'a', port: 1 } });
    onTestFinished(() => registrar.close());
    return registrar.register();
  },
  'new StaticServiceDiscovery()': async (name) => new StaticServiceDiscovery({ [name]: ['http://a:1'] }),
  'a list without instances': async (name) => new StaticServiceDiscovery({ [name]: [] }),
  'StaticServiceDiscovery.fromEnvironment()': async (name) => {
    const HOLDFAST_INSTANCES = JSON.stringify({ [name]: ['http://a:1'] });
    return StaticServiceDiscovery.fromEnvironment({ HOLDFAST_INSTANCES });
  },
  'new DnsServiceDiscovery()': async (name) => {
    const discovery = new DnsServiceDiscovery({ services: { [name]: { name: 'a.test', port: 1 } } });
    onTestFinished(() => discovery.close());
  },
};

describe.each(Object.entries(ways))('%s', (_way, register) => {
  it.each([
    'UserService',
    'users.default.svc.cluster.local',
    'users.',
    'users:8080',
    'localhost',
    '12',
    '0x7f',
  ])('a registration is rejected under a name that no http:// URL reaches: %s', async (name) => {
    const error = (await rejectionOf(register(name))) as Error;
    const cause = error instanceof InvalidInstanceError ? error : error.cause;
    expect(cause).toMatchObject({
      code: 'ERR_INVALID_INSTANCE',
      message: expect.stringMatching(/serviceName .*http:\/\/serviceName\/.*lower-case/),
    });
  });

  it.each(['user-service', 'users_v2', '2fa', 'u'])(
    'a registration is accepted under the name %s',
    async (name) => {
      await expect(register(name)).resolves.not.toBeInstanceOf(Error);
    },
  );
});

it('every name that a service can be registered under is reached by http://name/, and no other name is', () => {
  const targets = new MeshTargets('tests');
  const name = fc.oneof(
    fc.stringMatching(/^[A-Za-z\d][\w.:-]{0,30}$/),
    fc.stringMatching(/^(0[xX])?[\da-fA-F]{1,12}$/),
    fc.constantFrom('localhost', 'LOCALHOST', 'constructor', '__proto__'),
  );
  fc.assert(
    fc.property(name, (text) => {
      const url = `http://${text}/a`;
      const reached = URL.canParse(url) && targets.serviceOf(new URL(url)) === text;
      if (reached) checkServiceName(text);
      else expect(() => checkServiceName(text)).toThrow(InvalidInstanceError);
    }),
    { numRuns: 1_000 },
  );
});

it('a name that is not registered but resolved by a function may be one of DNS, and is called by it', async () => {
  const server = await startServer((_request, response) => json(response, { ok: true }));
  const resolver = new FakeDns();
  const name = 'users.default.svc.cluster.local';
  resolver.addresses(name, ['127.0.0.1']);
  const discovery = new DnsServiceDiscovery({
    services: (at) => ({ name: at, port: server.port }),
    resolver,
  });
  const client = new ServiceClient({ discovery });
  onTestFinished(async () => {
    await client.close();
    await discovery.close();
  });
  await expect(client.call({ service: name, path: '/' })).resolves.toEqual({ ok: true });
  expect(discovery.knows(name)).toBe(true);
});
