import type { IncomingMessage, ServerResponse } from 'node:http';
import { RETRIES_SPENT_HEADER } from '../../../client/propagation.ts';
import { type Abortable, AbortScope } from '../../../policies/abort.ts';
import { Admission } from '../guard/admission.ts';
import { type Exchange, type IncomingRequest, pathOf } from '../guard/incoming-request.ts';
import type { ReadyAnswer } from '../guard/local-response.ts';
import type { Decision, ServerGuard } from '../guard/server-guard.ts';
import { NodeBody } from './node-body.ts';
import { keepAnswer } from './node-patches.ts';
import { finishedStatus, whenClosed } from './response-close.ts';
import { whenBrokenOff } from './when-broken-off.ts';

/**
 * Asks the guard about a request of node:http. One that is let through is watched until its answer is finished.
 *
 * @param parsedBody what a parser that came first made of the body, if anything
 */
export function admitNode(
  guard: ServerGuard,
  request: IncomingMessage,
  response: ServerResponse,
  parsedBody: () => unknown = () => undefined,
): Decision | Promise<Decision> {
  const exchange = new NodeExchange(request, response, parsedBody);
  const decision = guard.admit(exchange);
  if (decision instanceof Promise) return decision.then((late) => exchange.decided(late));
  return exchange.decided(decision);
}

/** Answers through node:http, unless that was done meanwhile, as by a middleware that lets requests time out. */
export function answerNode(response: ServerResponse, { status, headers, body }: ReadyAnswer): void {
  if (response.headersSent || response.destroyed) return;
  const length = body.length === 0 ? {} : { 'content-length': Buffer.byteLength(body) };
  response.writeHead(status, { ...headers, ...length });
  response.end(body);
}

class NodeExchange implements Exchange {
  readonly request: IncomingRequest;
  readonly target: string;
  readonly #message: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #parsedBody: () => unknown;
  #gone: AbortScope | undefined = undefined;
  #admission: Admission | undefined = undefined;
  #stopWatching: (() => void) | undefined = undefined;
  #closed = false;

  constructor(message: IncomingMessage, response: ServerResponse, parsedBody: () => unknown) {
    this.#message = message;
    this.#response = response;
    this.#parsedBody = parsedBody;
    const { method = 'GET', headers } = message;
    // What Express and Connect call the URL before they took off where the middleware is mounted.
    const { originalUrl = message.url ?? '/' } = message as { originalUrl?: string };
    this.target = originalUrl;
    this.request = { method, path: pathOf(originalUrl), headers };
    whenClosed(message, response, () => this.#close());
  }

  get gone(): Abortable {
    if (this.#gone === undefined) {
      this.#gone = new AbortScope(undefined, NOBODY);
      if (this.#closed) this.#gone.abort(CLIENT_HAS_GONE);
    }
    return this.#gone;
  }

  get body(): NodeBody {
    return new NodeBody(this.#message, this.#parsedBody);
  }

  decided(decision: Decision): Decision {
    if (!(decision instanceof Admission)) return decision;
    this.#admission = decision;
    if (this.#closed) this.#finish(decision);
    bindEvents(this.#message, decision);
    markFailures(this.#response, decision);
    const { hold, context } = decision;
    if (hold === undefined) return decision;
    keepAnswer(this.#response, hold);
    if (!this.#closed) {
      this.#stopWatching = whenBrokenOff(this.#message, this.#response, context, () => hold.release());
    }
    return decision;
  }

  #close(): void {
    this.#closed = true;
    this.#stopWatching?.();
    if (this.#admission !== undefined) this.#finish(this.#admission);
    this.#gone?.abort(CLIENT_HAS_GONE);
  }

  #finish(admission: Admission): void {
    admission.finish(finishedStatus(this.#response));
    admission.hold?.clientGone();
  }
}

const NOBODY = { onAbort() {} };
const CLIENT_HAS_GONE = new Error('the client has gone');

/** Node emits what comes of a request, as the end of its body, outside of the context in which it is handled. */
function bindEvents(message: IncomingMessage, admission: Admission): void {
  const { emit } = message;
  message.emit = (...event: Parameters<IncomingMessage['emit']>) =>
    admission.run(() => emit.apply(message, event));
}

function markFailures(response: ServerResponse, admission: Admission): void {
  const writeHead = response.writeHead as (...head: unknown[]) => ServerResponse;
  response.writeHead = (status: number, ...rest: unknown[]) => {
    if (!response.headersSent && admission.retriesSpent(status))
      response.setHeader(RETRIES_SPENT_HEADER, '1');
    return writeHead.call(response, status, ...rest);
  };
}
