import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { CallEngine } from '../../client/call-engine.ts';
import { RETRIES_SPENT_HEADER, type RequestContext, wereRetriesSpent } from '../../client/propagation.ts';
import { type UpgradeRequest, type UpgradeResponse, upgrade } from '../../client/upgrade.ts';
import { ClosedError } from '../../errors.ts';
import { renderHead, sendLast } from '../http/raw-response.ts';
import { addResponseHeaders } from '../http/response-head.ts';
import { type Problem, Rejection, toProblem } from '../problem.ts';
import type { CompiledHeaderRules } from '../routing/route.ts';
import { type AllowedOrigins, acceptFor, checkHandshake, checkOrigin } from './handshake.ts';
import { Tunnel } from './tunnel.ts';

/** A request for a WebSocket as the gateway around the handler sees it. */
export interface IncomingUpgrade {
  readonly context: RequestContext;
  /** Whether the client may know that retries were spent: see `ProxiedResponse`. */
  readonly tellsRetries: boolean;
  /**
   * Finds the route, and gives the origins whose pages may use it; undefined if it takes no
   * WebSockets.
   *
   * @throws Rejection
   */
  route(): Promise<AllowedOrigins | undefined>;
  /**
   * Authenticates the client and counts the request. Gives what goes to the service.
   *
   * @throws Rejection
   */
  admit(): Promise<AdmittedUpgrade>;
  /** Takes in the status of the response, and the instance that has given it. */
  responded(status: number, instanceId?: string): void;
  /** Is told of a failure that is not the client's. */
  onFailure(problem: Problem, error: unknown): void;
}

export interface AdmittedUpgrade {
  readonly request: Omit<UpgradeRequest, 'protocol' | 'signal' | 'context'>;
  /** Headers of the response besides those of the service, names and values in turn. */
  readonly ownHeaders: readonly string[];
  readonly responseRules: CompiledHeaderRules | undefined;
}

/** The parts of the gateway that the handler needs. */
export interface UpgradeDependencies {
  readonly engine: CallEngine;
  /** Takes in a request. It must not throw. */
  receive(request: IncomingMessage): IncomingUpgrade;
}

export interface UpgradeHandler {
  /** The number of WebSockets that are open. */
  readonly size: number;
  /** Takes a request for a WebSocket, with the arguments of Node's 'upgrade' event. It never throws. */
  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /**
   * Takes no more requests, ends the handshakes under way, and tells both sides of each WebSocket
   * that the gateway goes away. Resolves when all connections have closed, after `timeout`
   * milliseconds at the latest.
   */
  close(timeout: number): Promise<void>;
}

const NO_WEB_SOCKETS = new Rejection(403, 'web-socket-not-allowed', 'WebSockets cannot be opened here.');
const NO_HANDSHAKE = new Rejection(502, 'bad-gateway', 'The service gave no valid response.');

/** Why a handshake ends whose client has left. Nobody sees it. */
const CLIENT_LEFT = new Error('the client has closed its connection');

/**
 * Creates the handler of requests for WebSockets. A request is checked, routed, authenticated and
 * counted; then the service is asked through the engine, and once it has agreed, the bytes of both
 * sides go through as they are. What fails before is a problem document, as for any other request.
 */
export function createUpgradeHandler(dependencies: UpgradeDependencies): UpgradeHandler {
  const handshakes = new Set<Handshake>();
  const tunnels = new Set<Tunnel>();
  let closed = false;

  const open = (client: Socket, service: Socket) => {
    const tunnel = new Tunnel(client, service);
    tunnels.add(tunnel);
    void tunnel.closed.then(() => tunnels.delete(tunnel));
  };

  return {
    get size() {
      return tunnels.size;
    },
    handle(request, duplex, head) {
      // The servers of Node give sockets, which the type of the event leaves open.
      const socket = duplex as Socket;
      const incoming = dependencies.receive(request);
      const handshake = new Handshake(request, socket, head, incoming);
      handshakes.add(handshake);
      if (closed) handshake.abort(new ClosedError('the gateway'));
      const done = handshake.run(dependencies.engine, (service) => open(socket, service));
      void done.then(() => handshakes.delete(handshake));
    },
    async close(timeout) {
      closed = true;
      for (const handshake of handshakes) handshake.abort(new ClosedError('the gateway'));
      await Promise.all(Array.from(tunnels, (tunnel) => tunnel.close(timeout)));
    },
  };
}

