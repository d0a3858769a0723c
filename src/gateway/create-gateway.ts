import { type IncomingMessage, METHODS, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyServerOptions } from 'fastify';
import { ClosedError, HoldfastError } from '../errors.ts';
import { describeMissing } from '../internal/missing-package.ts';
import {
  type Labels,
  OBSERVE,
  type Observable,
  type Observation,
  observePart,
} from '../internal/observation.ts';
import { integer, nonEmptyString, requireOption, validateOptions } from '../internal/validate.ts';
import { type GracefulShutdown, gracefulShutdown } from '../middleware/server/lifecycle/graceful-shutdown.ts';
import { readServerOptions } from './config/read-options.ts';
import { Gateway } from './gateway.ts';
import { createHttpServer, rejectConnection } from './http-server.ts';
import type { GatewayConfig, GatewayOptions } from './options.ts';
import { registerGateway } from './plugin.ts';
import type { ServerOptions } from './server-options.ts';

export interface CreateGatewayOptions extends GatewayOptions, ServerOptions {}

export interface ListenOptions {
  /** 0 for a free port. */
  port: number;
  /** Default '127.0.0.1', which only this machine reaches. */
  host?: string | undefined;
}

/** A gateway with a server of its own. */
export interface GatewayServer {
  /** The server of Node, as for `gracefulShutdown({ server: gateway })`. */
  readonly server: Server;
  /**
   * Begins to take requests, and gives the URL.
   *
   * @throws TypeError | RangeError naming the option that is wrong
   * @throws HoldfastError if it listens already, or was closed
   */
  listen(options: ListenOptions): Promise<string>;
  /**
   * Replaces the given fields of the configuration, without dropping a request.
   *
   * @throws GatewayConfigError that tells all that is wrong; the old one stays then
   * @throws ClosedError after `close()`
   */
  reload(changes: Partial<GatewayConfig>): Promise<void>;
  /**
   * Reports by `/health` that the gateway ends, takes no more connections after `drainDelay`, waits until
   * requests in flight are done, and closes the rest. Calling it again gives the same promise.
   */
  close(): Promise<void>;
}

/** The place of the gateway of a server. */
const PLACE = { prefix: '', sendsContinue: true };

/**
 * Creates the entrance for the clients of all services. Needs the packages fastify, and @fastify/cors
 * and @fastify/helmet where those are configured.
 *
 * @throws GatewayConfigError that tells all that is wrong with the options
 * @example
 * const gateway = await createGateway({ client, routes: [{ path: '/users/*', service: 'users', auth: false }] });
 * const url = await gateway.listen({ port: 8080 });
 */
export async function createGateway(options: CreateGatewayOptions): Promise<GatewayServer> {
  const { config, server } = splitOptions(options);
  const serverOptions = readServerOptions(server);
  const gateway = await Gateway.create(config, PLACE);
  const app = await createApp(gateway, serverOptions);
  registerGateway(app, gateway, PLACE);
  return new RunningGateway(gateway, app, serverOptions);
}

function splitOptions(options: CreateGatewayOptions): { config: GatewayOptions; server: ServerOptions } {
  // Without options, those that are required are missing.
  const { tls, http2, maxConnections, maxHeaderSize, requestTimeout, ...others } = Object(
    options,
  ) as CreateGatewayOptions;
  const { headersTimeout, keepAliveTimeout, drainDelay, shutdownTimeout, logger, ...config } = others;
  const times = { requestTimeout, headersTimeout, keepAliveTimeout, drainDelay, shutdownTimeout };
  // Options that are undefined count as left out.
  return { config, server: { tls, http2, maxConnections, maxHeaderSize, logger, ...times } as ServerOptions };
}

/** A server of a gateway: it listens once, and is closed once. */
class RunningGateway implements GatewayServer, Observable {
  readonly server: Server;
  readonly #gateway: Gateway;
  readonly #app: FastifyInstance;
  readonly #secure: boolean;
  readonly #drainDelay: number;
  readonly #shutdown: GracefulShutdown;
  #listening = false;
  #closed: Promise<void> | undefined = undefined;

