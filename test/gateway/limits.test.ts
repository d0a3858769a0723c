import { createHash } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { OPEN_ROUTE, SERVICE, startGateway } from '../support/gateway.ts';
import { startServer } from '../support/server.ts';
import { handshakeHead, RawWebSocket } from '../support/websockets.ts';

const HOUR = 3_600_000;

async function gatewayOf(options: object) {
  let calls = 0;
  const { origin } = await startServer((_request, response) => {
    calls++;
    response.end('ok');
  });
  const running = await startGateway([origin], options);
  return { ...running, calls: () => calls };
}

async function statusOfUpgrade(url: string): Promise<number> {
  const client = new RawWebSocket(Number(new URL(url).port));
  client.write(handshakeHead('/none'));
  await expect.poll(() => client.ended).toBe(true);
  return client.status;
}

describe('a gateway with rate limits', () => {
  it('rejects what exceeds a limit with 429, Retry-After and the RateLimit fields, before the service is called', async () => {
    const { url, calls } = await gatewayOf({ rateLimit: { limit: 2, interval: HOUR } });
    const first = await fetch(url);
    expect(first.status).toBe(200);
    expect(first.headers.get('ratelimit-policy')).toBe('"gateway";q=2;w=3600');
    expect(first.headers.get('ratelimit')).toBe('"gateway";r=1;t=1800');
    await fetch(url);
    const rejected = await fetch(url);
    expect(rejected.status).toBe(429);
    expect(Number(rejected.headers.get('retry-after'))).toBeGreaterThan(1_790);
    expect(rejected.headers.get('ratelimit')).toMatch(/^"gateway";r=0;t=\d+$/);
    expect(await rejected.json()).toMatchObject({ type: 'urn:holdfast:problem:rate-limited', status: 429 });
    expect(calls()).toBe(2);
  });

  it('keeps what a client has used over a reload', async () => {
    const { gateway, url } = await gatewayOf({ rateLimit: { limit: 1, interval: HOUR } });
    expect((await fetch(url)).status).toBe(200);
    await gateway.reload({ routes: [OPEN_ROUTE, { ...OPEN_ROUTE, path: '/other' }] });
    expect((await fetch(url)).status).toBe(429);
    await gateway.reload({ rateLimit: undefined });
    expect((await fetch(url)).status).toBe(200);
  });

  it('counts guesses of keys by their address, and callers by their key', async () => {
    const keys = ['key of ann', 'key of bob'];
    const apiKeys = keys.map((key) => ({
      hash: createHash('sha256').update(key).digest('hex'),
      subject: key,
    }));
    const route = { path: '/*', service: SERVICE };
    const { url } = await gatewayOf({
      auth: { apiKeys },
      rateLimit: { limit: 4, interval: HOUR },
      routes: [{ ...route, rateLimit: { limit: 1, interval: HOUR, by: 'key' } }],
    });
    const statuses: number[] = [];
    for (const key of [...keys, keys[0]!, 'a guess', 'a guess']) {
      statuses.push((await fetch(url, { headers: { 'x-api-key': key } })).status);
    }
    expect(statuses).toEqual([200, 200, 429, 401, 429]);
  });

  it('counts requests that no route takes, those for a WebSocket too, and no preflights', async () => {
    const { url, calls } = await gatewayOf({
      rateLimit: { limit: 3, interval: HOUR },
      routes: [{ ...OPEN_ROUTE, path: '/a', methods: ['POST'] }],
      cors: { origins: ['https://shop.example'] },
    });
    const preflight = {
      method: 'OPTIONS',
      headers: { origin: 'https://shop.example', 'access-control-request-method': 'POST' },
    };
    for (let count = 0; count < 5; count++) {
      expect((await fetch(`${url}/a`, preflight)).status).toBe(204);
    }
    expect((await fetch(`${url}/a`)).status).toBe(405);
    expect((await fetch(`${url}/b`)).status).toBe(404);
    expect(await statusOfUpgrade(url)).toBe(404);
    expect(await statusOfUpgrade(url)).toBe(429);
    expect((await fetch(`${url}/b`)).status).toBe(429);
    expect((await fetch(`${url}/a`, { method: 'POST' })).status).toBe(429);
    expect(calls()).toBe(0);
  });

  it('lets nobody guess keys at /health, which still tells the status to all', async () => {
    let lookups = 0;
    const apiKeys = (key: string) => {
      lookups++;
      return key === 'right' && { subject: 'monitor' };
    };
    const { url } = await gatewayOf({ auth: { apiKeys }, rateLimit: { limit: 5, interval: HOUR } });
    const ask = async (headers: Record<string, string> = {}) => {
      const response = await fetch(`${url}/health`, { headers });
      return [response.status, 'services' in ((await response.json()) as object)];
    };
    expect(await ask({ 'x-api-key': 'right' })).toEqual([200, true]);
    for (let guess = 0; guess < 10; guess++)
      expect(await ask({ 'x-api-key': `${guess}` })).toEqual([200, false]);
    expect(lookups).toBe(5);
    expect(await ask({ 'x-api-key': 'right' })).toEqual([200, false]);
    expect(await ask()).toEqual([200, false]);
    expect((await fetch(url)).status).toBe(429);
  });

  it('bounds guesses of keys at /health where only routes have limits, and counts no probes', async () => {
    const lookup = vi.fn(() => undefined);
    const { url } = await gatewayOf({ auth: { apiKeys: lookup } });
    for (let count = 0; count < 70; count++) await (await fetch(`${url}/health`)).body?.cancel();
    for (let guess = 0; guess < 70; guess++) {
      const response = await fetch(`${url}/health`, { headers: { 'x-api-key': `${guess}` } });
      await response.body?.cancel();
    }
    // A few more may be looked up while the test runs.
    expect(lookup.mock.calls.length).toBeGreaterThanOrEqual(60);
    expect(lookup.mock.calls.length).toBeLessThan(70);
  });

  it('does not believe an address that a client tells of itself', async () => {
    const { url } = await gatewayOf({ rateLimit: { limit: 1, interval: HOUR } });
    const from = async (address: string) =>
      (await fetch(url, { headers: { 'x-forwarded-for': address } })).status;
    expect([await from('192.0.2.1'), await from('192.0.2.2')]).toEqual([200, 429]);
  });

  it('counts the clients that a trusted proxy tells, each by itself', async () => {
    const { url } = await gatewayOf({
      rateLimit: { limit: 1, interval: HOUR },
      trustedProxies: ['127.0.0.1'],
    });
    const from = async (address: string) =>
      (await fetch(url, { headers: { 'x-forwarded-for': address } })).status;
    expect([await from('192.0.2.1'), await from('192.0.2.2'), await from('192.0.2.1')]).toEqual([
      200, 200, 429,
    ]);
  });
});