/** The opening of one WebSocket. */
class Handshake {
  readonly #request: IncomingMessage;
  readonly #socket: Socket;
  readonly #incoming: IncomingUpgrade;
  readonly #controller = new AbortController();

  constructor(request: IncomingMessage, socket: Socket, head: Buffer, incoming: IncomingUpgrade) {
    this.#request = request;
    this.#socket = socket;
    this.#incoming = incoming;
    if (head.length > 0) socket.unshift(head);
    // A client that ends its side cannot speak on the WebSocket.
    socket
      .on('error', () => {})
      .on('end', this.#onLeave)
      .on('close', this.#onLeave);
  }

  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  /** @param onOpen is called with the socket to the service once the WebSocket is open */
  async run(engine: CallEngine, onOpen: (service: Socket) => void): Promise<void> {
    try {
      const key = checkHandshake(this.#request);
      const allowed = await this.#incoming.route();
      if (allowed === undefined) throw NO_WEB_SOCKETS;
      checkOrigin(this.#request, allowed);
      const admitted = await this.#incoming.admit();
      const service = this.#respond(key, admitted, await this.#ask(engine, admitted));
      this.#socket.off('end', this.#onLeave).off('close', this.#onLeave);
      if (service !== undefined) onOpen(service);
    } catch (error) {
      this.#fail(error);
    }
  }

  #ask(engine: CallEngine, { request }: AdmittedUpgrade): Promise<UpgradeResponse> {
    const { signal } = this.#controller;
    signal.throwIfAborted();
    return upgrade(engine, { ...request, protocol: 'websocket', signal, context: this.#incoming.context });
  }

  /** Gives the socket to the service, if that has agreed. */
  #respond(key: string, admitted: AdmittedUpgrade, response: UpgradeResponse): Socket | undefined {
    const { status, headers, socket: service, body, instanceId } = response;
    const { signal } = this.#controller;
    if (signal.aborted) {
      (service ?? body!).destroy();
      throw signal.reason;
    }
    const list = [...this.#ownHeaders, ...admitted.ownHeaders];
    addResponseHeaders(list, status, headers, admitted.responseRules, undefined);
    if (service === undefined) {
      this.#incoming.responded(status, instanceId);
      sendLast(this.#socket, status, list, body!);
      return undefined;
    }
    if (headers['sec-websocket-accept'] !== acceptFor(key)) {
      service.destroy();
      throw NO_HANDSHAKE;
    }
    list.push('connection', 'Upgrade', 'upgrade', 'websocket');
    this.#incoming.responded(status, instanceId);
    this.#socket.write(renderHead(status, list), 'latin1');
    return service;
  }

  #fail(error: unknown): void {
    if (error === CLIENT_LEFT) {
      this.#socket.destroy();
      return;
    }
    const problem = toProblem(error);
    const { status, headers, body } = problem;
    if (status >= 500) this.#incoming.onFailure(problem, error);
    const list = [...this.#ownHeaders, ...headers];
    const { context, tellsRetries } = this.#incoming;
    if (tellsRetries && status >= 500 && wereRetriesSpent(context)) list.push(RETRIES_SPENT_HEADER, '1');
    this.#incoming.responded(status);
    sendLast(this.#socket, status, list, body);
  }

  get #ownHeaders(): string[] {
    return ['x-request-id', this.#incoming.context.requestId];
  }

  readonly #onLeave = () => this.#controller.abort(CLIENT_LEFT);
}
