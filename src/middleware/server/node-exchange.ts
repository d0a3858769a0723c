import type { IncomingMessage, ServerResponse } from 'node:http';
import { RETRIES_SPENT_HEADER } from '../../client/propagation.ts';
import { type Abortable, AbortScope } from '../../policies/abort.ts';
import { Admission } from './admission.ts';
import { type IncomingRequest, pathOf } from './incoming-request.ts';
import type { ReadyAnswer } from './ready-answer.ts';
import type { Decision, Exchange, ServerGuard } from './server-guard.ts';
import { finishedStatus, whenClosed } from './when-closed.ts';

/** Asks the guard about a request of node:http. One that is let through is watched until its answer is finished. */
export function admitNode(
  guard: ServerGuard,
  request: IncomingMessage,
  response: ServerResponse,
): Decision | Promise<Decision> {
  const exchange = new NodeExchange(request, response);
  const decision = guard.admit(exchange);
  if (decision instanceof Promise) return decision.then((late) => exchange.decided(late));
  return exchange.decided(decision);
}

/** Answers through node:http. */
export function answerNode(response: ServerResponse, { status, headers, body }: ReadyAnswer): void {
  response.writeHead(status, headers as Record<string, string | string[]>);
  response.end(body);
}

class NodeExchange implements Exchange {
  readonly request: IncomingRequest;
  readonly #message: IncomingMessage;
  readonly #response: ServerResponse;
  #gone: AbortScope | undefined = undefined;
  #admission: Admission | undefined = undefined;
  #closed = false;

  constructor(message: IncomingMessage, response: ServerResponse) {
    this.#message = message;
    this.#response = response;
    const { method = 'GET', headers } = message;
    // What Express and Connect call the URL before they took off where the middleware is mounted.
    const { originalUrl = message.url ?? '/' } = message as { originalUrl?: string };
    this.request = { method, path: pathOf(originalUrl), headers };
    whenClosed(message, response, () => this.#close());
  }

  get gone(): Abortable {
    this.#gone ??= new AbortScope(undefined, NOBODY);
    return this.#gone;
  }

  decided(decision: Decision): Decision {
    if (!(decision instanceof Admission)) return decision;
    this.#admission = decision;
    if (this.#closed) decision.finish(undefined);
    bindEvents(this.#message, decision);
    markFailures(this.#response, decision);
    return decision;
  }

  #close(): void {
    this.#closed = true;
    this.#admission?.finish(finishedStatus(this.#response));
    this.#gone?.abort(new Error('the client has gone'));
  }
}

const NOBODY = { onAbort() {} };

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
