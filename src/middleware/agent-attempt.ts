import { errorMonitor } from 'node:events';
import type { IncomingMessage, RequestOptions } from 'node:http';
import type { Socket } from 'node:net';
import type { CallResult, Lease } from '../balancing/lease.ts';
import type { Attempt } from '../client/attempt.ts';
import type { CallState } from '../client/call-state.ts';
import { tlsNameOf } from '../client/instance-client.ts';
import type { ResponseHeaders } from '../client/response.ts';
import { toResponseError } from '../client/response-content.ts';
import { asError, toServiceError } from '../client/service-errors.ts';
import type { AttemptResult } from '../client/transport.ts';
import { InvalidRequestError, type ServiceResponseError } from '../errors.ts';
import { whenRead } from '../internal/event-loop-stall.ts';
import { CONNECT_OPTIONS } from '../internal/external-options.ts';
import { type AbortListener, OnAbort } from '../policies/abort.ts';
import type { AgentRequest } from './agent-request.ts';
import type { InstanceSockets } from './instance-sockets.ts';

/** The response to a request of node:http. Node itself gives it to the caller. */
export class AgentResponse implements AttemptResult<void> {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly instanceId: string;
  readonly succeeded: boolean;

  constructor(attempt: Attempt, status: number, headers: ResponseHeaders) {
    this.status = status;
    this.headers = headers;
    this.instanceId = attempt.instance.instanceId;
    this.succeeded = attempt.judge(this);
  }

  hold(lease: Lease): void {
    lease.responded();
  }

  deliver(): void {}

  discard(): void {}

  toError(call: CallState): ServiceResponseError {
    return toResponseError(call, this, undefined);
  }
}

/**
 * One attempt of a request. It finds a socket to the instance and, once that is open, leaves the
 * request to Node and watches how it ends. Until then it stands in for the request: Node's agent
 * calls its `onSocket`.
 */