  constructor(gateway: Gateway, app: FastifyInstance, options: ServerOptions) {
    const { tls, drainDelay = 2_000, shutdownTimeout = 15_000 } = options;
    this.server = app.server;
    this.#gateway = gateway;
    this.#app = app;
    this.#secure = tls !== undefined;
    this.#drainDelay = drainDelay;
    this.#shutdown = gracefulShutdown({
      server: app,
      health: gateway,
      drainDelay,
      timeout: shutdownTimeout,
      signals: false,
    });
  }

  async listen(options: ListenOptions): Promise<string> {
    validateOptions('listen()', options, { port: integer(0, 65_535), host: nonEmptyString });
    requireOption('listen()', options, 'port');
    if (this.#closed !== undefined) throw new ClosedError('the gateway');
    if (this.#listening) throw new HoldfastError('ERR_GATEWAY_CONFIG', 'the gateway listens already');
    this.#listening = true;
    try {
      const { port, host = '127.0.0.1' } = options;
      await this.#app.listen({ port, host });
    } catch (error) {
      this.#listening = false;
      throw error;
    }
    return urlOf(this.server.address() as AddressInfo, this.#secure);
  }

  async reload(changes: Partial<GatewayConfig>): Promise<void> {
    if (this.#closed !== undefined) throw new ClosedError('the gateway');
    await this.#gateway.reload(changes);
  }

  close(): Promise<void> {
    this.#closed ??= this.#listening ? this.#drain() : this.#app.close().then(() => {});
    return this.#closed;
  }

  [OBSERVE](observation: Observation, labels: Labels): void {
    observePart(this.#gateway, observation, labels);
    observePart(this.#shutdown, observation, labels);
  }

  async #drain(): Promise<void> {
    // Clients of WebSockets then look for another gateway, and must not find this one again.
    const closing = pause(this.#drainDelay).then(() => this.#gateway.closeWebSockets());
    await Promise.all([closing, this.#shutdown.shutDown()]);
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function createApp(gateway: Gateway, { logger, ...options }: ServerOptions): Promise<FastifyInstance> {
  const fastify = await importFastify();
  const appOptions: FastifyServerOptions = {
    serverFactory: (handler) =>
      createHttpServer(options, bypassFastify(gateway, handler, logger !== undefined), gateway.accessLog),
    clientErrorHandler: (error, socket) => rejectConnection(error, socket, gateway.accessLog),
    // Fastify cannot read the path. The gateway cannot either, and says so in its own form.
    frameworkErrors: (_error, request, reply) => {
      reply.hijack();
      gateway.handle(request.raw, reply.raw);
    },
    // The gateway routes by itself, and looks at no query.
    routerOptions: { maxParamLength: Number.MAX_SAFE_INTEGER, querystringParser: () => ({}) },
    ...(logger !== undefined && { loggerInstance: logger }),
  };
  const app = fastify(appOptions) as FastifyInstance;
  for (const method of METHODS) {
    const isKnown = app.supportedMethods.includes(method);
    if (!isKnown && method !== 'CONNECT') app.addHttpMethod(method, { hasBody: true });
  }
  return app;
}

async function importFastify(): Promise<typeof import('fastify').default> {
  try {
    return (await import('fastify')).default;
  } catch (cause) {
    const reason = describeMissing(cause, 'fastify');
    if (reason === undefined) throw cause;
    throw createMissingError(reason, cause);
  }
}

function createMissingError(reason: string, cause: unknown): HoldfastError {
  return new HoldfastError('ERR_GATEWAY_CONFIG', `createGateway() ${reason}`, { cause });
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Takes requests past Fastify where it would only cost time: it runs the hook of CORS, and logs. Nor
 * can it route some targets: `*`, absolute URLs, and what is malformed.
 */
function bypassFastify(gateway: Gateway, handler: Handler, logs: boolean): Handler {
  return (request, response) => {
    const needed = (logs || gateway.cors !== undefined) && request.url?.startsWith('/');
    if (needed) handler(request, response);
    else gateway.handle(request, response);
  };
}

function urlOf({ address, family, port }: AddressInfo, secure: boolean): string {
  const host = family === 'IPv6' ? `[${address}]` : address;
  return `${secure ? 'https' : 'http'}://${host}:${port}`;
}
