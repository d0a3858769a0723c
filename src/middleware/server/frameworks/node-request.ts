import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Abortable, AbortScope } from '../../../policies/abort.ts';
import { Admission } from '../guard/admission.ts';
import { type GuardedRequest, type IncomingRequest, pathOf } from '../guard/incoming-request.ts';
import type { LocalResponse } from '../guard/local-response.ts';
import type { Decision, ServerGuard } from '../guard/server-guard.ts';
import { NodeBody } from './node-body.ts';
import { bindEvents, markRetriesSpent, onServerAbort, storeNodeResponse } from './node-patches.ts';
import { finishedStatus, onResponseClose } from './response-close.ts';

/**
 * Asks the guard about a request of node:http. A request that is let through is watched until its
 * response is finished.
 *
 * @param parsedBody gives the body as an earlier parser left it, if one did
 */
export function admitNodeRequest(
  guard: ServerGuard,
  message: IncomingMessage,
  response: ServerResponse,
  parsedBody: () => unknown = () => undefined,
): Decision | Promise<Decision> {
  const request = new NodeRequest(message, response, parsedBody);
  const decision = guard.admit(request);
  if (decision instanceof Promise) return decision.then((late) => request.apply(late));
  return request.apply(decision);
}

/**
 * Sends a response through node:http, unless one was sent meanwhile, as by a middleware that lets
 * requests time out.
 */
export function sendNodeResponse(response: ServerResponse, { status, headers, body }: LocalResponse): void {
  if (response.headersSent || response.destroyed) return;
  const length = body.length === 0 ? {} : { 'content-length': Buffer.byteLength(body) };
  response.writeHead(status, { ...headers, ...length });
  response.end(body);
}

class NodeRequest implements GuardedRequest {
  readonly request: IncomingRequest;
  readonly target: string;
  readonly #message: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #parsedBody: () => unknown;
  #disconnected: AbortScope | undefined = undefined;
  #admission: Admission | undefined = undefined;
  #stopWatching: (() => void) | undefined = undefined;
  #closed = false;

  constructor(message: IncomingMessage, response: ServerResponse, parsedBody: () => unknown) {
    this.#message = message;
    this.#response = response;
    this.#parsedBody = parsedBody;
    const { method = 'GET', headers } = message;
    // Express and Connect keep the URL here when they take off the path of a mounted middleware.
    const { originalUrl = message.url ?? '/' } = message as { originalUrl?: string | undefined };
    this.target = originalUrl;
    this.request = { method, path: pathOf(originalUrl), headers };
    onResponseClose(message, response, () => this.#close());
  }

  get disconnected(): Abortable {
    if (this.#disconnected === undefined) {
      this.#disconnected = new AbortScope(undefined, NO_LISTENER);
      if (this.#closed) this.#disconnected.abort(CLIENT_DISCONNECTED);
    }
    return this.#disconnected;
  }

  get body(): NodeBody {
    return new NodeBody(this.#message, this.#parsedBody);
  }

  /** Watches the request and its response, if the decision lets it through. */
  apply(decision: Decision): Decision {
    if (!(decision instanceof Admission)) return decision;
    this.#admission = decision;
    if (this.#closed) this.#finish(decision);
    bindEvents(this.#message, decision);
    markRetriesSpent(this.#response, decision);
    const { keyLock, context } = decision;
    if (keyLock === undefined) return decision;
    storeNodeResponse(this.#response, keyLock);
    if (!this.#closed) {
      this.#stopWatching = onServerAbort(this.#message, this.#response, context, () => keyLock.release());
    }
    return decision;
  }

  #close(): void {
    this.#closed = true;
    this.#stopWatching?.();
    if (this.#admission !== undefined) this.#finish(this.#admission);
    this.#disconnected?.abort(CLIENT_DISCONNECTED);
  }

  #finish(admission: Admission): void {
    admission.finish(finishedStatus(this.#response));
    admission.keyLock?.onClientDisconnect();
  }
}

const NO_LISTENER = { onAbort() {} };
const CLIENT_DISCONNECTED = new Error('the client has disconnected');
