import { Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { Server as HttpsServer } from 'node:https';
import { Server as NetServer, type Socket } from 'node:net';
import { Server as TlsServer } from 'node:tls';

/**
 * Milliseconds that connections which are idle, or were only just accepted, stay open after the
 * server has stopped accepting. A client of the mesh that has learned of the shutdown closes them
 * itself; another may have sent a POST on one, which it could not send again.
 */
const IDLE_GRACE = 1_000;

type NodeServer = HttpServer | HttpsServer | Http2Server;

/**
 * The server of node:http, https or http2 that was given, that a framework has as `server`, or that an
 * application gives by `getHttpServer()`.
 */
export function nodeServerOf(given: object): NodeServer | undefined {
  if (isNodeServer(given)) return given;
  const application = given as { server?: unknown; getHttpServer?: unknown };
  const { getHttpServer } = application;
  const server = typeof getHttpServer === 'function' ? getHttpServer.call(given) : application.server;
  return isNodeServer(server) ? server : undefined;
}

export function isNodeServer(server: unknown): server is NodeServer {
  return server instanceof HttpServer || server instanceof HttpsServer || isHttp2(server);
}

function isHttp2(server: unknown): server is Http2Server {
  return server instanceof NetServer && 'updateSettings' in server;
}

/** The last stream id that lets a client use all streams in flight: RFC 9113, section 6.8. */
const ANY_STREAM = 2 ** 31 - 1;

/**
 * Counts the connections and requests of a server of Node, so that it can be closed without losing
 * any.
 */
export class DrainingServer {
  readonly #server: NodeServer;
  /**
   * The responses in flight by connection, since Node does not tell of the end of all requests that
   * a client has pipelined on a connection that breaks.
   */
  readonly #connections = new Map<Socket, Set<ServerResponse>>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #streams = new Set<ServerHttp2Stream>();
  #hasListened: boolean;
  #announced = false;
  #stoppedAt = Infinity;

  constructor(server: NodeServer) {
    this.#server = server;
    this.#hasListened = server.listening;
    server.once('listening', () => {
      this.#hasListened = true;
    });
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#responsesOn(socket);
    });
    if (isHttp2(server)) {
      server.on('session', (session) => this.#onSession(session));
      server.prependListener('stream', (stream) => this.#onStream(stream));
    }
    // With a listener, HTTP/2 makes a request of each stream; without one that would be for nobody.
    if (!isHttp2(server) || server.listenerCount('request') > 0) {
      (server as HttpServer).prependListener('request', (request, response) =>
        this.#onRequest(request, response),
      );
    }
  }

  /** The number of requests in flight. */
  get inFlight(): number {
    let requests = this.#streams.size;
    for (const responses of this.#connections.values()) requests += responses.size;
    return requests;
  }

  /** Makes each response, from now on, the last one on its connection. */
  announce(): void {
    this.#announced = true;
    for (const responses of this.#connections.values())
      for (const response of responses) closeAfter(response);
    for (const session of this.#sessions) goAway(session);
  }

  /**
   * Accepts no more connections. The open ones stay open: the server's own `close` would end idle
   * ones. Gives false if somebody else has closed it.
   */
  stop(): boolean {
    const wasOpen = this.#server.listening || !this.#hasListened;
    this.#stoppedAt = performance.now();
    NetServer.prototype.close.call(this.#server);
    for (const session of this.#sessions) session.close();
    return wasOpen;
  }

  /** Whether nothing is in flight any more, and nothing is likely to come on an open connection. */
  isDone(): boolean {
    if (this.inFlight > 0) return false;
    return this.#connections.size === 0 || performance.now() - this.#stoppedAt >= IDLE_GRACE;
  }

  /** Ends all connections, but for those that HTTP has handed over, as to WebSockets. */
  cut(): void {
    this.#server.close();
    if ('closeAllConnections' in this.#server) this.#server.closeAllConnections();
    for (const session of this.#sessions) session.destroy();
  }

  /** Ends all connections, upgraded ones included. */
  destroy(): void {
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #responsesOn(socket: Socket): Set<ServerResponse> {
    let responses = this.#connections.get(socket);
    if (responses === undefined) {
      responses = new Set();
      this.#connections.set(socket, responses);
      socket.once('close', () => this.#connections.delete(socket));
    }
    return responses;
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    if (request.httpVersionMajor > 1) return;
    const responses = this.#responsesOn(request.socket);
    responses.add(response);
    response.once('close', () => responses.delete(response));
    if (this.#announced) closeAfter(response);
  }

  #onSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
  }

  /**
   * Tells the client of a new session to go away after its first request: before it, the client
   * would retry on another session, and be told again.
   */
  #onStream(stream: ServerHttp2Stream): void {
    this.#streams.add(stream);
    stream.once('close', () => this.#streams.delete(stream));
    if (this.#announced && stream.session !== undefined) goAway(stream.session as ServerHttp2Session);
  }
}

function closeAfter(response: ServerResponse): void {
  // Unlike a header, this stays when a framework clears the headers to respond to an error.
  response.shouldKeepAlive = false;
}

function goAway(session: ServerHttp2Session): void {
  if (!session.closed && !session.destroyed) session.goaway(0, ANY_STREAM);
}
