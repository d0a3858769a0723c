import type { IncomingMessage } from 'node:http';
import type { CallEngine } from '../client/call-engine.ts';
import type { RequestContext } from '../client/propagation.ts';
import { relayPrepared } from '../client/relay.ts';
import type { RateLimitStore } from '../middleware/server/rate-limit/rate-limit-store.ts';
import { type AccessLog, type LoggedResponse, logWhenOver } from './access-log.ts';
import { authorize } from './auth/authenticator.ts';
import type { Principal } from './auth/principal.ts';
import type { FailureListener } from './gateway-events.ts';
import type { GatewayState, OwnResponder } from './gateway-state.ts';
import type { ClientResponse, OwnHeaders } from './http/client-response.ts';
import { type Peer, peerOf, sourceOf } from './http/forwarding.ts';
import { ProxiedResponse } from './http/proxied-response.ts';
import { createTooLarge, isReplayable, readWhole, Upload } from './http/request-body.ts';
import { type RequestHead, readHead } from './http/request-head.ts';
import { createContext } from './http/trace.ts';
import type { LoadShedder } from './limits/load-shedder.ts';
import { buildRateLimitFields } from './limits/rate-limit-fields.ts';
import { takeLimits } from './limits/rate-limits.ts';
import { Rejection } from './problem.ts';
import { buildServiceRequest, type RoutedRequest, routeRequest } from './routed-request.ts';
import { type CanonicalPath, toCanonicalPath } from './routing/canonical-path.ts';

/** The parts of a gateway that all its requests share. */
export interface GatewayResources {
  readonly engine: CallEngine;
  readonly loadShedder: LoadShedder;
  readonly rateLimitStore: RateLimitStore;
  readonly accessLog: AccessLog | undefined;
  /** Whether `100 Continue` is left to the gateway, and was not sent by Node. */
  readonly sendsContinue: boolean;
  /** The name of the gateway in `Via`. */
  readonly viaName: string;
  /** Whether the gateway shuts down. */
  draining: boolean;
  readonly onFailure: FailureListener;
}

/**
 * Takes a request through the gateway: it is checked and routed, its caller is authenticated and
 * counted, its body is accepted, and it goes on to the service. Where nothing has to be awaited, all
 * of this happens at once. Each step may throw a Rejection, which is the response then.
 */
export class GatewayRequest {
  readonly #resources: GatewayResources;
  readonly #state: GatewayState;
  readonly #request: IncomingMessage;
  readonly #response: ClientResponse;
  readonly #context: RequestContext;
  readonly #peer: Peer;
  readonly #reply: ProxiedResponse;
  /** The address of the client, once that is known. */
  #address: string;

  /** @param own headers of the response that are set already */
  constructor(
    resources: GatewayResources,
    state: GatewayState,
    request: IncomingMessage,
    response: ClientResponse,
    own: OwnHeaders | undefined,
  ) {
    this.#resources = resources;
    this.#state = state;
    this.#request = request;
    this.#response = response;
    this.#peer = peerOf(request, state.trustedProxies);
    this.#context = createContext(request.headers, this.#peer.trusted);
    this.#reply = new ProxiedResponse(request, response, this.#context, own);
    this.#reply.tellsRetries = this.#peer.trusted;
    this.#address = this.#peer.address;
    if (resources.accessLog !== undefined)
      logWhenOver(resources.accessLog, request, response, () => this.#describe());
    this.#reply.onFailure = resources.onFailure;
  }

  handle(): void {
    this.#try(() => {
      const head = readHead(this.#request, this.#resources.viaName);
      if (head.hasBody) this.#reply.expectBody();
      this.#reply.awaitsContinue = head.expectsContinue && this.#resources.sendsContinue;
      if (head.target.path === '*') this.#reply.finish({ status: 204, headers: {}, body: '' });
      else this.#dispatch(head, toCanonicalPath(head.target.path));
    });
  }

  #describe(): LoggedResponse {
    const { bytes, route, instanceId } = this.#reply;
    const { requestId } = this.#context;
    return { bytes, requestId, address: this.#address, service: route?.service, instanceId };
  }

