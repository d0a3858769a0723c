import { describe, expect, it } from 'vitest';
import type { CreateGatewayOptions } from '../../src/gateway/index.ts';
import { OPEN_ROUTE, startGateway } from '../support/gateway.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';

const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';

/** Starts a gateway whose client makes two attempts. */
async function startRetrying(options: Partial<CreateGatewayOptions>) {
  const upstream = await startRecordingUpstream();
  const retry = { maxAttempts: 2, backoff: () => 0 };
  const { url } = await startGateway([upstream.origin], options, { retry, circuitBreaker: false });
  return { upstream, url };
}

describe('a gateway that retries', () => {
  it.each([
    ['once, whatever key a stranger sends', false, 1],
    ['again where the service takes requests with one key for one', true, 2],
  ])('sends a POST that may have arrived %s', async (_title, idempotencyKeys, sent) => {
    const { upstream, url } = await startRetrying({ routes: [{ ...OPEN_ROUTE, idempotencyKeys }] });
    upstream.reply = (socket) => socket.destroy();
    const client = await openRawClient(url);
    client.send('POST /charge HTTP/1.1\r\nHost: a\r\nIdempotency-Key: abc\r\nContent-Length: 5\r\n\r\nhello');
    expect(await client.status()).toBe(502);
    expect(upstream.requestLines).toHaveLength(sent);
    expect(upstream.bytes.match(/^idempotency-key: abc\r$/gm)).toHaveLength(sent);
  });

  it('never sends a POST without a key again that may have arrived', async () => {
    const { upstream, url } = await startRetrying({ routes: [{ ...OPEN_ROUTE, idempotencyKeys: true }] });
    upstream.reply = (socket) => socket.destroy();
    const client = await openRawClient(url);
    client.send('POST /charge HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello');
    expect(await client.status()).toBe(502);
    expect(upstream.requestLines).toHaveLength(1);
  });

  it.each([
    ['strangers', [], 0],
    ['a trusted proxy', ['127.0.0.1'], 1],
  ])('says to %s what of the mesh is theirs', async (_title, trustedProxies, count) => {
    const { upstream, url } = await startRetrying({ trustedProxies });
    upstream.reply =
      'HTTP/1.1 200 OK\r\nx-retries-spent: 1\r\nx-holdfast-identity: a.b.c\r\ncontent-length: 2\r\n\r\nok';
    const client = await openRawClient(url);
    client.send(GET);
    await client.waitFor(/ok$/);
    expect(client.received.match(/^x-retries-spent: 1\r$/gim) ?? []).toHaveLength(count);
    expect(client.received).not.toMatch(/x-holdfast-identity/i);
  });
});
