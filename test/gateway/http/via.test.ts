import { connect } from 'node:http2';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createGateway } from '../../../src/gateway/index.ts';
import { InMemoryServiceDiscovery, ServiceClient } from '../../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startRecordedGateway } from '../../support/gateway.ts';
import { openRawClient } from '../../support/raw-client.ts';
import { startServer } from '../../support/server.ts';
import { handshakeHead } from '../../support/websockets.ts';

const get = (version: string, ...lines: string[]) =>
  [`GET /a HTTP/${version}`, 'Host: shop.example', ...lines, '', ''].join('\r\n');
const viaIn = (bytes: string) => bytes.match(/^via: .*(?=\r$)/gim);

describe('the entry of a gateway in Via', () => {
  it.each([
    ['is the only one where nothing came in', get('1.1'), /^via: 1\.1 holdfast-[\da-f]{12}$/],
    ['has the version of the request', get('1.0'), /^via: 1\.0 holdfast-[\da-f]{12}$/],
    [
      'follows those that came in, in one line',
      get('1.1', 'Via: 1.0 fred, 1.1 p.example (a b)', 'VIA: 2 cdn'),
      /^via: 1\.0 fred, 1\.1 p\.example \(a b\), 2 cdn, 1\.1 holdfast-[\da-f]{12}$/,
    ],
    [
      'is the only one behind a Via that is empty',
      get('1.1', 'Via:', 'Via: '),
      /^via: 1\.1 holdfast-[\da-f]{12}$/,
    ],
    [
      'follows those that came in around empty ones',
      get('1.1', 'Via:', 'Via: 1.0 fred', 'Via:'),
      /^via: 1\.0 fred, 1\.1 holdfast-[\da-f]{12}$/,
    ],
  ])('the entry of a gateway in Via %s', async (_name, request, expected) => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(request);
    expect(await client.status()).toBe(200);
    expect(viaIn(upstream.bytes)).toEqual([expect.stringMatching(expected)]);
  });

  it('the entry of a gateway in Via has the version of a request of HTTP/2', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const session = connect(url);
    onTestFinished(() => session.destroy());
    session.request({ ':path': '/a', ':authority': 'shop.example' }).resume();
    await upstream.waitFor('\r\n\r\n');
    expect(viaIn(upstream.bytes)).toEqual([expect.stringMatching(/^via: 2\.0 holdfast-/)]);
  });

  it('a request for a WebSocket has the entry of the gateway, and gets 508 once it has three', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, webSocket: true }] });
    const client = await open();
    client.send(handshakeHead('/live'));
    await upstream.waitFor('\r\n\r\n');
    const [via] = viaIn(upstream.bytes)!;
    expect(via).toMatch(/^via: 1\.1 holdfast-/);
    const again = await open();
    again.send(handshakeHead('/live').replace(/\r\n\r\n$/, `\r\n${via}\r\n${via}\r\n${via}\r\n\r\n`));
    expect(await again.status()).toBe(508);
  });

  it('a request has no Via where a rule of the route takes it away', async () => {
    const requestHeaders = { remove: ['Via'] };
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, requestHeaders }] });
    const client = await open();
    client.send(get('1.1', 'Via: 1.0 fred'));
    expect(await client.status()).toBe(200);
    expect(viaIn(upstream.bytes)).toBeNull();
  });
});

describe('a request that comes back to its gateway', () => {
  it('a request that has passed its gateway three times gets 508, however the entries are written', async () => {
    const { upstream, open } = await startRecordedGateway();
    const first = await open();
    first.send(get('1.1'));
    await first.status();
    const [name] = /holdfast-[\da-f]+/.exec(upstream.bytes)!;
    for (const [line, status] of [
      [`Via: 1.1 ${name}, 1.1 ${name}`, 200],
      [`Via: 1.1 ${name}, 1.1 ${name}, 2.0 ${name}`, 508],
      [`Via: 1.0 fred,HTTP/1.1\t${name} (edge) , 1.1 ${name},1.1 ${name}, 1.1 last`, 508],
      [`Via: 1.1 ${name}\r\nVia: 1.1 fred, 1.1 ${name}\r\nVia: 1.1 ${name}`, 508],
      [`Via: 1.1 ${name}, 1.1 ${name}, 1.1 ${name}0, 1.1 (${name}), ${name}`, 200],
    ] as const) {
      const client = await open();
      client.send(get('1.1', line));
      expect([line, await client.status()]).toEqual([line, status]);
    }
    expect(upstream.requestLines).toHaveLength(3);
  });

  it('a request in a loop of one gateway passes it three times, and then gets 508', async () => {
    const { paths, url, register } = await startLogged();
    await register(url);
    const client = await openRawClient(url);
    client.send(get('1.1'));
    expect(await client.status()).toBe(508);
    await client.waitFor('urn:holdfast:problem:loop-detected');
    const expected = ['/a 508', '/a 508', '/a 508', '/a 508'];
    await vi.waitFor(() => expect(paths).toEqual(expected), { interval: 5 });
  });

  it('a service that forwards its headers may call other routes of its gateway', async () => {
    const { paths, url, register } = await startLogged();
    const next: Record<string, string> = { '/a': '/b', '/b': '/c' };
    const { origin } = await startServer(async (request, response) => {
      const path = next[request.url!];
      if (path === undefined) return void response.end('ok');
      const headers = { via: request.headers.via! };
      const called = await fetch(`${url}${path}`, { headers });
      response.writeHead(called.status).end(await called.text());
    });
    await register(origin);
    const client = await openRawClient(url);
    client.send(get('1.1'));
    expect(await client.status()).toBe(200);
    await vi.waitFor(() => expect(paths).toEqual(['/c 200', '/b 200', '/a 200']), { interval: 5 });
  });
});

/** Starts a gateway whose service is registered later, and which tells the paths and statuses of its requests. */
async function startLogged() {
  const discovery = new InMemoryServiceDiscovery();
  const client = new ServiceClient({ discovery });
  const paths: string[] = [];
  const gateway = await createGateway({
    client,
    routes: [OPEN_ROUTE],
    drainDelay: 0,
    shutdownTimeout: 100,
    accessLog: ({ path, status }) => paths.push(`${path} ${status}`),
  });
  onTestFinished(async () => {
    await client.close();
    await gateway.close();
  });
  const url = await gateway.listen({ port: 0 });
  const register = (origin: string) =>
    discovery.register({ serviceName: SERVICE, host: '127.0.0.1', port: Number(new URL(origin).port) });
  return { paths, url, register };
}
