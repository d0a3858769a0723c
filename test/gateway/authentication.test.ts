import { createHash, generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { SERVICE, startRecordedGateway } from '../support/gateway.ts';

const KEY = 'correct horse battery staple';
const HASH = createHash('sha256').update(KEY).digest('hex');
const apiKeys = [{ hash: HASH, subject: 'cron', scopes: ['read'] }];
const identity = { key: generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }) };
const routes = [
  { path: '/open', service: SERVICE, auth: false as const },
  { path: '/read', service: SERVICE, auth: { scopes: ['read'] } },
  { path: '/pay', service: SERVICE, auth: { scopes: ['pay'] } },
];

async function send(path: string, headers = '', body = '') {
  const { upstream, open } = await startRecordedGateway({ auth: { apiKeys, identity }, routes });
  const client = await open();
  const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`;
  client.send(
    `${body === '' ? 'GET' : 'POST'} ${path} HTTP/1.1\r\nHost: shop.example\r\n${headers}${length}\r\n${body}`,
  );
  return { status: await client.status(), client, upstream };
}

describe('a gateway with authentication', () => {
  it('lets a caller in, and tells the service who it is', async () => {
    const { status, upstream } = await send('/read', `X-API-Key: ${KEY}\r\nX-Holdfast-Identity: root\r\n`);
    expect(status).toBe(200);
    expect(upstream.bytes.match(/^x-holdfast-identity: .*$/gm)).toEqual([
      expect.stringMatching(/^x-holdfast-identity: [\w-]+\.[\w-]+\.[\w-]+$/),
    ]);
    expect(upstream.bytes).not.toContain(KEY);
  });

  it('sends no service what a client has written under the other name of X-API-Key', async () => {
    const { status, upstream } = await send('/read', `X-API-Key: ${KEY}\r\nX_API_Key: other\r\n`);
    expect(status).toBe(200);
    expect(upstream.bytes).not.toMatch(/^x[-_]api[-_]key/im);
  });

  it.each([
    ['/read', '', 401],
    ['/read', 'X-API-Key: wrong\r\n', 401],
    ['/pay', `X-API-Key: ${KEY}\r\n`, 403],
  ])(
    'rejects a request for %s with "%s", and the service gets nothing of it',
    async (path, headers, expected) => {
      const { status, client, upstream } = await send(path, headers, 'hello');
      expect(status).toBe(expected);
      expect(client.received).toMatch(/^www-authenticate: /im);
      expect(client.received).toMatch(/content-type: application\/problem\+json/);
      expect(upstream.bytes).toBe('');
    },
  );

  it('lets all in on a route that says so, and sends no identity then', async () => {
    const { status, upstream } = await send('/open', `X-API-Key: ${KEY}\r\nX-Holdfast-Identity: root\r\n`);
    expect(status).toBe(200);
    expect(upstream.bytes).not.toMatch(/^x-holdfast-identity/im);
  });

  it('publishes the keys that identities are verified with', async () => {
    const { status, client, upstream } = await send('/.well-known/jwks.json');
    expect(status).toBe(200);
    await client.waitFor(/"kty":"OKP"/);
    expect(upstream.bytes).toBe('');
  });

  it('starts with no route that needs a token while nothing is said of tokens', async () => {
    await expect(startRecordedGateway({ routes })).rejects.toThrow(
      /routes\[1\] needs a caller with a token or a key/,
    );
  });
});
