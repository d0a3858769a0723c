import type { Socket } from 'node:net';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { Lease } from '../../src/balancing/lease.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startGateway } from '../support/gateway.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';

const HEAD = 'POST /a HTTP/1.1\r\nHost: shop.example\r\n';
const CHUNKED_POST = `${HEAD}Transfer-Encoding: chunked\r\n\r\n`;
const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
const TIMEOUT = 1_000;

/** Starts a gateway in front of a service whose breaker opens at the first failure that counts. */
async function start(timeout = TIMEOUT) {
  const upstream = await startRecordingUpstream();
  let socket: Socket | undefined;
  upstream.reply = (own) => {
    socket = own;
  };
  const { url } = await startGateway(
    [upstream.origin],
    { routes: [{ ...OPEN_ROUTE, timeout, maxBodySize: Infinity }] },
    { retry: false, circuitBreaker: { failureThreshold: 1 }, attemptTimeout: timeout },
  );
  const client = await openRawClient(url);
  return {
    upstream,
    client,
    /** The connection of the latest request at the service. */
    socket: () => socket!,
    /** Gives the status of a GET: 503 while the breaker is open. */
    async get() {
      upstream.reply = OK;
      const other = await openRawClient(url);
      other.send(GET);
      return other.status();
    },
  };
}

describe('an upload whose client is slow', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  });

  it.each([
    ['in chunks', `${CHUNKED_POST}3\r\nabc\r\n`],
    ['with a length', `${HEAD}Content-Length: 100000\r\n\r\nabc`],
  ])('an upload %s that stops gets 408 after 30 seconds, and counts for nobody', async (_name, bytes) => {
    const { client, upstream, get } = await start();
    client.send(bytes);
    await upstream.waitFor('abc');
    vi.advanceTimersByTime(29_000);
    await new Promise((resolve) => setImmediate(resolve));
    expect(client.statuses).toEqual([]);
    vi.advanceTimersByTime(1_000);
    expect(await client.status()).toBe(408);
    // The client has the time to read the response before the connection ends.
    vi.advanceTimersByTime(1_000);
    await client.waitForEnd();
    expect(await get()).toBe(200);
  });

  it('counts for nobody if the client leaves', async () => {
    const { client, upstream, get } = await start();
    client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
    await upstream.waitFor('abc');
    vi.advanceTimersByTime(10_000);
    client.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    expect(await get()).toBe(200);
  });

  it('may take longer than the timeout of its route, of which the service is not told', async () => {
    const { client, upstream, socket } = await start();
    client.send(CHUNKED_POST);
    for (const part of ['one', 'two', 'six']) {
      client.send(`3\r\n${part}\r\n`);
      await upstream.waitFor(part);
      vi.advanceTimersByTime(20_000);
    }
    client.send('0\r\n\r\n');
    await upstream.waitFor('\r\n0\r\n\r\n');
    socket().write(OK);
    expect(await client.status()).toBe(200);
    expect(upstream.bytes).not.toMatch(/^x-request-timeout/im);
  });

  it('ends with 504, which counts, if the service does not respond in time after it', async () => {
    const { client, upstream, get } = await start();
    client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
    await upstream.waitFor('abc');
    vi.advanceTimersByTime(20_000);
    client.send('0\r\n\r\n');
    await upstream.waitFor('\r\n0\r\n\r\n');
    expect(client.statuses).toEqual([]);
    vi.advanceTimersByTime(TIMEOUT);
    expect(await client.status()).toBe(504);
    expect(await get()).toBe(503);
  });

  it('ends with 504, which counts for nobody, at the deadline that the client has set', async () => {
    const { client, upstream, get } = await start();
    client.send(`${HEAD}X-Request-Timeout: 5000\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`);
    await upstream.waitFor('abc');
    vi.advanceTimersByTime(5_000);
    expect(await client.status()).toBe(504);
    expect(await get()).toBe(200);
  });

  it('counts for nobody if the service closes the connection, and against it if that was no wait', async () => {
    const { client, upstream, socket, get } = await start();
    client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
    await upstream.waitFor('abc');
    vi.advanceTimersByTime(5_000);
    socket().destroy();
    expect(await client.status()).toBe(502);
    expect(await get()).toBe(200);
    const other = await start();
    other.client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
    await other.upstream.waitFor('abc');
    other.socket().destroy();
    expect(await other.client.status()).toBe(502);
    expect(await other.get()).toBe(503);
  });
});

describe('an upload whose service is slow', () => {
  it('ends with 504 once the service takes nothing for the timeout of the route', async () => {
    const { client, upstream } = await start(200);
    upstream.reply = (socket) => void socket.pause();
    const part = Buffer.alloc(1_048_576, 'a');
    client.send(`${HEAD}Content-Length: ${64 * part.length}\r\n\r\n`);
    for (let count = 0; count < 64; count++) client.socket.write(part);
    expect(await client.status()).toBe(504);
  });
});

it('an upload whose client is slow adds nothing to the latency of the service, on the clock of the client', async () => {
  const released = vi.spyOn(Lease.prototype, 'release');
  const upstream = await startRecordingUpstream();
  const clock = new ManualClock();
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
  const serviceClient = new ServiceClient({ discovery, clock });
  onTestFinished(() => serviceClient.close());
  const { url } = await startGateway([], { client: serviceClient });
  const client = await openRawClient(url);
  let socket: Socket | undefined;
  upstream.reply = (own) => {
    socket = own;
  };
  client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
  await upstream.waitFor('abc');
  await clock.pass(20_000);
  client.send('0\r\n\r\n');
  await upstream.waitFor('\r\n0\r\n\r\n');
  socket!.write(OK);
  expect(await client.status()).toBe(200);
  expect(released).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ latency: 0 }));
});
