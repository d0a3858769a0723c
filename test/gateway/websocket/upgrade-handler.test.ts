import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { engineOf } from '../../../src/client/call-engine.ts';
import { Rejection } from '../../../src/gateway/problem.ts';
import {
  type AdmittedUpgrade,
  createUpgradeHandler,
  type IncomingUpgrade,
  type UpgradeHandler,
} from '../../../src/gateway/websocket/upgrade-handler.ts';
import { deferred } from '../../../src/internal/deferred.ts';
import { clientOf, service } from '../../support/mesh-client.ts';
import {
  handshakeHead,
  RawWebSocket,
  startWebSocketService,
  type WebSocketService,
} from '../../support/websockets.ts';

interface Stand {
  readonly handler: UpgradeHandler;
  readonly upstream: WebSocketService;
  readonly received: IncomingMessage[];
  ask(): RawWebSocket;
}

/** Starts a server whose WebSockets are admitted as the function says. */
async function stand(admit: () => Promise<AdmittedUpgrade>): Promise<Stand> {
  const upstream = await startWebSocketService();
  const client = clientOf([upstream]);
  const received: IncomingMessage[] = [];
  const receive = (request: IncomingMessage): IncomingUpgrade => {
    received.push(request);
    const context = { requestId: 'r-1', deadline: Infinity };
    return { context, tellsRetries: false, route: async () => '*', admit, responded() {}, onFailure() {} };
  };
  const handler = createUpgradeHandler({ engine: engineOf(client), receive });
  const server = createServer().on('upgrade', (request, socket, head) =>
    handler.handle(request, socket, head),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    await handler.close(0);
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const ask = () => {
    const raw = new RawWebSocket(port);
    raw.write(handshakeHead('/live'));
    return raw;
  };
  return { handler, upstream, received, ask };
}

function admitted(ownHeaders: readonly string[] = []): AdmittedUpgrade {
  const headers = ['sec-websocket-key', 'dGhlIHNhbXBsZSBub25jZQ==', 'sec-websocket-version', '13'];
  const request = { service, path: '/live', headers };
  return { request, ownHeaders, responseRules: { set: ['x-set', '1'], replaced: new Set(['x-set']) } };
}

describe('the handler of upgrades', () => {
  it('a client that is over its limit is rejected with the headers of the limit, and the service not asked', async () => {
    const { ask, upstream } = await stand(async () => {
      throw new Rejection(429, 'rate-limited', 'Too many requests.', { 'retry-after': '7' });
    });
    const client = ask();
    await expect.poll(() => client.ended).toBe(true);
    expect(client.status).toBe(429);
    expect(client.head).toMatch(/^retry-after: 7\r$/m);
    expect(client.head).toMatch(/^x-request-id: r-1\r$/m);
    expect(upstream.requests).toEqual([]);
  });

  it('the headers of limits and of the route are in the response that opens the WebSocket', async () => {
    const { ask, handler } = await stand(async () => admitted(['ratelimit', '"default";r=9']));
    const client = ask();
    await expect.poll(() => client.status).toBe(101);
    expect(client.head).toMatch(/^ratelimit: "default";r=9\r$/m);
    expect(client.head).toMatch(/^x-set: 1\r$/m);
    expect(client.head).toMatch(/^x-request-id: r-1\r$/m);
    expect(handler.size).toBe(1);
    client.socket.destroy();
    await expect.poll(() => handler.size).toBe(0);
  });

  it('a client that leaves while it is authenticated has nobody asked for it', async () => {
    const admission = deferred<AdmittedUpgrade>();
    const { ask, upstream, received } = await stand(() => admission.promise);
    const client = ask();
    await expect.poll(() => received.length).toBe(1);
    client.socket.destroy();
    await expect.poll(() => received[0]!.socket.readableEnded).toBe(true);
    admission.resolve(admitted());
    await expect.poll(() => received[0]!.socket.destroyed).toBe(true);
    expect(upstream.requests).toEqual([]);
  });

  it('an error that nobody expected is told without its message', async () => {
    const { ask } = await stand(async () => {
      throw new Error('the password is 1234');
    });
    const client = ask();
    await expect.poll(() => client.ended).toBe(true);
    expect(client.status).toBe(500);
    expect(client.body).not.toContain('1234');
  });

  it('a request that comes after the close is rejected', async () => {
    const { ask, handler, upstream } = await stand(async () => admitted());
    await handler.close(0);
    const client = ask();
    await expect.poll(() => client.ended).toBe(true);
    expect(client.status).toBe(503);
    expect(upstream.requests).toEqual([]);
  });

  it('a second close waits as the first does', async () => {
    const { ask, handler } = await stand(async () => admitted());
    const client = ask();
    await expect.poll(() => client.status).toBe(101);
    await Promise.all([handler.close(3_000), handler.close(50)]);
    expect(handler.size).toBe(0);
    await expect.poll(() => client.frames.length).toBe(1);
  });
});
