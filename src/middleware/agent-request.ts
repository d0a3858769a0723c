import { errorMonitor } from 'node:events';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { CallResult } from '../balancing/lease.ts';
import { asError, failureOf, type ResponseHeaders } from '../client/exchange.ts';
import type { JudgedAnswer, Place } from '../client/foreign-request.ts';
import { TIMEOUT_HEADER } from '../client/propagation.ts';
import type { ServiceClient } from '../client/service-client.ts';
import { originOf } from '../discovery/service-instance.ts';
import { InvalidRequestError, ServiceConnectionError } from '../errors.ts';
import { whenRead } from '../internal/event-loop-stall.ts';
import type { Linked } from '../internal/linked-list.ts';
import { type AbortListener, AbortScope, OnAbort } from '../policies/abort.ts';
import type { InstanceSockets } from './instance-sockets.ts';
import { completeHead, valuesOf } from './request-head.ts';

/** A request as Node hands it to its agent, with what its types leave out. */
export interface AgentClientRequest extends ClientRequest {
  /** Gives it a socket, or tells it in the next tick that there is none. */
  onSocket(socket: Socket | null, error?: Error): void;
  timeout?: number;
}

/** Finds the sockets to the instance of a place. */
export type SocketsOf = (place: Place) => InstanceSockets;

/** The headers that say how a request is to be called. */
const CALLING_HEADERS = [TIMEOUT_HEADER, 'idempotency-key'];

function namedBy(request: ClientRequest, name: string): string[] {
  return valuesOf(request, name)?.flatMap((value) => [name, value]) ?? [];
}

const NOBODY = { onAbort() {} };

/** A request of node:http on its way through the mesh. */
export class AgentRequest implements Linked<AgentRequest> {
  next: AgentRequest | undefined = undefined;
  previous: AgentRequest | undefined = undefined;
  readonly request: AgentClientRequest;
  readonly options: RequestOptions;
  /** Aborted when the caller destroys the request. */
  readonly scope = new AbortScope(undefined, NOBODY);
  /** Whether it was given a socket: from there on Node tells the caller of how it ends. */
  sent = false;
  /** Whether it failed after it was given the socket. */
  failed = false;
  /** Called once, when it and its answer are over. */
  readonly whenOver: () => void;
  readonly #destroy: (error?: Error) => ClientRequest;
  /** The `Host` that Node made of the URL; undefined if the caller has said which. */
  readonly #host: unknown;
  readonly #madeAt = performance.now();

  constructor(request: AgentClientRequest, options: RequestOptions, whenOver: () => void) {
    this.request = request;
    this.options = options;
    this.whenOver = whenOver;
    this.#host = namesHost(options.headers) ? undefined : request.getHeader('host');
    // Node tells nobody of a request that is destroyed before it has a socket.
    this.#destroy = request.destroy.bind(request);
    request.destroy = (error) => {
      this.#destroy(error);
      // Some callers destroy a request that has failed: that is not why it did.
      if (!this.failed) this.scope.abort(new Error('the request was destroyed', { cause: error }));
      return request;
    };
  }

  async send(client: ServiceClient, service: string, socketsOf: SocketsOf): Promise<void> {
    // The caller may set headers right after it has made the request.
    await undefined;
    const { method, path } = this.request;
    try {
      const headers = CALLING_HEADERS.flatMap((name) => namedBy(this.request, name));
      await client.admit({ service, method, path, headers }, this.scope, (place) => {
        return new Promise((resolve, reject) => {
          new Attempt(this, place, socketsOf(place), resolve, reject).begin();
        });
      });
    } catch (error) {
      if (!this.sent) this.#refuse(error);
    }
  }

