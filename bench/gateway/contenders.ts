import { generateKeyPairSync } from 'node:crypto';
import {
  Agent,
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import httpProxy from '@fastify/http-proxy';
import fastify from 'fastify';
import { createProxyMiddleware } from 'http-proxy-middleware';
import type { JWK } from 'jose';
import { type Dispatcher, Pool } from 'undici';
import { createGateway } from '../../src/gateway/index.ts';
import { StaticServiceDiscovery } from '../../src/index.ts';
import { ISSUER } from './issuer.ts';
import { startNginx } from './nginx.ts';

export interface ProxyOptions {
  /** The addresses of the service. */
  readonly origins: readonly [string, ...string[]];
  /** The public key of the tokens. */
  readonly key: JWK;
}

/** Starts a proxy, and gives its address. */
type StartProxy = (options: ProxyOptions) => Promise<string>;

export const contenders = {
  limit,
  holdfast: (options) => startGateway(options, false),
  holdfastWithTokens: (options) => startGateway(options, true),
  fastify: startFastifyProxy,
  middleware: startProxyMiddleware,
  nginx: ({ origins }) => startNginx(origins[0]),
} satisfies Record<string, StartProxy>;

export type ContenderName = keyof typeof contenders;

/** Ours balances over both addresses, with all that it does by default. */
async function startGateway({ origins, key }: ProxyOptions, withTokens: boolean): Promise<string> {
  const identity = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }) as JWK;
  const jwt = { ...ISSUER, algorithms: ['ES256'], jwks: { keys: [key] } };
  const gateway = await createGateway({
    discovery: new StaticServiceDiscovery({ shop: [...origins] }),
    ...(withTokens && { auth: { jwt, identity: { key: identity } } }),
    routes: [{ path: '/*', service: 'shop', ...(!withTokens && { auth: false as const }) }],
  });
  return gateway.listen({ port: 0 });
}

/** Its default client is undici's, with 128 connections, which its documentation recommends. */
async function startFastifyProxy({ origins }: ProxyOptions): Promise<string> {
  const app = fastify();
  await app.register(httpProxy, { upstream: origins[0] });
  return app.listen({ host: '127.0.0.1', port: 0 });
}

/** With connections that are kept alive, which it leaves to the agent. */
function startProxyMiddleware({ origins }: ProxyOptions): Promise<string> {
  const agent = new Agent({ keepAlive: true });
  const proxy = createProxyMiddleware<IncomingMessage, ServerResponse>({
    target: origins[0],
    changeOrigin: true,
    agent,
  });
  return listen((request, response) => void proxy(request, response, () => response.end()));
}

/** Forwards heads and bodies as they are, and checks, changes and cancels nothing. */
function limit({ origins }: ProxyOptions): Promise<string> {
  const pool = new Pool(origins[0], { connections: 128 });
  return listen((request, response) => {
    const { method, url, headers } = request;
    const { connection: _hop, host: _host, ...forwarded } = headers;
    const body = method === 'GET' ? null : request;
    pool.dispatch(
      { method: method as Dispatcher.HttpMethod, path: url!, headers: forwarded, body },
      {
        onRequestStart() {},
        onResponseStart: (_controller, status, responseHeaders) =>
          void response.writeHead(status, responseHeaders as Record<string, string>),
        onResponseData(controller, chunk) {
          if (response.write(chunk)) return;
          controller.pause();
          response.once('drain', () => controller.resume());
        },
        onResponseEnd: () => void response.end(),
        onResponseError: () => void response.destroy(),
      },
    );
  });
}

function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () =>
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    );
  });
}
