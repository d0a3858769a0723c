import { connect } from 'node:http2';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createGateway } from '../../../src/gateway/index.ts';
import { InMemoryServiceDiscovery, ServiceClient } from '../../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startRecordedGateway } from '../../support/gateway.ts';
import { openRawClient } from '../../support/raw-client.ts';
import { handshakeHead } from '../../support/websockets.ts';

const get = (version: string, ...lines: string[]) =>
  [`GET /a HTTP/${version}`, 'Host: shop.example', ...lines, '', ''].join('\r\n');
const viaIn = (bytes: string) => bytes.match(/^via: .*(?=\r$)/gim);

describe('a gateway in Via', () => {
  it.each([
    ['alone', get('1.1'), /^via: 1\.1 holdfast-[\da-f]{12}$/],
    ['by the version of the request', get('1.0'), /^via: 1\.0 holdfast-[\da-f]{12}$/],
    [
      'behind those before it, in one line',
      get('1.1', 'Via: 1.0 fred, 1.1 p.example (a b)', 'VIA: 2 cdn'),
      /^via: 1\.0 fred, 1\.1 p\.example \(a b\), 2 cdn, 1\.1 holdfast-[\da-f]{12}$/,
    ],
  ])('stands %s', async (_name, request, expected) => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(request);
    expect(await client.status()).toBe(200);
    expect(viaIn(upstream.bytes)).toEqual([expect.stringMatching(expected)]);
  });

  it('stands by the version of HTTP/2', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const session = connect(url);
    onTestFinished(() => session.destroy());
    session.request({ ':path': '/a', ':authority': 'shop.example' }).resume();
    await upstream.waitFor('\r\n\r\n');
    expect(viaIn(upstream.bytes)).toEqual([expect.stringMatching(/^via: 2\.0 holdfast-/)]);
  });

  it('stands in a request for a WebSocket, and rejects one that has passed it', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, webSocket: true }] });
    const client = await open();
    client.send(handshakeHead('/live'));
    await upstream.waitFor('\r\n\r\n');
    const [via] = viaIn(upstream.bytes)!;
    expect(via).toMatch(/^via: 1\.1 holdfast-/);
    const again = await open();
    again.send(handshakeHead('/live').replace(/\r\n\r\n$/, `\r\n${via}\r\n\r\n`));
    expect(await again.status()).toBe(508);
  });

  it('does not stand where a rule of the route takes it away', async () => {
    const requestHeaders = { remove: ['Via'] };
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, requestHeaders }] });
    const client = await open();
    client.send(get('1.1', 'Via: 1.0 fred'));
    expect(await client.status()).toBe(200);
    expect(viaIn(upstream.bytes)).toBeNull();
  });
});

describe('a request that comes back to its gateway', () => {
  it('is rejected, however the others on the way are written', async () => {
    const { upstream, open } = await startRecordedGateway();
    const first = await open();
    first.send(get('1.1'));
    await first.status();
    const [name] = /holdfast-[\da-f]+/.exec(upstream.bytes)!;
    for (const [line, status] of [
      [`Via: 1.1 ${name}`, 508],
      [`Via: 1.0 fred,HTTP/1.1\t${name} (edge) , 1.1 last`, 508],
      [`Via: 1.1 fred\r\nVia: 1.1 ${name}`, 508],
      [`Via: 1.1 ${name}0, 1.1 (${name}), ${name}`, 200],
      ['Via:', 200],
    ] as const) {
      const client = await open();
      client.send(get('1.1', line));
      expect([line, await client.status()]).toEqual([line, status]);
    }
    expect(upstream.requestLines).toHaveLength(3);
  });

  it('passes each gateway of the loop once, and gets 508', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const client = new ServiceClient({ discovery });
    const paths: string[] = [];
    const gateway = await createGateway({
      client,
      routes: [OPEN_ROUTE],
      drainDelay: 0,
      accessLog: ({ path, status }) => paths.push(`${path} ${status}`),
    });
    onTestFinished(async () => {
      await client.close();
      await gateway.close();
    });
    const url = await gateway.listen({ port: 0 });
    const port = Number(new URL(url).port);
    await discovery.register({ serviceName: SERVICE, host: '127.0.0.1', port });
    const raw = await openRawClient(url);
    raw.send(get('1.1'));
    expect(await raw.status()).toBe(508);
    await raw.waitFor('urn:holdfast:problem:loop-detected');
    await vi.waitFor(() => expect(paths).toEqual(['/a 508', '/a 508']), { interval: 5 });
  });
});