  /** What Node says of a connection that cannot be made is passed on as it is: callers know its codes. */
  #refuse(error: unknown): void {
    const { request } = this;
    const shown = error instanceof ServiceConnectionError ? error.cause : error;
    request.onSocket(null, request.destroyed ? undefined : asError(shown));
    this.whenOver();
  }

  /** Ends it, not for the caller's sake. */
  giveUp(error: Error): void {
    this.failed = true;
    this.#destroy(error);
  }

  /** @throws InvalidRequestError if what is to go with it cannot stand in a header. */
  completeFor({ instance, headers }: Place): void {
    const unchanged = this.#host !== undefined && this.request.getHeader('host') === this.#host;
    const authority = unchanged ? new URL(originOf(instance)).host : undefined;
    try {
      completeHead(this.request, authority, headers(), performance.now() - this.#madeAt);
    } catch (cause) {
      throw new InvalidRequestError(`a header cannot be sent: ${(cause as Error).message}`, { cause });
    }
  }
}

function namesHost(headers: RequestOptions['headers']): boolean {
  return (
    headers !== undefined &&
    (Array.isArray(headers) || Object.keys(headers).some((name) => name.toLowerCase() === 'host'))
  );
}

/**
 * One try of a request: it finds a socket to its place and, once that is open, leaves the request to Node and looks on.
 * The agent of the instance takes it for the request until then.
 */
