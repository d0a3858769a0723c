import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { get, Agent as HttpAgent } from 'node:http';
import type { LookupFunction } from 'node:net';
import axios from 'axios';
import { Agent, request, fetch as undiciFetch } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { engineOf } from '../../src/client/call-engine.ts';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  DnsServiceDiscovery,
  InMemoryServiceDiscovery,
  LoadBalancer,
  type MeshOptions,
  ServiceClient,
  type ServiceDiscovery,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { collectWarnings, rejectionOf } from '../policies/helpers.ts';
import { startServer } from '../support/server.ts';

const CHANNEL = 'holdfast:service-client:passthrough';
const service = 'user-service';

/** Every host name is this machine's. */
const lookup: LookupFunction = (_hostname, { all }, callback) => {
  if (all) callback(null, [{ address: '127.0.0.1', family: 4 }]);
  else callback(null, '127.0.0.1', 4);
};

type Get = (url: string) => Promise<unknown>;

/** How each adapter gets a URL, the hosts outside the mesh being this machine. */
const adapters: Record<string, (client: ServiceClient, options?: MeshOptions) => Get> = {
  'createFetch()': (client, options) => {
    return createFetch(client, { ...options, fallback: fetchOutside() });
  },
  "createDispatcher() in undici's request": (client, options) => {
    const dispatcher = createDispatcher(client, { ...options, fallback: outside() });
    return async (url) => (await request(url, { dispatcher })).body.dump();
  },
  'createDispatcher() in the built-in fetch': (client, options) => {
    const dispatcher = createDispatcher(client, { ...options, fallback: outside() });
    return (url) => fetch(url, { dispatcher } as RequestInit);
  },
  'axiosAdapter()': (client, options) => {
    const adapter = axiosAdapter(client, { ...options, fallback: fetchOutside() });
    return (url) => axios.get(url, { adapter, validateStatus: null });
  },
  'createHttpAgent()': (client, options) => {
    const http = new HttpAgent({ lookup });
    const agent = createHttpAgent(client, { ...options, passthrough: { http } });
    onTestFinished(() => agent.destroy());
    return (url) =>
      new Promise((resolve, reject) => {
        get(url, { agent }, (response) => response.resume().on('end', resolve)).on('error', reject);
      });
  },
};

function outside(): Agent {
  const agent = new Agent({ connect: { lookup } });
  onTestFinished(() => agent.destroy());
  return agent;
}

function fetchOutside(): typeof fetch {
  const dispatcher = outside();
  return ((input: string, init: object) => undiciFetch(input, { ...init, dispatcher })) as never;
}

function clientOver(discovery: ServiceDiscovery, services = {}): ServiceClient {
  const client = new ServiceClient({ discovery, services });
  onTestFinished(() => client.close());
  return client;
}

/** What is published from now on. */
function published(): unknown[] {
  const events: unknown[] = [];
  const listener = (message: unknown) => events.push((message as { event: unknown }).event);
  subscribe(CHANNEL, listener);
  onTestFinished(() => void unsubscribe(CHANNEL, listener));
  return events;
}

const warnings = () => collectWarnings('HoldfastPassthroughWarning');

describe.each(Object.entries(adapters))('%s', (_name, adapter) => {
  it('warns once and publishes each request whose host but for its port is a known service', async () => {
    const server = await startServer((_request, response) => void response.writeHead(503).end());
    const client = clientOver(new StaticServiceDiscovery({ [service]: [server.origin] }));
    const events = published();
    const warned = warnings();
    const get = adapter(client);
    const host = `${service}:${server.port}`;
    for (const path of ['/users/u1', '/users/u2?a=b']) await get(`http://${host}${path}`);
    expect(server.requests).toHaveLength(2);
    expect(events).toEqual([
      { host, service },
      { host, service },
    ]);
    await warned.stop();
    expect(warned.warnings).toHaveLength(1);
    expect(warned.warnings[0]).toMatchObject({
      message: expect.stringContaining(host),
      detail: expect.stringContaining(`http://${service} without a port`),
    });
  });

  it('says nothing of a host that is no service, nor where a route of the user decides', async () => {
    const server = await startServer((_request, response) => void response.end());
    const client = clientOver(new StaticServiceDiscovery({ [service]: [server.origin] }));
    const events = published();
    const warned = warnings();
    const get = adapter(client);
    for (const host of ['elsewhere', 'localhost', `${service}.example.com`]) {
      await get(`http://${host}:${server.port}/`);
    }
    await get(`${server.origin}/`);
    await adapter(client, { route: () => undefined })(`http://${service}:${server.port}/`);
    expect(server.requests).toHaveLength(5);
    await warned.stop();
    expect([...events, ...warned.warnings]).toEqual([]);
  });

  it('rejects a host with a port if it is strict, and says why', async () => {
    const server = await startServer((_request, response) => void response.end());
    const client = clientOver(new StaticServiceDiscovery({ [service]: [server.origin] }));
    const error = await rejectionOf(adapter(client, { strict: true })(`http://${service}:${server.port}/`));
    const messages: unknown[] = [];
    for (let cause = error as Error | undefined; cause instanceof Error; cause = cause.cause as Error) {
      messages.push(cause.message);
    }
    expect(messages.join()).toContain('the URL of a service has no port');
    expect(server.requests).toHaveLength(0);
  });
});

