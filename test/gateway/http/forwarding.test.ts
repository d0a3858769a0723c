import { describe, expect, it } from 'vitest';
import { startRecordedGateway } from '../../support/gateway.ts';

const SPOOFED =
  'GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 8.8.8.8, 9.9.9.9\r\nX-Forwarded-Host: evil.example\r\n' +
  'X-Forwarded-Proto: https\r\nForwarded: for=8.8.8.8\r\nX-Real-IP: 8.8.8.8\r\nX-Request-ID: theirs\r\n' +
  'X-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\nX-Holdfast-Identity: root\r\nX-Service-Name: root\r\n' +
  'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\nbaggage: user=1\r\n\r\n';

/** Sends a request that claims to come from elsewhere, and gives the headers that the service gets. */
async function forward(trustedProxies: string[]) {
  const { upstream, open } = await startRecordedGateway({ trustedProxies });
  const client = await open();
  client.send(SPOOFED);
  expect(await client.status()).toBe(200);
  const lines = upstream.bytes.split('\r\n').slice(1, -2);
  return lines.map((line) => line.split(': ') as [string, string]);
}

describe('a gateway that forwards a request', () => {
  it('tells the service where it comes from by itself, and believes no stranger', async () => {
    const headers = await forward([]);
    expect(headers.map(([name]) => name).sort()).toEqual(
      [
        'host',
        'connection',
        'x-forwarded-for',
        'x-forwarded-proto',
        'x-forwarded-host',
        'forwarded',
        'x-request-id',
        'traceparent',
        'tracestate',
        'via',
        'x-request-timeout',
      ].sort(),
    );
    const byName = Object.fromEntries(headers);
    expect(byName).toMatchObject({
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'shop.example',
      forwarded: 'for=127.0.0.1;host="shop.example";proto=http',
    });
    expect(byName['x-request-id']).not.toBe('theirs');
  });

  it('begins a trace of its own for a stranger, and links it to the trace of the stranger', async () => {
    const byName = Object.fromEntries(await forward([]));
    expect(byName.traceparent).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-00$/);
    expect(byName.traceparent).not.toContain('0af7651916cd43dd8448eb211c80319c');
    expect(byName.tracestate).toBe('holdfast=link:0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331');
  });

  it('believes a trusted proxy, as far as the chain leads over trusted ones', async () => {
    const byName = Object.fromEntries(await forward(['127.0.0.0/8', '9.9.9.9']));
    expect(byName).toMatchObject({
      'x-forwarded-for': '8.8.8.8, 9.9.9.9, 127.0.0.1',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'evil.example',
      forwarded: 'for=8.8.8.8;host="evil.example";proto=https',
      'x-request-id': 'theirs',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      tracestate: 'a=b',
    });
    expect(byName.baggage).toBeUndefined();
    expect(byName['x-holdfast-identity']).toBeUndefined();
  });

  it.each([
    ['8.8.8.8:1234', '8.8.8.8'],
    ['[2001:db8::1]:1234', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[::ffff:8.8.8.8]:1234', '8.8.8.8'],
  ])('finds the address in %s, as some proxies write it', async (written, address) => {
    const { upstream, open } = await startRecordedGateway({ trustedProxies: ['127.0.0.1'] });
    const client = await open();
    client.send(`GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 9.9.9.9, ${written}\r\n\r\n`);
    expect(await client.status()).toBe(200);
    expect(upstream.bytes).toContain(`x-forwarded-for: 9.9.9.9, ${address}, 127.0.0.1\r\n`);
  });

  it.each([['8.8.8.8:'], ['8.8.8.8:http'], ['[8.8.8.8'], ['[2001:db8::1]1234'], ['unknown']])(
    'believes nothing of a chain that ends with %s',
    async (written) => {
      const { upstream, open } = await startRecordedGateway({ trustedProxies: ['127.0.0.1'] });
      const client = await open();
      client.send(`GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 9.9.9.9, ${written}\r\n\r\n`);
      expect(await client.status()).toBe(200);
      expect(upstream.bytes).toContain('x-forwarded-for: 127.0.0.1\r\n');
    },
  );

  it.each([
    ['for=5.5.5.5;proto=https;host=pub.example', '5.5.5.5', 'https', 'pub.example'],
    ['For="[2001:db8::1]:4711"; Proto=https; by=10.0.0.1', '2001:db8::1', 'https', 'shop.example'],
    ['for="5.5.5.5:81";host="pub.example:8443"', '5.5.5.5', 'http', 'pub.example:8443'],
    [
      'for=6.6.6.6;proto=http;host=a, for=5.5.5.5;proto=https;host=b, for=10.0.0.1;host=c',
      '5.5.5.5',
      'https',
      'b',
    ],
    ['for=unknown;host=a, for=5.5.5.5;host=b', '5.5.5.5', 'http', 'b'],
    ['for=5.5.5.5;host=a, for=unknown;proto=https', '127.0.0.1', 'https', 'shop.example'],
    ['for=_hidden', '127.0.0.1', 'http', 'shop.example'],
    ['for=5.5.5.5;for=6.6.6.6', '127.0.0.1', 'http', 'shop.example'],
    ['for=5.5.5.5, "', '127.0.0.1', 'http', 'shop.example'],
    ['for=5.5.5.5;host="a\\"b";proto=ftp', '5.5.5.5', 'http', 'shop.example'],
    ['__proto__=1, for=5.5.5.5', '5.5.5.5', 'http', 'shop.example'],
  ])('reads Forwarded: %s of a proxy that writes it alone', async (written, address, proto, host) => {
    const trustedProxies = ['127.0.0.1', '10.0.0.0/8'];
    const { upstream, open } = await startRecordedGateway({ trustedProxies });
    const client = await open();
    client.send(`GET /a HTTP/1.1\r\nHost: shop.example\r\nForwarded: ${written}\r\n\r\n`);
    expect(await client.status()).toBe(200);
    const node = address.includes(':') ? `"[${address}]"` : address;
    expect(upstream.bytes).toContain(`forwarded: for=${node};host="${host}";proto=${proto}\r\n`);
    expect(upstream.bytes).toContain(`x-forwarded-proto: ${proto}\r\nx-forwarded-host: ${host}\r\n`);
    expect(upstream.bytes).toMatch(/^x-forwarded-for: .*127\.0\.0\.1\r$/m);
  });

  it.each(['X-Forwarded-For: 9.9.9.9', 'X-Forwarded-Proto: http', 'X-Forwarded-Host: other.example'])(
    'believes no Forwarded beside %s: a client may have sent it',
    async (line) => {
      const { upstream, open } = await startRecordedGateway({ trustedProxies: ['127.0.0.1'] });
      const client = await open();
      const forwarded = 'Forwarded: for=8.8.8.8;host=evil.example;proto=https';
      client.send(`GET /a HTTP/1.1\r\nHost: shop.example\r\n${line}\r\n${forwarded}\r\n\r\n`);
      expect(await client.status()).toBe(200);
      expect(upstream.bytes).not.toMatch(/8\.8\.8\.8|evil|https/);
    },
  );

  it.each([['no address'], ['10.0.0.0/33'], ['10.0.0.0/8/8'], ['10.0.0.0/'], ['']])(
    'takes no %s for a proxy',
    async (network) => {
      await expect(startRecordedGateway({ trustedProxies: [network] })).rejects.toThrow(
        /trustedProxies\[0\] must be an address/,
      );
    },
  );
});
