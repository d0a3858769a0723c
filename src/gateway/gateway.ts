import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { EngineHandle } from '../client/call-engine.ts';
import { resolveClient } from '../client/resolve-client.ts';
import { Emitter, guard } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { InMemoryRateLimitStore } from '../middleware/server/rate-limit/in-memory-rate-limit-store.ts';
import { type AccessLog, logWhenOver } from './access-log.ts';
import { readGatewayConfig, readGatewayOptions } from './config/read-options.ts';
import type { FailureListener, GatewayEvents } from './gateway-events.ts';
import { GatewayRequest, type GatewayResources } from './gateway-request.ts';
import { compileState, type GatewayState } from './gateway-state.ts';
import type { ClientResponse, OwnHeaders } from './http/client-response.ts';
import type { CorsHook } from './http/cors.ts';
import { peerOf, sourceOf } from './http/forwarding.ts';
import { handleInTurn } from './http/pipelining.ts';
import { createViaName } from './http/via.ts';
import { GuardedStore } from './limits/guarded-store.ts';
import { LoadShedder } from './limits/load-shedder.ts';
import type { GatewayConfig, GatewayOptions } from './options.ts';
import { GatewayUpgrade } from './websocket/gateway-upgrade.ts';
import { createUpgradeHandler, type UpgradeHandler } from './websocket/upgrade-handler.ts';

/** Milliseconds that both sides of a WebSocket have to respond to a Close frame of the gateway. */
const WEB_SOCKET_CLOSE_TIMEOUT = 3_000;

/** Where a gateway stands. */
export interface GatewayPlace {
  /** Begins the paths of all routes and of the gateway itself. */
  readonly prefix: string;
  readonly sendsContinue: boolean;
}

/** Takes requests to services, by a configuration that can be replaced while it runs. */
export class Gateway extends Emitter<GatewayEvents> {
  readonly #client: EngineHandle;
  readonly #resources: GatewayResources;
  readonly #upgrades: UpgradeHandler;
  readonly #prefix: string;
  #state: GatewayState;
  /** The latest reload, which the next one waits for. */
  #reloading: Promise<unknown> = Promise.resolve();

  private constructor(
    client: EngineHandle,
    state: GatewayState,
    { prefix, sendsContinue }: GatewayPlace,
    given: Pick<GatewayResources, 'rateLimitStore' | 'accessLog'>,
  ) {
    super('gateway');
    this.#client = client;
    const { engine } = client;
    const onFailure: FailureListener = (failure) => void this.emit('failure', failure);
    this.#resources = {
      engine,
      loadShedder: new LoadShedder(),
      ...given,
      sendsContinue,
      viaName: createViaName(),
      draining: false,
      onFailure,
    };
    this.#state = state;
    this.#upgrades = createUpgradeHandler({
      engine,
      receive: (request) => new GatewayUpgrade(this.#resources, this.#state, request),
    });
    this.#prefix = prefix;
  }

  /** @throws GatewayConfigError that tells all that is wrong with the options */
  static async create(options: GatewayOptions, place: GatewayPlace): Promise<Gateway> {
    const { client, discovery, rateLimitStore, accessLog, ...config } = readGatewayOptions(options);
    const state = await compileState(config, place.prefix);
    const engine = resolveClient(client ?? { discovery: discovery! });
    const store =
      rateLimitStore === undefined ? new InMemoryRateLimitStore() : new GuardedStore(rateLimitStore);
    return new Gateway(engine, state, place, {
      rateLimitStore: store,
      accessLog: accessLog && guard(accessLog),
    });
  }

  /** The hook that tells browsers which origins may read responses; undefined without `cors`. */
  get cors(): CorsHook | undefined {
    return this.#state.cors;
  }

  /** Is told of each request; undefined without an access log. */
  get accessLog(): AccessLog | undefined {
    return this.#resources.accessLog;
  }

  /**
   * Replaces the given fields of the configuration. Requests under way keep the one with which they
   * began. A configuration that is wrong is rejected whole, and the old one stays. Several reloads
   * take effect in their order.
   *
   * @throws GatewayConfigError that tells all that is wrong
   */
  reload(changes: Partial<GatewayConfig>): Promise<void> {
    const reload = this.#reloading.then(async () => {
      const config = readGatewayConfig({ ...this.#state.config, ...changes });
      this.#state = await compileState(config, this.#prefix, this.#state);
      this.emit('reload', { routes: config.routes.length });
    });
    this.#reloading = reload.catch((error) => void this.emit('reload-failure', { error }));
    return reload;
  }

  /** Responds to a request, with what a service responds or by itself. It never throws. */
  handle(request: IncomingMessage, response: ClientResponse, own?: OwnHeaders): void {
    handleInTurn(request, response, () => {
      const { ownHeaders } = this.#state;
      const all = ownHeaders === undefined ? own : { ...ownHeaders, ...own };
      new GatewayRequest(this.#resources, this.#state, request, response, all).handle();
    });
  }

  /**
   * Has a preflight logged, to which the hook for CORS responds.
   *
   * @param requestId gives the id that the response has
   */
  logPreflight(request: IncomingMessage, response: ClientResponse, requestId: () => string): void {
    const { accessLog } = this.#resources;
    if (accessLog === undefined) return;
    const { trustedProxies } = this.#state;
    const peer = peerOf(request, trustedProxies);
    const { address } = sourceOf(request, '', peer, trustedProxies);
    logWhenOver(accessLog, request, response, () => ({
      bytes: 0,
      requestId: requestId(),
      address,
      service: undefined,
      instanceId: undefined,
    }));
  }

  /** Reports from now on that the gateway is unhealthy: see `gracefulShutdown`, option `health`. */
  shutDown(): void {
    this.#resources.draining = true;
  }

  /** Takes a request for a WebSocket, with the arguments of Node's 'upgrade' event. It never throws. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#upgrades.handle(request, socket, head);
  }

  /** Takes no more WebSockets, and closes those that are open, which takes a few seconds at most. */
  closeWebSockets(): Promise<void> {
    return this.#upgrades.close(WEB_SOCKET_CLOSE_TIMEOUT);
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    this.#client.engine[OBSERVE](observation, labels);
    observePart(this.#resources.rateLimitStore, observation, labels);
  }

  /** Closes the client, if it is the gateway's own. */
  close(): Promise<void> {
    this.#resources.loadShedder.close();
    return this.#client.close();
  }
}
