import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { describe, expect, it, type TestContext } from 'vitest';
import {
  DnsServiceDiscovery,
  type DnsServiceDiscoveryOptions,
  ServiceClient,
  type ServiceInstance,
} from '../../src/index.ts';
import { type DnsServer, startDnsServer } from '../support/dns-server.ts';

const service = 'user-service';
const name = 'users.test';

type AtEnd = TestContext['onTestFinished'];

/** An HTTP server at an address of loopback. */
async function startAt(atEnd: AtEnd, host: string, port = 0) {
  const server = createServer((_request, response) => void response.end(host));
  server.listen(port, host);
  await once(server, 'listening');
  const stop = async () => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  atEnd(stop);
  return { port: (server.address() as AddressInfo).port, stop };
}

function discoveryOf(atEnd: AtEnd, server: DnsServer, options: Partial<DnsServiceDiscoveryOptions>) {
  const resolver = new Resolver({ timeout: 2_000, tries: 1 });
  resolver.setServers([server.address]);
  const discovery = new DnsServiceDiscovery({ services: { [service]: { name } }, resolver, ...options });
  atEnd(() => discovery.close());
  return discovery;
}

/** Resolves when the instance accepts a connection, and rejects with what connecting to it fails with. */
async function connectTo({ host, port }: ServiceInstance): Promise<void> {
  const socket = connect({ host, port });
  try {
    await once(socket, 'connect');
  } finally {
    socket.destroy();
  }
}

/** Calls the first instance again and again, with a hint after each failure, until one accepts. */
async function callUntilWell(discovery: DnsServiceDiscovery) {
  const start = performance.now();
  for (let failures = 0; ; failures++) {
    const [instance] = await discovery.instances(service);
    try {
      await connectTo(instance!);
      return { host: instance!.host, failures, duration: performance.now() - start };
    } catch (error) {
      expect(error).toMatchObject({ code: 'ECONNREFUSED' });
      discovery.refresh(service);
    }
  }
}

// They wait for most of the time: so all of them at once.
describe.concurrent('a name in DNS', () => {
  it('whose address changes is called at the new one within 2 seconds of a refused connection', async ({
    onTestFinished: atEnd,
  }) => {
    const dns = await startDnsServer(atEnd);
    const one = await startAt(atEnd, '127.0.0.1');
    const at = { [service]: { name, port: one.port } };
    const discovery = discoveryOf(atEnd, dns, { services: at });
    dns.set(name, [{ type: 'A', address: '127.0.0.1', ttl: 3_600 }]);
    discovery.watch(service, () => {});
    expect(await callUntilWell(discovery)).toMatchObject({ host: '127.0.0.1', failures: 0 });

    await one.stop();
    await startAt(atEnd, '127.0.0.2', one.port);
    dns.set(name, [{ type: 'A', address: '127.0.0.2', ttl: 3_600 }]);
    const { host, failures, duration } = await callUntilWell(discovery);

    expect(host).toBe('127.0.0.2');
    expect(failures).toBeGreaterThan(0);
    expect(duration).toBeLessThan(2_000);
    expect(dns.questions).toHaveLength(2);
  });

  it('whose address changes fails no calls of a client for longer than 2 seconds, POSTs included', async ({
    onTestFinished: atEnd,
  }) => {
    const dns = await startDnsServer(atEnd);
    const one = await startAt(atEnd, '127.0.0.1');
    const discovery = discoveryOf(atEnd, dns, { services: { [service]: { name, port: one.port } } });
    dns.set(name, [{ type: 'A', address: '127.0.0.1', ttl: 3_600 }]);
    const client = new ServiceClient({ discovery });
    atEnd(() => client.close());
    const call = (method: string) => client.call({ service, method, path: '/' });
    expect(await call('GET')).toBe('127.0.0.1');

    await one.stop();
    await startAt(atEnd, '127.0.0.2', one.port);
    dns.set(name, [{ type: 'A', address: '127.0.0.2', ttl: 3_600 }]);
    const changed = performance.now();
    let reached: unknown;
    for (let calls = 0; reached === undefined; calls++) {
      reached = await call(calls % 2 === 0 ? 'POST' : 'GET').catch(() => undefined);
      // Calls that are rejected at once would leave the event loop no turn to read what DNS says.
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(reached).toBe('127.0.0.2');
    expect(performance.now() - changed).toBeLessThan(2_000);
    for (const method of ['GET', 'POST']) expect(await call(method)).toBe('127.0.0.2');
  });

  it('whose address changes after the connection was refused is told at the new one within 2 seconds', async ({
    onTestFinished: atEnd,
  }) => {
    const dns = await startDnsServer(atEnd);
    const discovery = discoveryOf(atEnd, dns, { random: () => 0.5 });
    dns.set(name, [{ type: 'A', address: '127.0.0.1', ttl: 3_600 }]);
    await discovery.instances(service);
    discovery.refresh(service);
    await dns.asked(2);
    dns.set(name, [{ type: 'A', address: '127.0.0.2', ttl: 3_600 }]);
    const changed = performance.now();
    await new Promise<void>((resolve) => void discovery.watch(service, () => resolve()));
    expect(performance.now() - changed).toBeLessThan(2_000);
    expect(await discovery.instances(service)).toMatchObject([{ host: '127.0.0.2' }]);
  });

  it('that vanishes and returns is seen within 2 seconds', async ({ onTestFinished: atEnd }) => {
    const dns = await startDnsServer(atEnd);
    const discovery = discoveryOf(atEnd, dns, { minTtl: 50, absenceGrace: 0, random: () => 0.5 });
    dns.set(name, [{ type: 'A', address: '127.0.0.1', ttl: 0 }]);
    const told: string[][] = [];
    let onChange = () => {};
    discovery.watch(service, (instances) => {
      told.push(instances.map(({ host }) => host));
      onChange();
    });
    const nextChange = () =>
      new Promise<void>((resolve) => {
        onChange = resolve;
      });
    await nextChange();
    dns.set(name, 'NXDOMAIN');
    await nextChange();
    dns.set(name, [{ type: 'A', address: '127.0.0.1', ttl: 0 }]);
    const returned = performance.now();
    await nextChange();
    expect(performance.now() - returned).toBeLessThan(2_000);
    expect(told).toEqual([['127.0.0.1'], [], ['127.0.0.1']]);
  });
});
