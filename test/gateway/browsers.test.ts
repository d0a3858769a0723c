import fastify from 'fastify';
import { describe, expect, it, onTestFinished } from 'vitest';
import { gateway as gatewayPlugin } from '../../src/gateway/index.ts';
import type { CorsOptions } from '../../src/gateway/options.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startGateway } from '../support/gateway.ts';
import { type Handler, startServer } from '../support/server.ts';

const SHOP = 'https://shop.example';
const EVIL = 'https://evil.example';

/** Starts a gateway before a service that says with `x-method` how it was called. */
async function gatewayOf(cors: CorsOptions | false, handler: Handler = () => {}, options = {}) {
  const { origin } = await startServer((request, response) => {
    response.setHeader('x-method', request.method!);
    void handler(request, response);
    response.end('ok');
  });
  return startGateway([origin], { cors, ...options });
}

const preflight = (url: string, origin: string, headers: Record<string, string> = {}) =>
  fetch(url, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'PUT', ...headers } });

const allowedOrigin = (response: Response) => response.headers.get('access-control-allow-origin');

describe('a gateway with CORS', () => {
  it('lets pages of the listed origins read responses, and no others', async () => {
    const { url } = await gatewayOf({ origins: [SHOP], credentials: true, exposedHeaders: ['x-method'] });
    const from = (origin: string) => fetch(url, { headers: { origin } });
    const allowed = await from(SHOP);
    expect(await allowed.text()).toBe('ok');
    expect(allowedOrigin(allowed)).toBe(SHOP);
    expect(allowed.headers.get('access-control-allow-credentials')).toBe('true');
    expect(allowed.headers.get('access-control-expose-headers')).toBe('x-method');
    for (const origin of [EVIL, 'null', `${SHOP}.evil.example`, 'http://shop.example', `${SHOP}:8443`, '*']) {
      expect(allowedOrigin(await from(origin))).toBe(null);
    }
  });

  it('responds to a preflight itself, also on a path without a route, and with no token', async () => {
    const { url } = await gatewayOf(
      { origins: [SHOP], methods: ['GET', 'PUT'], allowedHeaders: ['x-a'], maxAge: 600_000 },
      undefined,
      { routes: [{ ...OPEN_ROUTE, path: '/a' }] },
    );
    for (const path of ['/a', '/none']) {
      const response = await preflight(url + path, SHOP);
      expect(response.status).toBe(204);
      expect(allowedOrigin(response)).toBe(SHOP);
      expect(response.headers.get('access-control-allow-methods')).toBe('GET, PUT');
      expect(response.headers.get('access-control-allow-headers')).toBe('x-a');
      expect(response.headers.get('access-control-max-age')).toBe('600');
      expect(response.headers.get('x-method')).toBe(null);
      expect(response.headers.get('x-request-id')).toMatch(/./);
    }
    expect(allowedOrigin(await preflight(url, EVIL))).toBe(null);
  });

  it('sends OPTIONS requests that are no preflight to the service', async () => {
    const { url } = await gatewayOf({ origins: [SHOP] });
    for (const headers of [{}, { origin: SHOP }, { 'access-control-request-method': 'PUT' }]) {
      const response = await fetch(url, { method: 'OPTIONS', headers });
      expect(response.headers.get('x-method')).toBe('OPTIONS');
      expect(response.headers.get('access-control-allow-methods')).toBe(null);
    }
  });

  it('decides alone: what a service says of origins is dropped', async () => {
    const { url } = await gatewayOf({ origins: [SHOP] }, (_request, response) => {
      response.setHeader('access-control-allow-origin', '*');
      response.setHeader('access-control-allow-credentials', 'true');
      response.setHeader('vary', 'accept-encoding');
    });
    const response = await fetch(url, { headers: { origin: EVIL } });
    expect(allowedOrigin(response)).toBe(null);
    expect(response.headers.get('access-control-allow-credentials')).toBe(null);
    expect(response.headers.get('vary')!.toLowerCase().split(', ').sort()).toEqual([
      'accept-encoding',
      'origin',
    ]);
  });

  it('lets all origins read, and then responses do not vary by the origin', async () => {
    const { url } = await gatewayOf({ origins: '*' });
    const response = await fetch(url, { headers: { origin: EVIL } });
    expect(allowedOrigin(response)).toBe('*');
    expect(response.headers.get('vary')).toBe(null);
  });

  it('lets pages read the problem documents of the gateway too', async () => {
    const { url } = await gatewayOf({ origins: [SHOP] }, undefined, {
      routes: [{ ...OPEN_ROUTE, path: '/a' }],
    });
    const response = await fetch(`${url}/none`, { headers: { origin: SHOP } });
    expect([response.status, allowedOrigin(response)]).toEqual([404, SHOP]);
  });

  it('is changed, switched on and switched off by a reload', async () => {
    const { gateway, url } = await gatewayOf(false, (_request, response) => {
      response.setHeader('access-control-allow-origin', 'https://of-the-service.example');
    });
    const origin = async () => allowedOrigin(await fetch(url, { headers: { origin: SHOP } }));
    expect(await origin()).toBe('https://of-the-service.example');
    expect((await preflight(url, SHOP)).headers.get('x-method')).toBe('OPTIONS');
    await gateway.reload({ cors: { origins: [SHOP] } });
    expect(await origin()).toBe(SHOP);
    expect((await preflight(url, SHOP)).status).toBe(204);
    await gateway.reload({ cors: { origins: [EVIL] } });
    expect(await origin()).toBe(null);
    await gateway.reload({ cors: undefined });
    expect(await origin()).toBe('https://of-the-service.example');
  });

  it('leaves the other routes of an app alone where it is a plugin', async () => {
    const { origin } = await startServer((_request, response) => void response.end('ok'));
    const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ [SERVICE]: [origin] }) });
    const app = fastify();
    onTestFinished(() => app.close());
    onTestFinished(() => client.close());
    await app.register(gatewayPlugin, {
      client,
      prefix: '/api',
      routes: [OPEN_ROUTE],
      cors: { origins: [SHOP] },
    });
    app.get('/own', async () => 'own');
    const headers = { origin: SHOP };
    expect((await app.inject({ url: '/own', headers })).headers['access-control-allow-origin']).toBe(
      undefined,
    );
    const requested = { ...headers, 'access-control-request-method': 'PUT' };
    const response = await app.inject({ method: 'OPTIONS', url: '/api/a', headers: requested });
    expect([response.statusCode, response.headers['access-control-allow-origin']]).toEqual([204, SHOP]);
  });
});