describe('a near miss', () => {
  const note = (client: ServiceClient, url: string) =>
    createFetch(client, { fallback: async () => new Response() })(url);

  it('is noticed of a service that is known in any way, without a lookup', async () => {
    const inMemory = new InMemoryServiceDiscovery();
    await inMemory.register({ serviceName: service, host: '10.0.0.1', port: 1 });
    const resolver = { resolve4: vi.fn(), resolve6: vi.fn(), resolveSrv: vi.fn() };
    const dns = new DnsServiceDiscovery({
      services: { [service]: { name: 'users.test', port: 1 } },
      resolver,
    });
    onTestFinished(() => dns.close());
    const empty = new StaticServiceDiscovery({});
    for (const client of [clientOver(inMemory), clientOver(dns), clientOver(empty, { [service]: {} })]) {
      const events = published();
      await note(client, `http://${service}:3000/`);
      expect(events).toEqual([{ host: `${service}:3000`, service }]);
    }
    for (const resolve of Object.values(resolver)) expect(resolve).not.toHaveBeenCalled();
  });

  it('is noticed of a service whose instances only the balancer has in memory', async () => {
    const { watch, instances } = bare(new StaticServiceDiscovery({ [service]: ['http://10.0.0.1:1'] }));
    const loadBalancer = new LoadBalancer({ discovery: { watch, instances } as never });
    onTestFinished(() => loadBalancer.close());
    const client = new ServiceClient({ loadBalancer });
    const events = published();
    await note(client, `http://${service}:3000/`);
    expect(events).toEqual([]);
    (await loadBalancer.acquire(service)).release();
    await note(client, `http://${service}:3000/`);
    expect(events).toEqual([{ host: `${service}:3000`, service }]);
  });

  it.each([
    `http://${service}.default.svc.cluster.local/`,
    `http://${service}.default.svc:3000/`,
    `http://${service}./`,
    `https://${service.toUpperCase()}:3000/`,
  ])('is noticed of the other ways in which a service is written: %s', async (url) => {
    const client = clientOver(new StaticServiceDiscovery({ [service]: ['http://10.0.0.1:1'] }));
    const events = published();
    await note(client, url);
    expect(events).toEqual([{ host: new URL(url).host, service }]);
  });

  it('is told to listeners of the client, whatever they throw', async () => {
    const client = clientOver(new StaticServiceDiscovery({ [service]: ['http://10.0.0.1:1'] }));
    const threw = collectWarnings('HoldfastListenerWarning');
    const told: unknown[] = [];
    client.on('passthrough', (event) => {
      told.push(event);
      throw new Error('a listener of the user');
    });
    await expect(note(client, `http://${service}:3000/`)).resolves.toBeInstanceOf(Response);
    await threw.stop();
    expect(told).toEqual([{ host: `${service}:3000`, service }]);
    expect(threw.warnings).toHaveLength(1);
  });

  it.each([
    ['throws', () => fail(), 1],
    ['rejects', async () => fail(), 1],
    ['promises instead of telling', async () => true, 0],
  ])('harms nobody where the knows() of a discovery %s', async (_how, knows, reports) => {
    const discovery = Object.assign(bare(new StaticServiceDiscovery({})), { knows });
    const reported = collectWarnings('HoldfastListenerWarning');
    const events = published();
    await expect(note(clientOver(discovery as never), `http://${service}:3000/`)).resolves.toBeInstanceOf(
      Response,
    );
    await reported.stop();
    expect(events).toEqual([]);
    expect(reported.warnings).toHaveLength(reports);
  });

  it('is warned of for a bounded number of hosts, and leaves nothing behind of unknown ones', async () => {
    const discovery = new StaticServiceDiscovery({ [service]: ['http://10.0.0.1:1'] });
    const client = clientOver(discovery);
    const other = clientOver(discovery);
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const events = published();
    for (let port = 1_000; port < 3_000; port++) {
      engineOf(client).notePassthrough({ host: `${service}:${port}`, services: [service] });
      engineOf(other).notePassthrough({ host: `${service}:${port}`, services: [service] });
      engineOf(client).notePassthrough({ host: `unknown-${port}:1`, services: [`unknown-${port}`] });
    }
    // The process is warned of each host once, by all its clients and all tests above.
    const warned = warn.mock.calls.map(([message]) => String(message));
    expect(warned.length).toBeGreaterThan(900);
    expect(warned.length).toBeLessThanOrEqual(1_000);
    expect(new Set(warned).size).toBe(warned.length);
    expect(events).toHaveLength(4_000);
  });
});

function fail(): never {
  throw new Error('a function of the user');
}

/** The methods that every discovery has had from the start. */
function bare(discovery: StaticServiceDiscovery) {
  return {
    instances: (name: string) => discovery.instances(name),
    watch: discovery.watch.bind(discovery),
  } as unknown as Pick<ServiceDiscovery, 'instances' | 'watch'>;
}
