import { once } from 'node:events';
import { createSecureServer } from 'node:http2';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Dispatcher } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import { tlsNameOf } from '../../src/client/instance-client.ts';
import type { LegacyDispatchHandler } from '../../src/client/legacy-handler.ts';
import {
  ServiceClient,
  type ServiceInstance,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';
import { recorder, relay } from './relaying.ts';

const { cert: ca } = USER_SERVICE_TLS;

/**
 * Starts a server that calls itself `user-service`, and responds with the name that its client has
 * used.
 */
async function secureServer(): Promise<number> {
  const server = createServer(USER_SERVICE_TLS, ({ socket }, response) => {
    response.end(JSON.stringify((socket as TLSSocket).servername));
  });
  await once(server.listen(0), 'listening');
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

function clientOf(service: string, origin: string, connect: object = {}, options: ServiceOptions = {}) {
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ [service]: [origin] }),
    defaults: { retry: false, connection: { connect: { ca, ...connect } }, ...options },
  });
  onTestFinished(() => client.close());
  return client;
}

describe('an instance that speaks TLS', () => {
  it('an instance that speaks TLS is called by the name of its service if it is registered by its address', async () => {
    const client = clientOf('user-service', `https://127.0.0.1:${await secureServer()}`);
    await expect(client.call({ service: 'user-service', path: '/' })).resolves.toBe('"user-service"');
    const instance = { serviceName: 'user-service', host: '::1' } as ServiceInstance;
    expect(tlsNameOf(instance)).toBe('user-service');
    expect(tlsNameOf({ ...instance, host: 'a.example' })).toBeUndefined();
  });

  it('an instance that speaks TLS is not trusted with the certificate of another service', async () => {
    const client = clientOf('order-service', `https://127.0.0.1:${await secureServer()}`);
    await expect(client.call({ service: 'order-service', path: '/' })).rejects.toMatchObject({
      code: 'ERR_SERVICE_CONNECTION',
      cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    });
  });

  it('an instance that speaks TLS is called by its host name if it is registered by that', async () => {
    const client = clientOf('user-service', `https://localhost:${await secureServer()}`);
    await expect(client.call({ service: 'user-service', path: '/' })).rejects.toMatchObject({
      cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    });
  });

  it('an instance that speaks TLS is called by the name that the user gives, if any', async () => {
    const origin = `https://127.0.0.1:${await secureServer()}`;
    const client = clientOf('order-service', origin, { servername: 'user-service' });
    await expect(client.call({ service: 'order-service', path: '/' })).resolves.toBe('"user-service"');
  });

  it('an instance that speaks TLS may speak HTTP/2, which handlers of the older protocol need not know', async () => {
    const server = createSecureServer(USER_SERVICE_TLS, (request, response) => {
      response.setHeader('set-cookie', ['a=1', 'b=2']);
      response.setHeader('x-version', request.httpVersion);
      response.end('body');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => void server.close());
    const origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = clientOf('user-service', origin, {}, { connection: { allowH2: true, connect: { ca } } });
    const headers = await new Promise<unknown[]>((resolve, reject) => {
      const handler: LegacyDispatchHandler = {
        onHeaders: (_status, raw) => void resolve(raw.map(String)),
        onError: reject,
      };
      const options: Dispatcher.DispatchOptions = { origin: 'http://user-service', path: '/', method: 'GET' };
      client.dispatcher.dispatch(options, handler);
    });
    expect(headers.slice(0, 4)).toEqual(['set-cookie', 'a=1,b=2', 'x-version', '2.0']);
    const record = recorder();
    relay(client, { service: 'user-service', path: '/' }, record.handler);
    await record.end;
    expect([record.body, record.headers['set-cookie']]).toEqual(['body', ['a=1', 'b=2']]);
    const response = await fetch('http://user-service/', { dispatcher: client.dispatcher } as RequestInit);
    expect([await response.text(), response.headers.getSetCookie()]).toEqual(['body', ['a=1', 'b=2']]);
  });
});
