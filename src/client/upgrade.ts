import { type ClientRequest, type IncomingMessage, request as sendRequest } from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import type { CallResult, Lease } from '../balancing/lease.ts';
import { ResponseInvalidError, type ServiceResponseError } from '../errors.ts';
import { type AbortListener, toAbortable } from '../policies/abort.ts';
import type { Attempt } from './attempt.ts';
import type { CallEngine } from './call-engine.ts';
import { checkOptions } from './call-options.ts';
import { type CallState, describeCall } from './call-state.ts';
import type { RequestContext } from './propagation.ts';
import type { ResponseHead, ResponseHeaders } from './response.ts';
import { toResponseError } from './response-content.ts';
import { type PreparedRequest, parseUrlPath } from './service-call.ts';
import { toServiceError } from './service-errors.ts';
import type { Variant } from './service-variants.ts';
import type { AttemptResult } from './transport.ts';

/** A request to a service to speak another protocol on the connection, such as `websocket`. */
export interface UpgradeRequest {
  /** The name under which the service is registered. */
  service: string;
  /** The name of the protocol, as it is sent in `Upgrade`. */
  protocol: string;
  /** Starts with a slash. */
  path: string;
  /**
   * Names in lower case and values in turn, as they are sent. `Host`, `Connection` and `Upgrade` are
   * added.
   */
  headers: readonly string[];
  /**
   * Milliseconds until the response, retries included; the connection then lives as long as both
   * sides want. Default: the `timeout` of the service.
   */
  timeout?: number | undefined;
  /** Retries, beyond the first attempt. Default: as the `retry` of the service says. */
  retries?: number | undefined;
  /** Sends the request only to instances of the variant: see `RelayRequest`. */
  variant?: Variant | undefined;
  /** The context of the request for which the upgrade is asked. Default: the current one. */
  context?: RequestContext | undefined;
  /** Cancels the request until there is a response. */
  signal?: AbortSignal | undefined;
}

/** The response to a request for an upgrade. Close the socket or read the body, whichever it has. */
export interface UpgradeResponse extends ResponseHead {
  readonly statusText: string;
  /** The socket, on which the other protocol has begun; undefined if the service has declined. */
  readonly socket: Socket | undefined;
  /** The body of a service that has declined; undefined if there is a socket. */
  readonly body: Readable | undefined;
}

/**
 * Asks a service for an upgrade, as `ServiceClient.request` makes a call: it is balanced, guarded by
 * the policies of the service, and sent to another instance while there is no response. The
 * instance counts it as a call under way until the socket, or the body, has closed. Timeouts and
 * bulkhead bound the request for the upgrade alone.
 *
 * It goes over a connection of its own that speaks HTTP/1.1. Since its method is GET, and nothing
 * is exchanged before there is a response, it may be sent twice.
 *
 * @returns the response whatever its status, if there is one
 * @throws the errors of `ServiceClient.request`
 */
export async function upgrade(engine: CallEngine, request: UpgradeRequest): Promise<UpgradeResponse> {
  checkOptions(request);
  const { service, variant, timeout, signal, protocol } = request;
  const policies = engine.policiesOf(service, variant);
  const state = engine.begin(request, prepareUpgrade(request));
  const source = signal && toAbortable(signal);
  const transport = (attempt: Attempt) =>
    new Promise<UpgradeResult>((resolve, reject) => {
      new UpgradeAttempt(attempt, protocol, resolve, reject).begin();
    });
  return engine.run({ method: 'request', state, policies, timeout, source, transport });
}

function prepareUpgrade({ path, headers }: UpgradeRequest): PreparedRequest {
  return {
    method: 'GET',
    path: parseUrlPath(path),
    headers,
    body: null,
    replayable: true,
    idempotent: true,
  };
}

/** The response to an attempt, and what is left of its connection. */
class UpgradeResult implements AttemptResult<UpgradeResponse>, UpgradeResponse {
  readonly status: number;
  readonly statusText: string;
  readonly headers: ResponseHeaders;
  readonly instanceId: string;
  readonly succeeded: boolean;
  readonly socket: Socket | undefined;
  readonly body: Readable | undefined;
  readonly #attempt: Attempt;
  readonly #latency: number;

  constructor(attempt: Attempt, response: IncomingMessage, socket: Socket | undefined) {
    this.status = response.statusCode!;
    this.statusText = response.statusMessage ?? '';
    this.headers = response.headers;
    this.instanceId = attempt.instance.instanceId;
    this.socket = socket;
    this.body = socket === undefined ? response : undefined;
    this.#attempt = attempt;
    this.#latency = attempt.elapsed;
    this.succeeded = attempt.judge(this);
  }

