import fastify from 'fastify';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type GatewayPluginOptions, gateway } from '../../src/gateway/index.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { OPEN_ROUTE, SERVICE } from '../support/gateway.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';

/** Starts an app with the gateway as a plugin, beside a route of its own. */
async function startApp(options: Partial<GatewayPluginOptions> = {}) {
  const upstream = await startRecordingUpstream();
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
  const client = new ServiceClient({ discovery });
  const app = fastify();
  app.get('/own', async () => 'own');
  app.post('/own', async ({ body }) => body);
  await app.register(gateway, { client, routes: [OPEN_ROUTE], ...options });
  onTestFinished(async () => {
    await app.close();
    await client.close();
  });
  return { app, upstream, start: () => app.listen({ port: 0, host: '127.0.0.1' }) };
}

describe('the gateway as a plugin of Fastify', () => {
  it('takes what the app has no route for, and leaves its parsers to the rest', async () => {
    const { upstream, start } = await startApp();
    const url = await start();
    const headers = { 'content-type': 'application/json' };
    expect(await (await fetch(`${url}/own`)).text()).toBe('own');
    expect(await (await fetch(`${url}/own`, { method: 'POST', headers, body: '{"a":1}' })).json()).toEqual({
      a: 1,
    });
    expect(await (await fetch(`${url}/a`, { method: 'POST', headers, body: '{"b":2}' })).text()).toBe('ok');
    expect(upstream.requestLines).toEqual(['POST /a HTTP/1.1']);
    expect(upstream.bytes).toMatch(/\r\n\r\n\{"b":2\}$/);
  });

  it('forwards a body whose type Fastify would reject', async () => {
    const { upstream, start } = await startApp();
    const url = await start();
    const response = await fetch(`${url}/a`, {
      method: 'POST',
      headers: { 'content-type': 'x' },
      body: 'hi',
    });
    expect(response.status).toBe(200);
    expect(upstream.bytes).toMatch(/\r\n\r\nhi$/);
  });

  it('has its routes under its prefix', async () => {
    const { upstream, start } = await startApp({
      prefix: '/api',
      routes: [{ ...OPEN_ROUTE, path: '/users/*', rewrite: '/*' }],
    });
    const url = await start();
    expect((await fetch(`${url}/api/users/u1?a`)).status).toBe(200);
    expect((await fetch(`${url}/api`)).status).toBe(404);
    expect((await fetch(`${url}/users/u1`)).headers.get('content-type')).toContain('application/json');
    expect(upstream.requestLines).toEqual(['GET /u1?a HTTP/1.1']);
  });

  it('has its routes, health and WebSockets under the prefixes of its app and its own', async () => {
    const upstream = await startRecordingUpstream();
    const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
    const client = new ServiceClient({ discovery });
    const app = fastify();
    onTestFinished(async () => {
      await app.close();
      await client.close();
    });
    const routes = [{ ...OPEN_ROUTE, path: '/a', rewrite: '/b', webSocket: true }];
    await app.register(
      (own, _options, done) => {
        void own.register(gateway, { client, routes, prefix: '/gw' });
        done();
      },
      { prefix: '/api' },
    );
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    expect((await fetch(`${url}/api/gw/a`)).status).toBe(200);
    expect((await fetch(`${url}/api/gw/health`)).status).toBe(200);
    const webSocket = await openRawClient(url);
    webSocket.send(
      'GET /api/gw/a HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    );
    expect(await webSocket.status()).toBe(426);
    expect((await fetch(`${url}/gw/a`)).status).toBe(404);
    expect(upstream.requestLines).toEqual(['GET /b HTTP/1.1']);
  });

  it.each(['/api/', 'api', '/', '/a b', '/:id', '/../a', 5])('rejects the prefix %j', async (prefix) => {
    const app = fastify();
    onTestFinished(() => app.close());
    const discovery = new StaticServiceDiscovery({});
    const options = { discovery, routes: [OPEN_ROUTE], prefix: prefix as string };
    await expect(app.register(gateway, options)).rejects.toMatchObject({
      code: 'ERR_GATEWAY_CONFIG',
      path: 'prefix',
    });
  });

  it('runs the hooks of the app, whose headers replace those of the service', async () => {
    const { app, upstream, start } = await startApp();
    app.addHook('onRequest', async (request, reply) => {
      reply.header('x-hook', 'app').header('vary', 'origin');
      if (request.url === '/closed') await reply.code(403).send('closed');
    });
    upstream.reply = 'HTTP/1.1 200 OK\r\nx-hook: service\r\nvary: accept\r\ncontent-length: 2\r\n\r\nok';
    const url = await start();
    const { headers } = await fetch(`${url}/a`);
    expect(headers.get('x-hook')).toBe('app');
    expect(headers.get('vary')).toBe('origin, accept');
    expect((await fetch(`${url}/closed`)).status).toBe(403);
    expect(upstream.requestLines).toHaveLength(1);
  });

  it('is reloaded through the app', async () => {
    const { app, start } = await startApp();
    const url = await start();
    await app.gateway.reload({ routes: [{ path: '/other', service: 'shop', auth: false }] });
    expect((await fetch(`${url}/a`)).status).toBe(404);
  });
});
