import { once } from 'node:events';
import { get } from 'node:http';
import { createSecureServer } from 'node:http2';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import { describe, expect, it, onTestFinished } from 'vitest';
import { engineOf } from '../../src/client/call-engine.ts';
import { upgrade } from '../../src/client/upgrade.ts';
import { createHttpAgent, ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';
import { KEY, startWebSocketService } from '../support/websockets.ts';

const host = 'shop.example:8443';
const { cert: ca } = USER_SERVICE_TLS;

describe('a service behind a virtual host', () => {
  it('is asked for that host by calls, requests, fetch and an agent, at the address of its instance', async () => {
    const server = await startServer(({ rawHeaders }, response) => {
      const hosts = rawHeaders.filter((_, index) => rawHeaders[index - 1]?.toLowerCase() === 'host');
      json(response, hosts);
    });
    const client = clientOf([server], { connection: { host } });
    const agent = createHttpAgent(client);
    onTestFinished(() => agent.close());

    const called = client.call({ service, path: '/' });
    const requested = client.request({ service, path: '/' }).then(({ body }) => text(body));
    const fetched = client.fetch(`http://${service}/`).then((response) => response.text());
    const byAgent = new Promise<string>((resolve, reject) => {
      get(`http://${service}/`, { agent }, (response) => resolve(text(response))).on('error', reject);
    });

    expect(await called).toEqual([host]);
    expect(JSON.parse(await requested)).toEqual([host]);
    expect(JSON.parse(await fetched)).toEqual([host]);
    expect(JSON.parse(await byAgent)).toEqual([host]);
  });

  it('is asked for that host when a WebSocket is opened', async () => {
    const server = await startWebSocketService({});
    const client = clientOf([server], { connection: { host } });
    const headers = ['sec-websocket-key', KEY, 'sec-websocket-version', '13'];
    const response = await upgrade(engineOf(client), { service, protocol: 'websocket', path: '/', headers });
    response.socket!.destroy();
    expect(server.requests[0]!.headers.host).toBe(host);
  });

  it.each([
    ['HTTP/1.1', false],
    ['HTTP/2', true],
  ])('proves by its certificate over %s that it is that host', async (_, allowH2) => {
    const respond = (name: unknown, asked: unknown) => JSON.stringify([name, asked]);
    const server = allowH2
      ? createSecureServer(USER_SERVICE_TLS, (request, response) => {
          const { servername } = request.stream.session!.socket as TLSSocket;
          response.end(respond(servername, request.authority));
        })
      : createServer(USER_SERVICE_TLS, ({ socket, headers }, response) => {
          response.end(respond((socket as TLSSocket).servername, headers.host));
        });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const ask = async (connection: object) => {
      const client = new ServiceClient({
        discovery: new StaticServiceDiscovery({ shop: [`https://127.0.0.1:${port}`] }),
        defaults: { retry: false, connection: { allowH2, ...connection } },
      });
      onTestFinished(() => client.close());
      return JSON.parse((await client.call<string>({ service: 'shop', path: '/' })) as string);
    };

    expect(await ask({ host: 'user-service:8443', connect: { ca } })).toEqual([
      'user-service',
      'user-service:8443',
    ]);
    expect(await ask({ host, connect: { ca, servername: 'user-service' } })).toEqual(['user-service', host]);
    await expect(ask({ host, connect: { ca } })).rejects.toMatchObject({
      cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    });
  });
});
