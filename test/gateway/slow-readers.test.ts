import { connect } from 'node:http2';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { flood, MANY, settled } from '../support/flood.ts';
import { startRecordedGateway } from '../support/gateway.ts';
import type { RawClient } from '../support/raw-client.ts';

const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';

/** Starts a gateway in front of a service that sends as much as the gateway takes. */
async function start(options: { http2?: boolean } = {}) {
  const running = await startRecordedGateway(options);
  let sent = () => 0;
  running.upstream.reply = (socket) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${MANY}\r\n\r\n`);
    sent = flood(socket);
  };
  return {
    ...running,
    /** Resolves once the service can send no more. */
    stall: () => settled(() => sent()),
  };
}

/** Has the client read until it has so many bytes, and no more. */
function readUpTo(client: RawClient, length: number): Promise<void> {
  const { socket } = client;
  return new Promise((resolve) => {
    socket.on('data', function read() {
      if (client.received.length < length) return;
      socket.off('data', read).pause();
      resolve();
    });
    socket.resume();
  });
}

describe('a gateway whose client stops to read', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  });

  it('breaks a download off after a minute, and the call too', async () => {
    const { upstream, open, stall } = await start();
    const client = await open();
    client.socket.pause();
    client.send(GET);
    await upstream.waitFor('GET /a');
    await stall();
    vi.advanceTimersByTime(50_000);
    await new Promise((resolve) => setImmediate(resolve));
    expect(upstream.connections).toBe(1);
    vi.advanceTimersByTime(10_000);
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    client.socket.resume();
    await client.waitForEnd();
    expect(client.received.length).toBeLessThan(MANY);
  });

  it('breaks a stream of HTTP/2 off, and no other stream of the connection', async () => {
    const { upstream, url, stall } = await start({ http2: true });
    const session = connect(url);
    session.on('error', () => {});
    const slow = session.request({ ':path': '/a', ':authority': 'shop.example' });
    slow.on('error', () => {}).pause();
    await upstream.waitFor('GET /a');
    await stall();
    vi.advanceTimersByTime(60_000);
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n';
    const next = session.request({ ':path': '/b', ':authority': 'shop.example' });
    const status = await new Promise((resolve) => next.on('response', (head) => resolve(head[':status'])));
    expect(status).toBe(200);
    session.destroy();
  });

  it('leaves a client alone that reads a part within each minute', async () => {
    const { upstream, open, stall } = await start();
    const client = await open();
    client.socket.pause();
    client.send(GET);
    await upstream.waitFor('GET /a');
    for (let minute = 1; minute <= 4; minute++) {
      await stall();
      vi.advanceTimersByTime(50_000);
      await readUpTo(client, (minute * MANY) / 4);
    }
    expect(client.received.length).toBeGreaterThanOrEqual(MANY);
    expect(client.ended).toBe(false);
  });

  it('ends a connection whose client has no more responses to wait for, and has not read them', async () => {
    const { gateway, upstream, open } = await startRecordedGateway();
    const count = () =>
      new Promise((resolve) => gateway.server.getConnections((_error, all) => resolve(all)));
    const client = await open();
    client.socket.pause();
    const body = 'x'.repeat(15_000);
    let requests = 0;
    upstream.reply = (socket) => {
      requests++;
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      client.send(GET);
    };
    client.send(GET);
    await settled(() => requests);
    vi.advanceTimersByTime(50_000);
    expect(await count()).toBe(1);
    vi.advanceTimersByTime(10_000);
    await vi.waitFor(async () => expect(await count()).toBe(0));
  });

  it('does not count the time for which a service has nothing to send', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n';
    const client = await open();
    client.send(GET);
    await client.waitFor('data: 1');
    vi.advanceTimersByTime(3_600_000);
    await new Promise((resolve) => setImmediate(resolve));
    expect(client.ended).toBe(false);
    expect(upstream.connections).toBe(1);
  });
});
