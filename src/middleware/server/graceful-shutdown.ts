import { Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { Server as HttpsServer } from 'node:https';
import { Server as NetServer, type Socket } from 'node:net';
import { constants } from 'node:os';
import { Server as TlsServer } from 'node:tls';
import type { ServiceRegistrar } from '../../discovery/service-registrar.ts';
import { Emitter } from '../../internal/emitter.ts';
import {
  type Check,
  duration,
  either,
  func,
  having,
  oneOf,
  validateOptions,
} from '../../internal/validate.ts';
import { Timeout } from '../../policies/timeout.ts';

type OneOrMore<T> = T | readonly T[];

/**
 * A server of node:http, https or http2; what has such a one as `server`, as Fastify has; or anything else that is
 * closed, and promises to be done when what is in flight there is.
 */
export interface Closable {
  close(): unknown;
}

export interface GracefulShutdownOptions {
  /** What takes requests. Give it before it listens, so that none is overlooked. */
  server?: OneOrMore<Closable>;
  /** Told first: it is not ready from then on. */
  health?: { shutDown(): void };
  /** What is registered is deregistered. */
  registrar?: OneOrMore<ServiceRegistrar>;
  /**
   * Milliseconds from the deregistration until no more connections are accepted, for all who call to learn of it.
   * Through Redis they know within 50 ms; where they ask DNS, or a load balancer asks whether this is ready, it takes
   * as long as they keep the answer: give more than that. Default 2,000.
   */
  drainDelay?: number;
  /** Milliseconds that what is still in flight then may take. Default 15,000. */
  timeout?: number;
  /** Closed when nothing is in flight any more, before `close`: a ServiceClient, for example. */
  client?: OneOrMore<Closable>;
  /** What else is to be done then, one after the other: to close a discovery, a database. */
  close?: readonly (() => unknown)[];
  /** Signals that begin it; false for none. Default SIGTERM and SIGINT. */
  signals?: readonly ShutdownSignal[] | false;
}

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const;

export type ShutdownSignal = (typeof SIGNALS)[number];

/** What a step of the shutdown is called. */
export type ShutdownStep = 'health' | 'deregister' | 'server' | 'client' | 'close';

export interface ShutdownFailure {
  readonly step: ShutdownStep;
  readonly error: unknown;
}

export interface ShutdownReport {
  /** What began it: a signal, or what `shutDown` was given. */
  readonly reason: string;
  /** Requests that were still in flight when their time was over, and were cut off. */
  readonly cut: number;
  readonly failures: readonly ShutdownFailure[];
  /** Milliseconds that it took. */
  readonly duration: number;
}

export interface GracefulShutdownEvents {
  begin: [event: { reason: string }];
  /** A step failed, or took too long. The others are not affected. */
  failure: [failure: ShutdownFailure];
  /** Requests were cut off. */
  cut: [event: { requests: number }];
  end: [report: ShutdownReport];
}

/** Milliseconds for all deregistrations together, and again for all that is closed at the end. */
const PATIENCE = 5_000;
/**
 * Milliseconds that connections which are idle, or were only just accepted, stay open after the last new one. A client
 * of the mesh that knows closes them itself; another may have sent a POST on one, and could not send it again.
 */
const LINGER = 1_000;
/** Milliseconds between two looks whether anything is in flight. */
const INTERVAL = 10;
/** Milliseconds in which a signal is taken for the same one: npm passes on a Ctrl+C that its child has got too. */
const SAME_SIGNAL = 500;

/**
 * Takes a process out of the mesh without a failed call: makes it unready, deregisters it, waits until all who call
 * have learned of that, lets what is in flight finish, and closes the rest. Each step is bounded: with the defaults
 * all of it takes less than the 30 seconds after which Kubernetes kills.
 *
 * Requests are answered as ever until the end, for a caller that does not know yet has a right to an answer. But from
 * the beginning each answer says that its connection is closed after it (`Connection: close`, or GOAWAY over HTTP/2),
 * so that no request is under way on a connection when it is closed: a POST that is lost there cannot be sent again.
 *
 * With a signal the process ends at last as it would have at once, unless someone else listens to the signal too,
 * who then decides. A second signal ends it at once. A shutdown under way holds the process open.
 *
 * @example
 * gracefulShutdown({ server: app, registrar, health, client, close: [() => discovery.close()] });
 * await app.listen({ port: 8000 });
 * await registrar.register();
 */
export function gracefulShutdown(options: GracefulShutdownOptions): GracefulShutdown {
  return new GracefulShutdown(options);
}

/** What `gracefulShutdown` gives: to begin it by hand, to listen to, to look at. */
export class GracefulShutdown extends Emitter<GracefulShutdownEvents> {
  readonly #options: GracefulShutdownOptions;
  readonly #servers: readonly DrainingServer[];
  /** Frameworks: they are closed when their servers are done. */
  readonly #frameworks: readonly Closable[];
  /** Servers of any other kind, which are done when they say so. */
  readonly #others: readonly Closable[];
  readonly #signals: readonly ShutdownSignal[];
  readonly #failures: ShutdownFailure[] = [];
  #signalledAt: number | undefined = undefined;
  #shutDown: Promise<ShutdownReport> | undefined = undefined;

  constructor(options: GracefulShutdownOptions) {
    super('graceful-shutdown');
    validateOptions('gracefulShutdown', options, {
      server: oneOrMore(having('close')),
      health: having('shutDown'),
      registrar: oneOrMore(having('register', 'close')),
      drainDelay: duration,
      timeout: duration,
      client: oneOrMore(having('close')),
      close: listOf(func),
      signals: either('a list of signals, or false', oneOf(false), listOf(oneOf(...SIGNALS))),
    });
    this.#options = options;
    const given = listed(options.server);
    this.#servers = given.map(nodeServerOf).flatMap((server) => (server ? [new DrainingServer(server)] : []));
    this.#others = given.filter((server) => nodeServerOf(server) === undefined);
    this.#frameworks = given.filter((server) => !isNodeServer(server) && !this.#others.includes(server));
    this.#signals = options.signals === false ? [] : (options.signals ?? ['SIGTERM', 'SIGINT']);
    for (const name of this.#signals) process.on(name, this.#onSignal);
  }

  /** Requests that are being handled on servers of Node, Fastify's included. */
  get inFlight(): number {
    return this.#servers.reduce((sum, server) => sum + server.inFlight, 0);
  }

  /** Shuts down, and tells how it went; it never rejects, and does not end the process. Called again it gives the same. */
  shutDown(reason = 'shutDown()'): Promise<ShutdownReport> {
    this.#shutDown ??= this.#run(reason);
    return this.#shutDown;
  }

  async #run(reason: string): Promise<ShutdownReport> {
    const { health, registrar, drainDelay = 2_000 } = this.#options;
    const startedAt = performance.now();
    this.emit('begin', { reason });
    await this.#step('health', PATIENCE, () => health?.shutDown());
    for (const server of this.#servers) server.announce();
    await Promise.all(listed(registrar).map((one) => this.#deregister(one)));
    await passed(drainDelay);
    const cut = await this.#drain();
    await this.#closeTheRest();
    this.#stopListening();
    const report = { reason, cut, failures: this.#failures, duration: performance.now() - startedAt };
    this.emit('end', report);
    return report;
  }

  async #step(step: ShutdownStep, patience: number, operation: () => unknown): Promise<void> {
    try {
      await new Timeout(Math.max(1, patience)).execute(operation);
    } catch (error) {
      this.#failed({ step, error });
    }
  }

  #failed(failure: ShutdownFailure): void {
    this.#failures.push(failure);
    this.emit('failure', failure);
  }

  /** It tells by an event what its deregistration failed of. */
  async #deregister(registrar: ServiceRegistrar): Promise<void> {
    const onFailure = ({ error }: { error: unknown }) => this.#failed({ step: 'deregister', error });
    registrar.on('failure', onFailure);
    await this.#step('deregister', PATIENCE, () => registrar.close());
    registrar.off('failure', onFailure);
  }

  /** Accepts no more, and waits for what is in flight; gives how many requests it had to cut off. */
  async #drain(): Promise<number> {
    const { timeout = 15_000 } = this.#options;
    // Right after the system was asked what has come: what is known of by now is not lost.
    await new Promise((resolve) => setImmediate(resolve));
    for (const server of this.#servers) server.stop();
    const closing = this.#others.map((server) => this.#step('server', timeout, () => server.close()));
    const until = performance.now() + timeout;
    while (performance.now() < until && this.#servers.some((server) => !server.isDone())) {
      await passed(INTERVAL);
    }
    await Promise.all(closing);
    const requests = this.inFlight;
    for (const server of this.#servers) server.cut();
    if (requests > 0) this.emit('cut', { requests });
    return requests;
  }

  async #closeTheRest(): Promise<void> {
    const { client, close = [] } = this.#options;
    const until = performance.now() + PATIENCE;
    const step = (name: ShutdownStep, operation: () => unknown) => {
      return this.#step(name, until - performance.now(), operation);
    };
    for (const framework of this.#frameworks) await step('server', () => framework.close());
    await Promise.all(listed(client).map((one) => step('client', () => one.close())));
    for (const operation of close) await step('close', operation);
    for (const server of this.#servers) server.destroy();
  }

  #stopListening(): void {
    for (const name of this.#signals) process.off(name, this.#onSignal);
  }

  readonly #onSignal = (name: NodeJS.Signals) => {
    if (this.#signalledAt === undefined) {
      this.#signalledAt = performance.now();
      void this.shutDown(name).then(() => endBy(name, false));
    } else if (performance.now() - this.#signalledAt >= SAME_SIGNAL) {
      this.#stopListening();
      endBy(name, true);
    }
  };
}

/** Ends the process as the signal would have; if others listen to it, only where it must end `anyway`. */
function endBy(name: NodeJS.Signals, anyway: boolean): void {
  const alone = process.listenerCount(name) === 0;
  // To the first process of a container Linux delivers only those signals that it listens to.
  if (alone && process.pid !== 1) process.kill(process.pid, name);
  else if (alone || anyway) process.exit(128 + constants.signals[name]);
}

type NodeServer = HttpServer | HttpsServer | Http2Server;

function nodeServerOf(given: Closable): NodeServer | undefined {
  if (isNodeServer(given)) return given;
  const { server } = given as { server?: unknown };
  return isNodeServer(server) ? server : undefined;
}

function isNodeServer(server: unknown): server is NodeServer {
  return server instanceof HttpServer || server instanceof HttpsServer || isHttp2(server);
}

function isHttp2(server: unknown): server is Http2Server {
  return server instanceof NetServer && 'updateSettings' in server;
}

/** Lets a client use all streams that are under way, and none after them. RFC 9113, section 6.8. */
const ANY_STREAM = 2 ** 31 - 1;

/** A server of Node whose connections and requests are counted, so that it can be closed without losing any. */
class DrainingServer {
  readonly #server: NodeServer;
  /** By connection, since Node does not tell of the end of all requests that a client pipelines on one that breaks. */
  readonly #connections = new Map<Socket, Set<ServerResponse>>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #streams = new Set<ServerHttp2Stream>();
  #announced = false;
  #stoppedAt = Infinity;

  constructor(server: NodeServer) {
    this.#server = server;
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#responsesOn(socket);
    });
    if (isHttp2(server)) {
      server.on('session', (session) => this.#onSession(session));
      server.prependListener('stream', (stream) => this.#onStream(stream));
    }
    // Otherwise HTTP/2 would make a request of each stream, for nobody.
    if (!isHttp2(server) || server.listenerCount('request') > 0) {
      (server as HttpServer).prependListener('request', (request, response) =>
        this.#onRequest(request, response),
      );
    }
  }

  get inFlight(): number {
    let requests = this.#streams.size;
    for (const responses of this.#connections.values()) requests += responses.size;
    return requests;
  }

  /** From now on each answer is the last one on its connection. */
  announce(): void {
    this.#announced = true;
    for (const responses of this.#connections.values()) for (const response of responses) makeLast(response);
    for (const session of this.#sessions) goAway(session);
  }

  /** Accepts no more connections. Those that are open stay so: the server's own `close` would end the idle ones. */
  stop(): void {
    this.#stoppedAt = performance.now();
    NetServer.prototype.close.call(this.#server);
    for (const session of this.#sessions) session.close();
  }

  /** Whether nothing is in flight any more, nor likely to come on a connection that is open. */
  isDone(): boolean {
    if (this.inFlight > 0) return false;
    return this.#connections.size === 0 || performance.now() - this.#stoppedAt >= LINGER;
  }

  /** Ends what is open, but for connections that HTTP has handed over: to WebSockets, for example. */
  cut(): void {
    this.#server.close();
    if ('closeAllConnections' in this.#server) this.#server.closeAllConnections();
    for (const session of this.#sessions) session.destroy();
  }

  /** Ends all connections. */
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
    if (this.#announced) makeLast(response);
  }

  #onSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
  }

  /** A client of a new session is told after its first request: else it would try again, and be told again. */
  #onStream(stream: ServerHttp2Stream): void {
    this.#streams.add(stream);
    stream.once('close', () => this.#streams.delete(stream));
    if (this.#announced && stream.session !== undefined) goAway(stream.session as ServerHttp2Session);
  }
}

function makeLast(response: ServerResponse): void {
  // Unlike a header it stays when a framework clears those to answer an error.
  response.shouldKeepAlive = false;
}

function goAway(session: ServerHttp2Session): void {
  if (!session.closed && !session.destroyed) session.goaway(0, ANY_STREAM);
}

/** Holds the process open, as the shutdown must. */
function passed(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function listed<T>(given: OneOrMore<T> | undefined): readonly T[] {
  if (given === undefined) return [];
  return Array.isArray(given) ? given : [given as T];
}

function oneOrMore(check: Check): Check {
  return (value, option) => {
    for (const one of listed(value)) check(one, option);
  };
}

function listOf(check: Check): Check {
  return (value, option) => {
    if (!Array.isArray(value)) throw new TypeError(`${option} must be a list`);
    for (const one of value) check(one, option);
  };
}