class Attempt implements AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  /** Set by the agent of the instance. */
  reusedSocket = false;
  readonly #call: AgentRequest;
  readonly #place: Place;
  readonly #sockets: InstanceSockets;
  readonly #resolve: (answer: JudgedAnswer) => void;
  readonly #reject: (error: unknown) => void;
  readonly #startedAt = performance.now();
  #socket: Socket | undefined = undefined;
  #sent = false;
  #answer: JudgedAnswer | undefined = undefined;
  #response: IncomingMessage | undefined = undefined;
  /** Milliseconds to the head of the answer. */
  #latency = 0;
  #broken: Error | undefined = undefined;
  #over = false;

  constructor(
    call: AgentRequest,
    place: Place,
    sockets: InstanceSockets,
    resolve: (answer: JudgedAnswer) => void,
    reject: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#place = place;
    this.#sockets = sockets;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get timeout(): number | undefined {
    return this.#call.request.timeout;
  }

  begin(): void {
    this.#place.context.listen(this);
    try {
      this.#sockets.begin(this, this.#connectionOptions());
    } catch (cause) {
      const { message } = asError(cause);
      this.#fail(new InvalidRequestError(`no connection can be made: ${message}`, { cause }));
    }
  }

  /** Called by the agent of the instance, when it has a socket or cannot make one. */
  onSocket(socket: Socket | null, error?: Error): void {
    if (error !== undefined && error !== null) {
      this.#connectionFailed(error);
    } else if (this.#over) {
      socket!.emit('free');
    } else {
      this.#socket = socket!;
      if (this.#sockets.open.has(socket!)) whenRead(() => this.#reuse(socket!));
      else this.#awaitOpening(socket!);
    }
  }

  /** On a socket that the instance has closed the request would fail, and it cannot be sent again from here. */
  #reuse(socket: Socket): void {
    if (this.#over) return;
    if (socket.readable && socket.writable) {
      this.#handOn();
      return;
    }
    this.#socket = undefined;
    socket.destroy();
    this.reusedSocket = false;
    this.#sockets.find(this, this.#connectionOptions());
  }

  #connectionOptions(): object {
    return connectionOptions(this.#call.options, this.#place);
  }

  onAbort(reason: unknown): void {
    if (this.#sent) this.#call.giveUp(asError(reason));
    else this.#socket?.destroy();
    this.#fail(reason);
  }

  #awaitOpening(socket: Socket): void {
    socket
      // Between two requests, and before it is open, nobody else listens for it.
      .on('error', () => {})
      .once('encrypted' in socket ? 'secureConnect' : 'connect', this.#onOpen)
      .once('error', this.#onError)
      .once('close', this.#onSocketClose)
      .on('timeout', this.#onTimeout);
  }

  readonly #onOpen = () => {
    this.#sockets.open.add(this.#socket!);
    this.#leaveSocket();
    this.#handOn();
  };

  /** Node would tell the request of it if it had the socket already. */
  readonly #onTimeout = () => {
    if (this.timeout !== undefined) this.#call.request.emit('timeout');
  };

  #handOn(): void {
    const socket = this.#socket!;
    const { request } = this.#call;
    try {
      this.#call.completeFor(this.#place);
    } catch (error) {
      socket.destroy();
      this.#fail(error);
      return;
    }
    this.#sent = true;
    this.#call.sent = true;
    this.#place.sent();
    request
      .prependOnceListener('response', this.#onResponse)
      .once(errorMonitor, this.#onError)
      .once('close', this.#onRequestClose);
    socket.once('close', this.#onSocketClose).once('agentRemove', this.#onUpgrade);
    request.reusedSocket = this.reusedSocket;
    request.onSocket(socket);
  }

  readonly #onResponse = (response: IncomingMessage) => {
    // Node reads to its end what nobody takes, unless somebody listens.
    if (this.#call.request.listenerCount('response') === 0) response.resume();
    this.#response = response;
    response.once('close', this.#onResponseClose);
    this.#answered(response.statusCode!, response.headers);
  };

  /** The socket has left its agent: it is the caller's now, and the place is taken until it closes. */
  readonly #onUpgrade = () => {
    this.#answered(101, {});
    const socket = this.#socket!;
    socket.off('close', this.#onSocketClose);
    socket.once('close', () => this.#end({ latency: this.#latency }));
    this.#call.scope.listen(new OnAbort(() => socket.destroy()));
  };

  #answered(status: number, headers: ResponseHeaders): void {
    const { instance, context } = this.#place;
    const { instanceId } = instance;
    context.unlisten(this);
    this.#latency = performance.now() - this.#startedAt;
    const stands = this.#place.responded({ status, headers, instanceId });
    this.#answer = { status, headers, instanceId, stands };
    this.#resolve(this.#answer);
  }

  readonly #onError = (error: Error) => {
    if (this.#answer === undefined) this.#connectionFailed(error);
    else this.#broken ??= error;
  };

  readonly #onRequestClose = () => {
    if (this.#answer === undefined) this.#connectionFailed(new Error('it closed before there was an answer'));
  };

  /** Comes before Node ends what was under way there, so that it can be told who has. */
  readonly #onSocketClose = () => {
    const response = this.#response;
    if (response === undefined) this.#connectionFailed(new Error('it closed before there was an answer'));
    else if (!response.complete && !response.destroyed)
      this.#broken ??= new Error('it closed within the answer');
  };

  readonly #onResponseClose = () => {
    if (this.#response!.complete) this.#end({ latency: this.#latency });
    else if (this.#broken === undefined || this.#call.scope.aborted) this.#end({ cancelled: true });
    else this.#end({ error: failureOf(this.#broken, this.#place.instance, true) });
  };

  #connectionFailed(error: Error): void {
    this.#fail(failureOf(error, this.#place.instance, this.#sent));
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#finish();
    this.#call.failed = this.#sent;
    this.#reject(error);
  }

  #end(end: CallResult): void {
    this.#finish();
    if (this.#answer!.stands) this.#place.release(end);
  }

  #finish(): void {
    this.#over = true;
    this.#place.context.unlisten(this);
    this.#leaveSocket();
    this.#call.request
      .off('response', this.#onResponse)
      .off(errorMonitor, this.#onError)
      .off('close', this.#onRequestClose);
    this.#sockets.end();
    if (this.#sent) this.#call.whenOver();
  }

  #leaveSocket(): void {
    this.#socket
      ?.off('secureConnect', this.#onOpen)
      .off('connect', this.#onOpen)
      .off('error', this.#onError)
      .off('close', this.#onSocketClose)
      .off('timeout', this.#onTimeout)
      .off('agentRemove', this.#onUpgrade);
  }
}

/**
 * What the caller has asked of the connection, and where it is not said what the service's own connections are made
 * with; to the instance, in the protocol that it is registered with.
 */
function connectionOptions(given: RequestOptions, { instance, connection }: Place): object {
  const { serviceName, protocol, host, port } = instance;
  const where = { host, port, socketPath: undefined };
  // Without a name Node's agent makes one of the request's Host.
  if (protocol === 'http') return { ...given, ...where, servername: '' };
  const { timeout: _, ...tls } = typeof connection.connect === 'object' ? connection.connect : {};
  const said = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return { servername: isIP(host) ? serviceName : host, ...tls, ...said, ...where };
}