  #dispatch(head: RequestHead, canonical: CanonicalPath): void {
    const source = sourceOf(this.#request, head.authority, this.#peer, this.#state.trustedProxies);
    this.#address = source.address;
    const { method } = this.#request;
    const reads = method === 'GET' || method === 'HEAD';
    const respond = reads ? this.#state.ownPaths.get(canonical.path) : undefined;
    if (respond !== undefined) {
      this.#respond(respond, source.address);
      return;
    }
    this.#resources.loadShedder.enter(this.#state.config);
    this.#response.on('close', this.#resources.loadShedder.leave);
    let routed: RoutedRequest;
    try {
      routed = routeRequest(this.#state, this.#request, head, canonical, source);
    } catch (rejection) {
      this.#rejectUnrouted(source.address, rejection);
      return;
    }
    this.#reply.route = routed.route;
    this.#limit(routed);
  }

  /** Counts a request that no route takes, so that nobody looks for routes without a limit. */
  #rejectUnrouted(address: string, rejection: unknown): void {
    const client = { address, principal: undefined };
    const results = takeLimits(this.#resources.rateLimitStore, this.#state.limits.unrouted, client);
    this.#when(results, () => this.#reply.fail(rejection));
  }

  #respond(respond: OwnResponder, address: string): void {
    const request = { address, identify: () => this.#identify(address) };
    this.#when(respond(this.#resources, request), (response) => this.#reply.finish(response));
  }

  /**
   * Gives the caller; undefined where there is none, or none that can be verified. Once its address has
   * shown too many tokens and keys, none is looked at.
   */
  async #identify(address: string): Promise<Principal | undefined> {
    const { authenticator, limits } = this.#state;
    const { headers, rawHeaders } = this.#request;
    if (authenticator === undefined || (headers.authorization ?? headers['x-api-key']) === undefined)
      return undefined;
    try {
      await takeLimits(this.#resources.rateLimitStore, limits.health, { address, principal: undefined });
      return await authenticator.authenticate(rawHeaders);
    } catch (error) {
      if (error instanceof Rejection) return undefined;
      throw error;
    }
  }

  /** Counts the request by its address: before its token is looked at, so that guesses count. */
  #limit(routed: RoutedRequest): void {
    const limits = this.#state.limits.routes.get(routed.route);
    if (limits === undefined) {
      this.#authenticate(routed, (principal) => this.#receive(routed, principal));
      return;
    }
    const { rateLimitStore } = this.#resources;
    const { address } = routed.source;
    const client = { address, principal: undefined };
    this.#when(takeLimits(rateLimitStore, limits.beforeAuth, client), (earlier) => {
      this.#authenticate(routed, (principal) => {
        const results = takeLimits(rateLimitStore, limits.afterAuth, { address, principal }, earlier);
        this.#when(results, (all) => {
          this.#reply.ownHeaders.push(...Object.entries(buildRateLimitFields(all)).flat());
          this.#receive(routed, principal);
        });
      });
    });
  }

  #authenticate(routed: RoutedRequest, next: (principal: Principal | undefined) => void): void {
    const { authenticator } = this.#state;
    const { auth } = routed.route;
    if (auth === false) {
      next(undefined);
      return;
    }
    this.#when(authenticator!.authenticate(this.#request.rawHeaders), (principal) => {
      authorize(principal, auth);
      next(principal);
    });
  }

  /** Accepts the body: a short one is read first, and can be sent again, any other is streamed. */
  #receive(routed: RoutedRequest, principal: Principal | undefined): void {
    const { head, route } = routed;
    if (!head.hasBody) {
      this.#forward(routed, principal, null);
      return;
    }
    const { method } = this.#request;
    if ((method === 'GET' || method === 'HEAD') && route.options.getBody !== 'forward')
      throw new Rejection(400, 'body-not-allowed', `A ${method} must have no body here.`);
    if ((head.contentLength ?? 0) > route.maxBodySize) throw createTooLarge(route.maxBodySize);
    if (this.#reply.awaitsContinue) {
      this.#reply.awaitsContinue = false;
      this.#response.writeContinue();
    }
    if (isReplayable(head.contentLength)) {
      readWhole(this.#request, (body) => this.#try(() => this.#forward(routed, principal, body)));
    } else {
      const reject = (rejection: Rejection) => this.#reply.fail(rejection);
      this.#reply.upload = new Upload(this.#request, route.maxBodySize, this.#resources.engine.clock, reject);
      this.#forward(routed, principal, this.#reply.upload);
    }
  }

  #forward(routed: RoutedRequest, principal: Principal | undefined, body: Buffer | Upload | null): void {
    if (this.#reply.over) return;
    const { engine } = this.#resources;
    const service = buildServiceRequest(this.#state, engine, this.#request, routed, principal);
    const { path, headers, idempotent } = service;
    const method = this.#request.method!;
    const replayable = !(body instanceof Upload);
    relayPrepared(
      engine,
      { ...service, callerWait: this.#reply.upload?.wait, context: this.#context },
      { method, path, headers, body, replayable, idempotent },
      this.#reply,
    );
  }

  /** Goes on with a value: at once if it is there. */
  #when<T>(value: T | Promise<T>, next: (value: T) => void): void {
    if (!(value instanceof Promise)) next(value);
    else value.then((known) => this.#reply.over || next(known)).catch((error) => this.#reply.fail(error));
  }

  #try(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#reply.fail(error);
    }
  }
}