  hold(lease: Lease): void {
    lease.responded(this.#latency);
    const stream = this.socket ?? this.body!;
    const { others } = this.#attempt.client;
    // The client of the instance closes once this has closed.
    const closing = { close: () => new Promise<void>((resolve) => void stream.once('close', resolve)) };
    others.add(closing);
    let broken: Error | undefined;
    stream
      .once('error', (error: Error) => {
        broken = error;
      })
      .once('close', () => {
        others.delete(closing);
        lease.release(this.#endedBy(broken));
      });
  }

  deliver(): UpgradeResponse {
    return this;
  }

  discard(): void {
    (this.socket ?? this.body!).destroy();
  }

  toError(call: CallState): ServiceResponseError {
    return toResponseError(call, this, undefined);
  }

  #endedBy(broken: Error | undefined): CallResult {
    if (broken === undefined) return { latency: this.#latency };
    const error = toServiceError(broken, this.#attempt.instance, true);
    describeCall(error, this.#attempt.call);
    return { latency: this.#latency, error };
  }
}

/** How far an attempt has come. */
type Phase =
  | { readonly name: 'connecting' }
  | { readonly name: 'sent'; readonly request: ClientRequest }
  | { readonly name: 'done' };

/** Makes one attempt: it opens a socket to the instance and sends the request for the upgrade. */
class UpgradeAttempt implements AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #attempt: Attempt;
  readonly #protocol: string;
  readonly #resolve: (result: UpgradeResult) => void;
  readonly #reject: (error: unknown) => void;
  #phase: Phase = { name: 'connecting' };

  constructor(
    attempt: Attempt,
    protocol: string,
    resolve: (result: UpgradeResult) => void,
    reject: (error: unknown) => void,
  ) {
    this.#attempt = attempt;
    this.#protocol = protocol;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(): void {
    const { context, client } = this.#attempt;
    context.listen(this);
    client.connections.openSocket((error, socket) => {
      if (error !== null) this.#fail(toServiceError(error, this.#attempt.instance, false));
      // The attempt was given up while the connection was made.
      else if (this.#phase.name === 'done') socket!.destroy();
      else this.#send(socket!);
    });
  }

  onAbort(reason: unknown): void {
    this.#fail(reason);
  }

  #send(socket: Socket): void {
    const { call } = this.#attempt;
    call.markSent();
    const request = sendRequest({
      createConnection: () => socket,
      path: call.request.path,
      headers: this.#buildHeaders(),
    });
    this.#phase = { name: 'sent', request };
    request
      .on('upgrade', (response, upgraded, head) => this.#onUpgrade(response, upgraded, head))
      .on('response', (response) => this.#onResponse(response))
      .on('error', (error) => this.#fail(toServiceError(error, this.#attempt.instance, true)))
      .end();
  }

  /** The time limit is that of the handshake: a service must not take it for that of the connection. */
  #buildHeaders(): string[] {
    return [
      'host',
      this.#attempt.client.authority,
      'connection',
      'Upgrade',
      'upgrade',
      this.#protocol,
      ...this.#attempt.call.headers,
    ];
  }

  #onUpgrade(response: IncomingMessage, socket: Socket, head: Buffer): void {
    if (this.#phase.name === 'done') {
      socket.destroy();
      return;
    }
    if (response.headers.upgrade?.toLowerCase() !== this.#protocol) {
      socket.destroy();
      this.#fail(this.#createInvalid(`switched to ${JSON.stringify(response.headers.upgrade)}`));
      return;
    }
    // Without a listener, an error of the socket would end the process.
    socket.on('error', () => {});
    if (head.length > 0) socket.unshift(head);
    this.#succeed(new UpgradeResult(this.#attempt, response, socket));
  }

  #onResponse(response: IncomingMessage): void {
    response.on('error', () => {});
    if (this.#phase.name === 'done') response.destroy();
    else if (response.statusCode === 101) this.#fail(this.#createInvalid('switched to no protocol'));
    else this.#succeed(new UpgradeResult(this.#attempt, response, undefined));
  }

  #succeed(result: UpgradeResult): void {
    this.#phase = { name: 'done' };
    this.#attempt.context.unlisten(this);
    this.#resolve(result);
  }

  #fail(error: unknown): void {
    const phase = this.#phase;
    if (phase.name === 'done') return;
    this.#phase = { name: 'done' };
    this.#attempt.context.unlisten(this);
    if (phase.name === 'sent') phase.request.destroy();
    this.#reject(error);
  }

  #createInvalid(what: string): ResponseInvalidError {
    const { serviceName, instanceId } = this.#attempt.instance;
    return new ResponseInvalidError(`'${serviceName}' was asked for ${this.#protocol}, and ${what}`, {
      serviceName,
      instanceId,
    });
  }
}
