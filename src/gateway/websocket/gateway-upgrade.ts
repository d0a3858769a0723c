import type { IncomingMessage } from 'node:http';
import type { RequestContext } from '../../client/propagation.ts';
import { type AccessLog, CLIENT_CLOSED_REQUEST, withoutQuery } from '../access-log.ts';
import { authorize } from '../auth/authenticator.ts';
import type { Principal } from '../auth/principal.ts';
import { toFailure } from '../gateway-events.ts';
import type { GatewayResources } from '../gateway-request.ts';
import type { GatewayState } from '../gateway-state.ts';
import { type Peer, peerOf, sourceOf } from '../http/forwarding.ts';
import { type RequestHead, readHead } from '../http/request-head.ts';
import { createContext } from '../http/trace.ts';
import { buildRateLimitFields, type LimitResult } from '../limits/rate-limit-fields.ts';
import { type Limit, takeLimits } from '../limits/rate-limits.ts';
import type { Problem } from '../problem.ts';
import { buildServiceRequest, type RoutedRequest, routeRequest } from '../routed-request.ts';
import { toCanonicalPath } from '../routing/canonical-path.ts';
import type { AllowedOrigins } from './handshake.ts';
import { takeTokenFromProtocols } from './protocol-token.ts';
import type { AdmittedUpgrade, IncomingUpgrade } from './upgrade-handler.ts';

/** Takes a request for a WebSocket the way of any other request of the gateway. */
export class GatewayUpgrade implements IncomingUpgrade {
  readonly context: RequestContext;
  readonly tellsRetries: boolean;
  readonly #resources: GatewayResources;
  readonly #state: GatewayState;
  readonly #request: IncomingMessage;
  readonly #peer: Peer;
  #routed: RoutedRequest | undefined = undefined;
  #status = CLIENT_CLOSED_REQUEST;
  #instanceId: string | undefined = undefined;

  constructor(resources: GatewayResources, state: GatewayState, request: IncomingMessage) {
    this.#resources = resources;
    this.#state = state;
    this.#request = request;
    this.#peer = peerOf(request, state.trustedProxies);
    this.tellsRetries = this.#peer.trusted;
    this.context = createContext(request.headers, this.#peer.trusted);
    if (resources.accessLog !== undefined) this.#logTo(resources.accessLog);
  }

  responded(status: number, instanceId?: string): void {
    this.#status = status;
    this.#instanceId = instanceId;
  }

  /** Tells of the request when its connection has closed. */
  #logTo(accessLog: AccessLog): void {
    const startedAt = performance.now();
    const { method, url, socket } = this.#request;
    const before = socket.bytesWritten;
    socket.once('close', () => {
      accessLog({
        method: method!,
        path: withoutQuery(url!),
        status: this.#status,
        duration: performance.now() - startedAt,
        bytes: socket.bytesWritten - before,
        requestId: this.context.requestId,
        address: this.#routed?.source.address ?? this.#peer.address,
        service: this.#routed?.route.service,
        instanceId: this.#instanceId,
      });
    });
  }

  async route(): Promise<AllowedOrigins | undefined> {
    const { loadShedder } = this.#resources;
    loadShedder.enter(this.#state.config);
    this.#request.socket.once('close', loadShedder.leave);
    const head = this.#readHead();
    const source = sourceOf(this.#request, head.authority, this.#peer, this.#state.trustedProxies);
    const canonical = toCanonicalPath(head.target.path);
    try {
      this.#routed = routeRequest(this.#state, this.#request, head, canonical, source);
    } catch (rejection) {
      await this.#count(this.#state.limits.unrouted, source.address, undefined);
      throw rejection;
    }
    return this.#routed.route.allowedOrigins;
  }

  #readHead(): RequestHead {
    const head = readHead(this.#request, this.#resources.viaName);
    if (this.#state.authenticator === undefined) return head;
    return { ...head, headers: takeTokenFromProtocols(head.headers) };
  }

  async admit(): Promise<AdmittedUpgrade> {
    const routed = this.#routed!;
    const { route, source } = routed;
    const limits = this.#state.limits.routes.get(route);
    const earlier = await this.#count(limits?.beforeAuth, source.address, undefined);
    const principal = await this.#authenticate(routed);
    const all = await this.#count(limits?.afterAuth, source.address, principal, earlier);
    const ownHeaders = limits === undefined ? [] : Object.entries(buildRateLimitFields(all)).flat();
    const { engine } = this.#resources;
    const request = buildServiceRequest(this.#state, engine, this.#request, routed, principal);
    return { request, ownHeaders, responseRules: route.responseHeaders };
  }

  onFailure(problem: Problem, error: unknown): void {
    const service = this.#routed?.route.options.service;
    this.#resources.onFailure(toFailure(this.#request, problem, service, error));
  }

  #count(
    limits: readonly Limit[] = [],
    address: string,
    principal: Principal | undefined,
    earlier?: readonly LimitResult[],
  ): readonly LimitResult[] | Promise<readonly LimitResult[]> {
    return takeLimits(this.#resources.rateLimitStore, limits, { address, principal }, earlier);
  }

  async #authenticate({ head, route: { auth } }: RoutedRequest): Promise<Principal | undefined> {
    if (auth === false) return undefined;
    const principal = await this.#state.authenticator!.authenticate(head.headers);
    authorize(principal, auth);
    return principal;
  }
}
