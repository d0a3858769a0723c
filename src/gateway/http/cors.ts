import type { FastifyCorsOptions } from '@fastify/cors';
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify';
import { importPeer } from '../import-peer.ts';
import type { CorsOptions } from '../options.ts';
import type { OwnHeaders } from './client-response.ts';
import { createContext } from './trace.ts';

/** A hook of Fastify for `onRequest`. */
export type CorsHook = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void;

/** Names of headers that a service may not send while the gateway decides about origins. */
export const CORS_HEADERS: OwnHeaders = {
  'access-control-allow-origin': undefined,
  'access-control-allow-credentials': undefined,
  'access-control-allow-methods': undefined,
  'access-control-allow-headers': undefined,
  'access-control-expose-headers': undefined,
  'access-control-max-age': undefined,
};

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'QUERY'];

/**
 * Creates a hook that tells browsers which origins may read responses, by @fastify/cors. It responds to
 * preflights itself, and to those of a path without a route alike: a preflight has no token, and learns
 * nothing of routes. Other OPTIONS requests go on to the service.
 *
 * @throws GatewayConfigError if @fastify/cors is not installed
 */
export async function createCors({ origins, maxAge = 5_000, ...rest }: CorsOptions): Promise<CorsHook> {
  const { fastifyCors } = await importPeer('cors', '@fastify/cors', () => import('@fastify/cors'));
  const options: FastifyCorsOptions = {
    origin: origins === '*' ? '*' : [...origins],
    credentials: rest.credentials ?? false,
    methods: [...(rest.methods ?? METHODS)],
    maxAge: Math.ceil(maxAge / 1_000),
    ...(rest.allowedHeaders && { allowedHeaders: [...rest.allowedHeaders] }),
    ...(rest.exposedHeaders && { exposedHeaders: [...rest.exposedHeaders] }),
  };
  const respond = captureHook((app) => fastifyCors(app, options, () => {}));
  const goOn = captureHook((app) => fastifyCors(app, { ...options, preflight: false }, () => {}));
  return (request, reply, done) => {
    if (!isPreflight(request)) return goOn(request, reply, done);
    reply.header('x-request-id', createContext(request.headers, false).requestId);
    respond(request, reply, done);
  };
}

/** Recognizes a preflight: Fetch Standard, section 'CORS protocol', 'HTTP requests'. */
export function isPreflight({ method, headers }: FastifyRequest): boolean {
  return (
    method === 'OPTIONS' &&
    headers.origin !== undefined &&
    headers['access-control-request-method'] !== undefined
  );
}

/**
 * Gives the hook that a plugin adds. A plugin cannot be registered anew while the app runs, but a
 * reload may change its options.
 */
function captureHook(register: (app: FastifyInstance) => void): CorsHook {
  let captured: onRequestHookHandler | undefined;
  const app = {
    decorateRequest: () => {},
    addHook: (_name: string, hook: onRequestHookHandler) => {
      captured = hook;
    },
    // The route for preflights: the gateway takes all methods of all paths.
    options: () => {},
  };
  // @fastify/cors uses these three methods of an app, and none other.
  register(app as unknown as FastifyInstance);
  return captured as CorsHook;
}