describe('a gateway with helmet', () => {
  it('sets the headers of helmet on the responses of services and its own, in place of theirs', async () => {
    const helmet = {
      contentSecurityPolicy: { directives: { defaultSrc: ["'none'"] } },
      xFrameOptions: false,
    };
    const { url } = await gatewayOf(
      false,
      (_request, response) => {
        response.setHeader('content-security-policy', "default-src '*'");
        response.setHeader('x-powered-by', 'Express');
      },
      { helmet, routes: [{ ...OPEN_ROUTE, path: '/a' }] },
    );
    for (const path of ['/a', '/none']) {
      const { headers } = await fetch(url + path);
      expect(headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('x-frame-options')).toBe(null);
      expect(headers.get('x-powered-by')).toBe(null);
    }
    expect((await fetch(`${url}/a`)).headers.get('content-type')).toBe(null);
  });

  it('is switched by a reload, and options that helmet does not take are rejected whole', async () => {
    const { gateway, url } = await gatewayOf(false);
    const policy = async () => (await fetch(url)).headers.get('content-security-policy');
    expect(await policy()).toBe(null);
    await gateway.reload({ helmet: true });
    expect(await policy()).toMatch(/default-src/);
    const helmet = { contentSecurityPolicy: { directives: { 'default src!': ['a'] } } };
    await expect(gateway.reload({ helmet })).rejects.toMatchObject({
      code: 'ERR_GATEWAY_CONFIG',
      path: 'helmet',
    });
    expect(await policy()).toMatch(/default-src/);
    await gateway.reload({ helmet: false });
    expect(await policy()).toBe(null);
  });

  it('takes reloads over in their order, although the first one takes longer', async () => {
    const { gateway, url } = await gatewayOf(false);
    await Promise.all([gateway.reload({ helmet: true }), gateway.reload({ helmet: false })]);
    expect((await fetch(url)).headers.get('content-security-policy')).toBe(null);
  });
});
