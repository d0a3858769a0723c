import type { ClientRequest, RequestOptions } from 'node:http';
import type { Socket } from 'node:net';
import type { Attempt } from '../client/attempt.ts';
import type { CallEngine } from '../client/call-engine.ts';
import { prepareExternal } from '../client/external-request.ts';
import { TIMEOUT_HEADER } from '../client/propagation.ts';
import { asError } from '../client/service-errors.ts';
import { originOf } from '../discovery/service-instance.ts';
import { InvalidRequestError, ServiceConnectionError } from '../errors.ts';
import type { Linked } from '../internal/linked-list.ts';
import { AbortScope } from '../policies/abort.ts';
import { AgentAttempt, type AgentResponse } from './agent-attempt.ts';
import type { InstanceSockets } from './instance-sockets.ts';
import { completeHead, valuesOf } from './request-head.ts';

/** A request as Node hands it to its agent, with what its types leave out. */
export interface AgentClientRequest extends ClientRequest {
  /** Gives it a socket, or tells it in the next tick that there is none. */
  onSocket(socket: Socket | null, error?: Error): void;
  timeout?: number;
}

/** Finds the sockets to the instance of an attempt. */
export type SocketsOf = (attempt: Attempt) => InstanceSockets;

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
  /** Called once, when the request and its response are over. */
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

  async send(engine: CallEngine, service: string, socketsOf: SocketsOf): Promise<void> {
    // The caller may set headers right after it has made the request.
    await undefined;
    const { method, path } = this.request;
    try {
      const headers = CALLING_HEADERS.flatMap((name) => namedBy(this.request, name));
      const policies = engine.policiesOf(service);
      const request = { service, method, path, headers };
      const state = engine.begin(request, prepareExternal(request));
      const transport = (attempt: Attempt) => this.#sendTo(attempt, socketsOf(attempt));
      const common = { state, policies, timeout: undefined, source: this.scope };
      await engine.run({ method: 'request', ...common, transport });
    } catch (error) {
      if (!this.sent) this.#fail(error);
    }
  }

  #sendTo(attempt: Attempt, sockets: InstanceSockets): Promise<AgentResponse> {
    return new Promise((resolve, reject) => {
      new AgentAttempt(this, attempt, sockets, resolve, reject).begin();
    });
  }

  /**
   * Fails the request. Node's own error of a connection is passed on as it is: callers know its
   * codes.
   */
  #fail(error: unknown): void {
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
  completeFor(attempt: Attempt): void {
    const unchanged = this.#host !== undefined && this.request.getHeader('host') === this.#host;
    const authority = unchanged ? new URL(originOf(attempt.instance)).host : undefined;
    const now = performance.now();
    try {
      completeHead(this.request, authority, attempt.buildHeaders(now), now - this.#madeAt);
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
