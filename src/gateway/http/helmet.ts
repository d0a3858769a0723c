import type { FastifyHelmetOptions } from '@fastify/helmet';
import { GatewayConfigError } from '../../errors.ts';
import { importPeer } from '../import-peer.ts';
import type { OwnHeaders } from './client-response.ts';

/**
 * The options of @fastify/helmet, which itself passes over others. `global` is not one of them here, nor is
 * `enableCSPNonces`: a nonce must be another one for each response.
 */
const OPTIONS = {
  contentSecurityPolicy: true,
  crossOriginEmbedderPolicy: true,
  crossOriginOpenerPolicy: true,
  crossOriginResourcePolicy: true,
  originAgentCluster: true,
  referrerPolicy: true,
  strictTransportSecurity: true,
  hsts: true,
  xContentTypeOptions: true,
  noSniff: true,
  xDnsPrefetchControl: true,
  dnsPrefetchControl: true,
  xDownloadOptions: true,
  ieNoOpen: true,
  xFrameOptions: true,
  frameguard: true,
  xPermittedCrossDomainPolicies: true,
  permittedCrossDomainPolicies: true,
  xPoweredBy: true,
  hidePoweredBy: true,
  xXssProtection: true,
  xssFilter: true,
} satisfies Record<Exclude<keyof FastifyHelmetOptions, 'global' | 'enableCSPNonces'>, true>;

export const HELMET_OPTIONS: readonly string[] = Object.keys(OPTIONS);

/** Headers of each response of Fastify, which do not come from helmet. */
const OTHERS = ['connection', 'content-length', 'content-type', 'date', 'keep-alive'];

/**
 * Gives the headers that @fastify/helmet sets. They are the same for each request, so it is asked once.
 *
 * @throws GatewayConfigError if @fastify/helmet is not installed, or does not take the options
 */
export async function readHelmetHeaders(options: Readonly<Record<string, unknown>>): Promise<OwnHeaders> {
  const { default: helmet } = await importPeer('helmet', '@fastify/helmet', () => import('@fastify/helmet'));
  const { default: fastify } = await importPeer('helmet', 'fastify', () => import('fastify'));
  const app = fastify();
  try {
    await app.register(helmet, { ...options });
    app.get('/', async () => '');
    const { statusCode, headers, body } = await app.inject('/');
    if (statusCode !== 200) throw new Error(JSON.parse(body).message);
    const own = Object.entries(headers).filter(([name]) => !OTHERS.includes(name));
    return { 'x-powered-by': undefined, ...Object.fromEntries(own) };
  } catch (cause) {
    throw new GatewayConfigError([{ path: 'helmet', reason: `is rejected: ${(cause as Error).message}` }], {
      cause,
    });
  } finally {
    await app.close();
  }
}