export class AgentAttempt implements AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  /** `reusedSocket` is set by the agent of the instance. */
  reusedSocket = false;
  readonly #call: AgentRequest;
  readonly #attempt: Attempt;
  readonly #sockets: InstanceSockets;
  readonly #resolve: (response: AgentResponse) => void;
  readonly #reject: (error: unknown) => void;
  #socket: Socket | undefined = undefined;
  #sent = false;
  #response: AgentResponse | undefined = undefined;
  #message: IncomingMessage | undefined = undefined;
  /** `#latency` is the milliseconds until the head of the response. */
  #latency = 0;
  #broken: Error | undefined = undefined;
  #ended = false;

  constructor(
    call: AgentRequest,
    attempt: Attempt,
    sockets: InstanceSockets,
    resolve: (response: AgentResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#attempt = attempt;
    this.#sockets = sockets;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get timeout(): number | undefined {
    return this.#call.request.timeout;
  }

  begin(): void {
    this.#attempt.context.listen(this);
    try {
      this.#sockets.begin(this, this.#connectionOptions());
    } catch (cause) {
      const { message } = asError(cause);
      this.#fail(new InvalidRequestError(`no connection can be made: ${message}`, { cause }));
    }
  }

  /** Is called by the agent of the instance when it has a socket or cannot make one. */
  onSocket(socket: Socket | null, error?: Error): void {
    if (error !== undefined && error !== null) {
      this.#connectionFailed(error);
    } else if (this.#ended) {
      socket!.emit('free');
    } else {
      this.#socket = socket!;
      if (this.#sockets.open.has(socket!)) whenRead(() => this.#reuse(socket!));
      else this.#awaitOpening(socket!);
    }
  }

  /**
   * Uses a socket again, unless the instance has closed it: the request would fail there, and it
   * cannot be sent again from here.
   */
  #reuse(socket: Socket): void {
    if (this.#ended) return;
    if (socket.readable && socket.writable) {
      this.#handOver();
      return;
    }
    this.#socket = undefined;
    socket.destroy();
    this.reusedSocket = false;
    this.#sockets.find(this, this.#connectionOptions());
  }

  #connectionOptions(): object {
    return buildConnectionOptions(this.#call.options, this.#attempt);
  }

  onAbort(reason: unknown): void {
    if (this.#sent) this.#call.giveUp(asError(reason));
    else this.#socket?.destroy();
    this.#fail(reason);
  }

  #awaitOpening(socket: Socket): void {
    socket
      // Nobody else listens for errors between two requests, nor before the socket is open.
      .on('error', () => {})
      .once('encrypted' in socket ? 'secureConnect' : 'connect', this.#onOpen)
      .once('error', this.#onError)
      .once('close', this.#onSocketClose)
      .on('timeout', this.#onTimeout);
  }

  readonly #onOpen = () => {
    this.#sockets.open.add(this.#socket!);
    this.#leaveSocket();
    this.#handOver();
  };

  /** Does what Node does for a request that has its socket already. */
  readonly #onTimeout = () => {
    if (this.timeout !== undefined) this.#call.request.emit('timeout');
  };

  #handOver(): void {
    const socket = this.#socket!;
    const { request } = this.#call;
    try {
      this.#call.completeFor(this.#attempt);
    } catch (error) {
      socket.destroy();
      this.#fail(error);
      return;
    }
    this.#sent = true;
    this.#call.sent = true;
    this.#attempt.call.markSent();
    request
      .prependOnceListener('response', this.#onResponse)
      .once(errorMonitor, this.#onError)
      .once('close', this.#onRequestClose);
    socket.once('close', this.#onSocketClose).once('agentRemove', this.#onUpgrade);
    request.reusedSocket = this.reusedSocket;
    request.onSocket(socket);
  }

  readonly #onResponse = (response: IncomingMessage) => {
    // Without a listener Node reads a response to its end. The listener here must not change that.
    if (this.#call.request.listenerCount('response') === 0) response.resume();
    this.#message = response;
    response.once('close', this.#onResponseClose);
    this.#responded(response.statusCode!, response.headers);
  };

  /** Holds the lease until the socket closes, which has left its agent and is the caller's now. */
  readonly #onUpgrade = () => {
    this.#responded(101, {});
    const socket = this.#socket!;
    socket.off('close', this.#onSocketClose);
    socket.once('close', () => this.#end({ latency: this.#latency }));
    this.#call.scope.listen(new OnAbort(() => socket.destroy()));
  };

  #responded(status: number, headers: ResponseHeaders): void {
    this.#attempt.context.unlisten(this);
    this.#latency = this.#attempt.elapsed;
    this.#attempt.invalidateCache();
    this.#response = new AgentResponse(this.#attempt, status, headers);
    this.#resolve(this.#response);
  }

  readonly #onError = (error: Error) => {
    if (this.#response === undefined) this.#connectionFailed(error);
    else this.#broken ??= error;
  };

  readonly #onRequestClose = () => {
    if (this.#response === undefined)
      this.#connectionFailed(new Error('it closed before there was a response'));
  };

  /** Runs before Node ends the response, so that it can be told which side has ended it. */
  readonly #onSocketClose = () => {
    const response = this.#message;
    if (response === undefined) this.#connectionFailed(new Error('it closed before there was a response'));
    else if (!response.complete && !response.destroyed)
      this.#broken ??= new Error('it closed within the response');
  };

  readonly #onResponseClose = () => {
    if (this.#message!.complete) this.#end({ latency: this.#latency });
    else if (this.#broken === undefined || this.#call.scope.aborted) this.#end({ cancelled: true });
    else this.#end({ error: toServiceError(this.#broken, this.#attempt.instance, true) });
  };

  #connectionFailed(error: Error): void {
    this.#fail(toServiceError(error, this.#attempt.instance, this.#sent));
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#finish();
    this.#call.failed = this.#sent;
    this.#reject(error);
  }

  #end(end: CallResult): void {
    this.#finish();
    if (this.#response!.succeeded) this.#attempt.lease.release(end);
  }

  #finish(): void {
    this.#ended = true;
    this.#attempt.context.unlisten(this);
    this.#leaveSocket();
    this.#call.request
      .off('response', this.#onResponse)
      .off(errorMonitor, this.#onError)
      .off('close', this.#onRequestClose);
    this.#sockets.end();
    if (this.#sent) this.#call.end();
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
 * Builds the options of a connection to the instance, in the protocol that it is registered with.
 * The options of the request come first, then those of the service's own connections.
 */
function buildConnectionOptions(given: RequestOptions, { instance, policies }: Attempt): object {
  const { connection } = policies;
  const { protocol, host, port } = instance;
  const address = { host, port, socketPath: undefined };
  const own = pickConnectOptions(given);
  // Without a `servername` Node's agent takes it from the Host of the request.
  if (protocol === 'http') return Object.assign(own, address, { servername: '' });
  const { timeout: _, ...tls } = typeof connection.connect === 'object' ? connection.connect : {};
  return { servername: tlsNameOf(instance, connection) ?? host, ...tls, ...own, ...address };
}

/**
 * Picks the options of a connection, where they are set. Clients give many others with each request,
 * and Node's agent copies all that it is given twice.
 */
function pickConnectOptions(given: RequestOptions): object {
  const options: Record<string, unknown> = {};
  for (const name of Object.keys(given) as (keyof RequestOptions)[]) {
    const value = CONNECT_OPTIONS.has(name) ? given[name] : undefined;
    if (value !== undefined) options[name] = value;
  }
  return options;
}
