import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { readPrefix } from './config/read-options.ts';
import { Gateway, type GatewayPlace } from './gateway.ts';
import { isPreflight } from './http/cors.ts';
import type { GatewayConfig, GatewayOptions } from './options.ts';
import { listenForWebSockets } from './websocket/upgrade-events.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** The gateway that was registered as a plugin. */
    gateway: AppGateway;
  }
}

/** The gateway of an app. */
export interface AppGateway {
  /**
   * Replaces the given fields of the configuration, without dropping a request.
   *
   * @throws GatewayConfigError that tells all that is wrong; the old one stays then
   */
  reload(changes: Partial<GatewayConfig>): Promise<void>;
  /** Reports from now on that the gateway is unhealthy: see `gracefulShutdown`, option `health`. */
  shutDown(): void;
}

export interface GatewayPluginOptions extends GatewayOptions {
  /** Begins the paths of all routes, after the prefix of the app. Default: none. */
  prefix?: string | undefined;
}

/** A plugin of Fastify, by a type that names none of Fastify's: see GatewayLogger. */
export type GatewayPlugin = (
  app: object,
  options: GatewayPluginOptions,
  done: (error?: Error) => void,
) => void;

/**
 * The gateway as a plugin of Fastify 5: it takes the requests under its prefix for which the app has
 * no other route. Hooks of the app for `onRequest` and `onResponse` run; its body parsers do not,
 * since bodies are streamed.
 *
 * @example
 * await app.register(gateway, { client, routes });
 * await app.gateway.reload({ routes: others });
 */
export const gateway: GatewayPlugin = Object.assign(
  (app: object, options: GatewayPluginOptions, done: (error?: Error) => void) => {
    // Only Fastify calls it.
    addGateway(app as FastifyInstance, options).then(() => done(), done);
  },
  {
    // As with fastify-plugin, so that the app itself gets the property `gateway`.
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'holdfast-gateway',
  },
);

async function addGateway(app: FastifyInstance, given: GatewayPluginOptions): Promise<void> {
  const { prefix = '', ...options } = given;
  const place = { prefix: readPrefix(app.prefix, prefix), sendsContinue: false };
  const created = await Gateway.create(options, place);
  app.decorate('gateway', created);
  registerGateway(app, created, place);
}

/** Registers the routes of a gateway, and closes it with the app. */
export function registerGateway(app: FastifyInstance, created: Gateway, { prefix }: GatewayPlace): void {
  listenForWebSockets(app.server, prefix, (request, socket, head) => created.upgrade(request, socket, head));
  app.addHook('preClose', () => created.closeWebSockets());
  app.addHook('onClose', () => created.close());
  void app.register(
    (own, _options, done) => {
      own.addHook('onRequest', (request, reply, next) => {
        const { cors } = created;
        if (cors === undefined) {
          next();
          return;
        }
        if (isPreflight(request))
          created.logPreflight(request.raw, reply.raw, () => String(reply.getHeader('x-request-id')));
        cors(request, reply, next);
      });
      for (const url of prefix === '' ? ['/*'] : ['', '/*']) {
        own.route({
          url,
          method: own.supportedMethods,
          exposeHeadRoute: false,
          onRequest: (request, reply) => takeOver(created, request, reply),
          handler: async () => {},
        });
      }
      done();
    },
    // Fastify puts the prefix of the app before it.
    { prefix: prefix.slice(app.prefix.length) },
  );
}

/**
 * Takes a request from Fastify before it would parse the body. The hook never says that it is done,
 * so nothing of Fastify's comes after it.
 */
function takeOver(created: Gateway, request: FastifyRequest, reply: FastifyReply): void {
  reply.hijack();
  const own = reply.getHeaders();
  created.handle(request.raw, reply.raw, own);
}
