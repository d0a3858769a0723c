import fastify from 'fastify';
import { expect, it, onTestFinished } from 'vitest';
import { gateway as gatewayPlugin } from '../../src/gateway/index.ts';
import type { RouteOptions } from '../../src/gateway/options.ts';
import { StaticServiceDiscovery } from '../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startRecordedGateway } from '../support/gateway.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';

/** Gives the Location that a client gets where the service sends this one; INSTANCE stands for its address. */
async function locate(location: string, route: Partial<RouteOptions> = {}, path = '/a', name = 'Location') {
  const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, ...route }] });
  const written = location.replace('INSTANCE', upstream.origin.slice('http://'.length));
  upstream.reply = `HTTP/1.1 201 Created\r\n${name}: ${written}\r\ncontent-length: 0\r\n\r\n`;
  const client = await open();
  client.send(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`);
  expect(await client.status()).toBe(201);
  return new RegExp(`^${name}: (.*)\r$`, 'im').exec(client.received)?.[1];
}

it.each([
  ['http://INSTANCE/internal', '/internal'],
  ['http://INSTANCE/a?b=c#d', '/a?b=c#d'],
  ['HTTP://INSTANCE', '/'],
  ['http://INSTANCE?a=b', '/?a=b'],
  ['//INSTANCE/a', '/a'],
])('the Location %s of a service names its instance, and a client gets %s', async (location, seen) => {
  expect(await locate(location)).toBe(seen);
  expect(await locate(location, {}, '/a', 'Content-Location')).toBe(seen);
});

it.each([
  '/internal',
  '../b',
  'https://other.example/a',
  'http://127.0.0.1:1/a',
  'https://INSTANCE/a',
  '//[broken/a',
  '',
])('the Location %s of a service goes to the client as it is', async (location) => {
  const seen = await locate(location, { path: '/*', rewrite: '/x/*' });
  expect(seen?.replace(/127\.0\.0\.1:\d{2,}/, 'INSTANCE')).toBe(location);
});

it.each([
  'http://INSTANCE//evil.example/a',
  'http://INSTANCE/\\evil.example/a',
  'http://INSTANCE\\/\t/evil.example/a',
])('the Location %s of a service does not become the name of another host', async (location) => {
  expect(await locate(location)).toBe('/evil.example/a');
  expect(await locate(location.replace('INSTANCE', 'INSTANCE/x'), { rewrite: '/x/*' })).toMatch(/^\/x?\w/);
});

it.each([
  ['/api/v1/users/:id', '/users/:id', '/api/v1/users/7', '/users/9', '/api/v1/users/9'],
  ['/api/v1/payments', '/payments', '/api/v1/payments', '/payments/77?a=b', '/api/v1/payments/77?a=b'],
  ['/shop/*', '/*', '/shop/a', '/b', '/shop/b'],
  ['/old/*', '/new/*', '/old/a', '/new', '/old'],
  ['/old/*', '/new/*', '/old/a', '/newer/b', '/newer/b'],
  ['/*', '/internal/*', '/a', '/internal/b', '/b'],
  ['/*', '/internal/*', '/a', '/internal', '/'],
  ['/ö/*', '/*', '/%C3%B6/a', '/b', '/%C3%B6/b'],
  ['/a/:id', '/b/:id/c', '/a/1', '/b/2/c', '/b/2/c'],
])(
  'where %s becomes %s, a Location at the instance has its path at the gateway',
  async (path, rewrite, sent, to, seen) => {
    expect(await locate(`http://INSTANCE${to}`, { path, rewrite }, sent)).toBe(seen);
  },
);

it('the path of a Location at the instance begins with the prefix of a plugin', async () => {
  const upstream = await startRecordingUpstream();
  upstream.reply = `HTTP/1.1 302 Found\r\nlocation: ${upstream.origin}/b\r\ncontent-length: 0\r\n\r\n`;
  const app = fastify();
  onTestFinished(() => app.close());
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
  await app.register(gatewayPlugin, {
    discovery,
    prefix: '/api',
    routes: [{ ...OPEN_ROUTE, rewrite: '/*' }],
  });
  const url = await app.listen({ port: 0 });
  const { headers } = await fetch(`${url}/api/a`, { redirect: 'manual' });
  expect(headers.get('location')).toBe('/api/b');
});
