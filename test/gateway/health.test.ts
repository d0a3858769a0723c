import { createHash } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { GatewayHealth } from '../../src/gateway/health.ts';
import { createGateway } from '../../src/gateway/index.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { freePort } from '../support/free-port.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startServer } from '../support/server.ts';

const KEY = 'a key of at least 128 bits';
const hash = createHash('sha256').update(KEY).digest('hex');

/** Starts a gateway before `shop`, which responds, and `pay`, which does not listen. */
async function start(options: object = {}) {
  const shop = await startServer((_request, response) => void response.end('ok'));
  const pay = `http://127.0.0.1:${await freePort()}`;
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ shop: [shop.origin], pay: [pay] }),
    defaults: { retry: false },
  });
  const gateway = await createGateway({
    client,
    auth: { apiKeys: [{ hash, subject: 'operator' }] },
    drainDelay: 0,
    shutdownTimeout: 100,
    routes: [
      { path: '/shop/*', service: 'shop', auth: false },
      { path: '/pay/*', service: 'pay', auth: false },
    ],
    ...options,
  });
  onTestFinished(async () => {
    await gateway.close();
    await client.close();
  });
  const url = await gateway.listen({ port: 0 });
  const health = async (headers: Record<string, string> = {}) => {
    const response = await fetch(`${url}/health`, { headers });
    // The form that docs/gateway.md tells.
    return { status: response.status, body: (await response.json()) as GatewayHealth };
  };
  return { gateway, client, url, health };
}

const asOperator = { 'x-api-key': KEY };

describe('the health of a gateway', () => {
  it('tells all its status, and the services to those with a key alone', async () => {
    const { health } = await start();
    const { status, body } = await health();
    expect(status).toBe(200);
    expect(body).toEqual({ status: 'healthy', timestamp: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect((await health({ 'x-api-key': 'another' })).body).not.toHaveProperty('services');
    expect((await health(asOperator)).body.services).toEqual({
      shop: { status: 'healthy', circuitBreaker: 'closed' },
      pay: { status: 'healthy', circuitBreaker: 'closed' },
    });
  });

  it('tells the services to internal addresses, and to nobody that claims to have one', async () => {
    const { health } = await start({ internalAddresses: ['127.0.0.0/8'] });
    expect((await health()).body).toHaveProperty('services');
    const other = await start({ internalAddresses: ['10.0.0.0/8'] });
    expect((await other.health({ 'x-forwarded-for': '10.0.0.1' })).body).not.toHaveProperty('services');
  });

  it('is degraded with 200 while the breaker of a service is open, as the traffic has told', async () => {
    const { url, health } = await start();
    for (let count = 0; count < 30; count++) await fetch(`${url}/pay/a`);
    const { status, body } = await health(asOperator);
    expect([status, body.status]).toEqual([200, 'degraded']);
    expect(body.services).toEqual({
      shop: { status: 'healthy', circuitBreaker: 'closed' },
      pay: { status: 'unhealthy', circuitBreaker: 'open' },
    });
  });

  it('is unhealthy with 503 while no service is called', async () => {
    const { client, health } = await start();
    for (const service of ['shop', 'pay']) client.policies(service).circuitBreaker!.isolate();
    const { status, body } = await health(asOperator);
    expect([status, body.status, body.services!.pay!.circuitBreaker]).toEqual([503, 'unhealthy', 'isolated']);
  });

  it('tells the breakers of the versions that requests are split over', async () => {
    const split = [
      { select: { version: '1' }, share: 0.9 },
      { select: { version: '2' }, share: 0.1 },
    ];
    const { health } = await start({ routes: [{ path: '/*', service: 'shop', auth: false, split }] });
    expect((await health(asOperator)).body.services).toEqual({
      shop: { status: 'healthy', versions: { 'version=1': 'closed', 'version=2': 'closed' } },
    });
  });

  it('responds to HEAD as to GET, without the body', async () => {
    const { url } = await start();
    const response = await fetch(`${url}/health`, { method: 'HEAD' });
    expect([response.status, await response.text()]).toEqual([200, '']);
    expect(response.headers.get('content-type')).toBe('application/json');
  });

  it('is unhealthy with 503 for new connections, until the drain delay is over', async () => {
    const { gateway, url, health } = await start({ drainDelay: 500 });
    const closing = gateway.close();
    expect((await health()).status).toBe(503);
    expect((await fetch(`${url}/shop/a`)).status).toBe(200);
    await closing;
    await expect(openRawClient(url)).rejects.toThrow('ECONNREFUSED');
  });

  it('is unhealthy with 503 from the moment that the gateway is told to end', async () => {
    const { gateway, url } = await start({ shutdownTimeout: 5_000 });
    const client = await openRawClient(url);
    // A request that has begun keeps its connection open, on which the response can be seen.
    client.send('GET /health HTTP/1.1\r\nHost: a\r\n');
    await new Promise((resolve) => setImmediate(resolve));
    const closing = gateway.close();
    client.send('\r\n');
    expect(await client.status()).toBe(503);
    expect(client.received).toContain('"status":"unhealthy"');
    await closing;
  });
});
