import { describe, expect, it, onTestFinished } from 'vitest';
import type { RouteOptions } from '../../src/gateway/options.ts';
import { InMemoryServiceDiscovery, ServiceClient } from '../../src/index.ts';
import { SERVICE, startGateway } from '../support/gateway.ts';
import { type Handler, startServer } from '../support/server.ts';

/** Splits by a header, so that a test can say which client it is. */
function canaryRoute(share: number): RouteOptions {
  return {
    path: '/*',
    service: SERVICE,
    auth: false,
    sticky: 'header:x-client',
    split: [
      { select: { version: '1' }, share: 1 - share },
      { select: { version: '2' }, share },
    ],
  };
}

/** Starts both versions, and a gateway in front of them. */
async function startVersions(canary: Handler, share = 0.3) {
  const discovery = new InMemoryServiceDiscovery();
  const handlers: Handler[] = [(_request, response) => void response.end('1'), canary];
  for (const [index, handler] of handlers.entries()) {
    const { port } = await startServer(handler);
    const metadata = { version: String(index + 1) };
    const instanceId = `v${index + 1}`;
    await discovery.register({ serviceName: SERVICE, instanceId, host: '127.0.0.1', port, metadata });
  }
  const client = new ServiceClient({ discovery, defaults: { retry: false } });
  const { gateway, url } = await startGateway([], { client, routes: [canaryRoute(share)] });
  onTestFinished(() => client.close());
  /** Sends a request of each of the clients, and gives the versions or statuses. */
  const ask = async (clients = 60): Promise<string[]> => {
    const results: string[] = [];
    for (let index = 0; index < clients; index++) {
      const response = await fetch(url, { headers: { 'x-client': `client-${index}` } });
      results.push(response.ok ? await response.text() : String(response.status));
    }
    return results;
  };
  return { discovery, gateway, ask };
}

const well: Handler = (_request, response) => void response.end('2');

describe('a canary behind the gateway', () => {
  it('its clients stay at it, and a reload that gives it more takes clients from the other alone', async () => {
    const { gateway, ask } = await startVersions(well);
    const before = await ask();
    expect(new Set(before)).toEqual(new Set(['1', '2']));
    expect(await ask()).toEqual(before);
    await gateway.reload({ routes: [canaryRoute(0.6)] });
    const after = await ask();
    expect(after.filter((version) => version === '2').length).toBeGreaterThan(
      before.filter((version) => version === '2').length,
    );
    expect(before.every((version, client) => version === '1' || after[client] === '2')).toBe(true);
  });

  it('a canary that fails has its own breaker open, and no client of the other version notices', async () => {
    const { ask } = await startVersions((_request, response) => void response.writeHead(500).end());
    const first = await ask(150);
    const others = first.flatMap((result, client) => (result === '1' ? [client] : []));
    expect(first).toContain('503');
    const second = await ask(150);
    expect(others.every((client) => second[client] === '1')).toBe(true);
  });

  it('the clients of a canary without an instance go to the other version until there is one', async () => {
    const { discovery, ask } = await startVersions(well);
    const usual = await ask();
    const [canary] = (await discovery.instances(SERVICE)).filter(({ metadata }) => metadata.version === '2');
    await discovery.deregister(SERVICE, canary!.instanceId);
    expect(new Set(await ask())).toEqual(new Set(['1']));
    const { host, port, metadata } = canary!;
    await discovery.register({ serviceName: SERVICE, host, port, metadata });
    expect(await ask()).toEqual(usual);
  });
});
