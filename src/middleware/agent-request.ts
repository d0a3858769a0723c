import type { ClientRequest, RequestOptions } from 'node:http';
import type { Socket } from 'node:net';
import type { Attempt } from '../client/attempt.ts';
import type { CallEngine } from '../client/call-engine.ts';
import { prepareExternal } from '../client/external-request.ts';
import type { InFlightCall } from '../client/in-flight-calls.ts';
import { TIMEOUT_HEADER } from '../client/propagation.ts';
import { asError } from '../client/service-errors.ts';
import { InvalidRequestError, ServiceConnectionError } from '../errors.ts';
import { AbortScope } from '../policies/abort.ts';
import { AgentAttempt, type AgentResponse } from './agent-attempt.ts';
import type { InstanceSockets } from './instance-sockets.ts';
import { completeHead, readValues } from './request-head.ts';

/** A request as Node hands it to its agent, with the members that its types leave out. */
export interface AgentClientRequest extends ClientRequest {
  /** Gives the request a socket, or tells it in the next tick that there is none. */
  onSocket(socket: Socket | null, error?: Error): void;
  timeout?: number | undefined;
}

/** Gets the sockets to the instance of an attempt; makes them for the first one. */
export type GetSockets = (attempt: Attempt) => InstanceSockets;

/** The headers that say how a request is to be called. */
const CALLING_HEADERS: ReadonlySet<string> = new Set([TIMEOUT_HEADER, 'idempotency-key']);

/** Reads the headers that say how a request is to be called, as names and values in turn. */
function readCallingHeaders(request: ClientRequest): string[] {
  const headers: string[] = [];
  for (const [name, values] of readValues(request, CALLING_HEADERS))
    for (const value of values) headers.push(name, value);
  return headers;
}

const NO_OWNER = { onAbort() {} };

/** A request of node:http on its way through the mesh. */
export class AgentRequest implements InFlightCall {
  next: InFlightCall | undefined = undefined;
  previous: InFlightCall | undefined = undefined;
  readonly request: AgentClientRequest;
  readonly options: RequestOptions;
  /** `scope` is aborted when the caller destroys the request. */
  readonly scope = new AbortScope(undefined, NO_OWNER);
  /** `sent` is set when the request gets a socket. From then on Node reports its end. */
  sent = false;
  /** `failed` is set when the request fails after it got the socket. */
  failed = false;
  readonly #onEnd: () => void;
  readonly #destroy: (error?: Error) => ClientRequest;
  /** `#host` is the `Host` that Node made of the URL; undefined if the caller has set one. */
  readonly #host: unknown;
  #sentAt = 0;
  #over = false;

  /** @param onEnd is called once, when the request and its response are over */
  constructor(request: AgentClientRequest, options: RequestOptions, onEnd: () => void) {
    this.request = request;
    this.options = options;
    this.#onEnd = onEnd;
    this.#host = hasHost(options.headers) ? undefined : request.getHeader('host');
    // Node emits no event for a request that is destroyed before it has a socket.
    this.#destroy = request.destroy.bind(request);
    request.destroy = (error) => {
      this.#destroy(error);
      // Some callers destroy a request that has failed or ended already, which changes nothing.
      if (!this.failed && !this.#over)
        this.scope.abort(new Error('the request was destroyed', { cause: error }));
      return request;
    };
  }

  /** Takes in that the request and its response are over. */
  end(): void {
    this.#over = true;
    this.#onEnd();
  }

  async send(engine: CallEngine, service: string, getSockets: GetSockets): Promise<void> {
    this.#sentAt = engine.clock.now();
    // The caller may set headers right after it has created the request.
    await undefined;
    const { method, path } = this.request;
    try {
      const headers = readCallingHeaders(this.request);
      const policies = engine.policiesOf(service);
      const request = { service, method, path, headers };
      const state = engine.begin(request, prepareExternal(request));
      const transport = (attempt: Attempt) => this.#sendTo(attempt, getSockets(attempt));
      const common = { state, policies, timeout: undefined, source: this.scope };
      await engine.run({ method: 'request', ...common, transport });
    } catch (error) {
      if (!this.sent) this.#reject(error);
    }
  }

  #sendTo(attempt: Attempt, sockets: InstanceSockets): Promise<AgentResponse> {
    return new Promise((resolve, reject) => {
      new AgentAttempt(this, attempt, sockets, resolve, reject).begin();
    });
  }

  /**
   * Tells the caller that the request is not sent. The error that Node gives of a connection that
   * cannot be made is passed on as it is: callers know its codes.
   */
  #reject(error: unknown): void {
    const { request } = this;
    const shown = error instanceof ServiceConnectionError ? error.cause : error;
    request.onSocket(null, request.destroyed ? undefined : asError(shown));
    this.end();
  }

  /** Ends the request as its caller would. */
  abort(): void {
    this.request.destroy();
  }

  /** Ends a request that its caller has not given up. */
  giveUp(error: Error): void {
    this.failed = true;
    this.#destroy(error);
  }

  /**
   * Adds the headers of an attempt, and the `Host` of its instance unless the caller has set one.
   *
   * @throws InvalidRequestError if a value is not allowed in a header
   */
  completeFor(attempt: Attempt): void {
    const unchanged = this.#host !== undefined && this.request.getHeader('host') === this.#host;
    const now = attempt.policies.clock.now();
    try {
      completeHead(
        this.request,
        unchanged ? attempt.client.authority : undefined,
        attempt.buildHeaders(now),
        now - this.#sentAt,
      );
    } catch (cause) {
      throw new InvalidRequestError(`a header cannot be sent: ${(cause as Error).message}`, { cause });
    }
  }
}

function hasHost(headers: RequestOptions['headers']): boolean {
  return (
    headers !== undefined &&
    (Array.isArray(headers) || Object.keys(headers).some((name) => name.toLowerCase() === 'host'))
  );
}
