import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import type { CallController } from '../../client/call-controller.ts';
import { RETRIES_SPENT_HEADER, type RequestContext, wereRetriesSpent } from '../../client/propagation.ts';
import type { ResponseHeaders } from '../../client/response.ts';
import type { LocalResponse } from '../../middleware/server/guard/local-response.ts';
import { type FailureListener, toFailure } from '../gateway-events.ts';
import { Rejection, toProblem } from '../problem.ts';
import type { Route } from '../routing/route.ts';
import {
  breakOff,
  type ClientResponse,
  type OwnHeaders,
  stopUpload,
  writeEarlyHints,
  writeHead,
} from './client-response.ts';
import { discardRest, endLate, isWorthDiscarding, type Upload } from './request-body.ts';
import { addResponseHeaders, forwardableTrailers, hasUnknownCoding } from './response-head.ts';
import { hideInstance } from './response-location.ts';

type Controller = Dispatcher.DispatchController;

/** The longest body that is copied, so that it goes out with its head. */
const MAX_JOINED = 16_384;

/** Milliseconds in which a client must take what waits for it, as with nginx: 64 KiB and more. */
const SEND_TIMEOUT = 60_000;

/** The reason for which a call is cancelled whose response nobody waits for. */
const OVER = new Error('the client has left, or has its response');

/** The responses to requests with a body, by those of Node, whose parser may find it malformed. */
const withBody = new WeakMap<ServerResponse, ProxiedResponse>();

/**
 * Rejects a request whose body cannot be read, with the last response of its connection. Gives false if the
 * gateway has not come to handle the request.
 */
export function rejectBody(response: ServerResponse, rejection: Rejection): boolean {
  const reply = withBody.get(response);
  if (reply === undefined) return false;
  response.shouldKeepAlive = false;
  reply.fail(rejection);
  return true;
}

/**
 * The response to a client: that of a service, which it takes in as a handler of undici's, or a
 * problem document. It cancels the call when the client leaves.
 */
export class ProxiedResponse implements Dispatcher.DispatchHandler {
  /** The headers that the gateway adds, names and values in turn. */
  readonly ownHeaders: string[];
  /** The route of the request, once it is known. */
  route: Route | undefined = undefined;
  /** Whether the client may know that retries were spent: it is a gateway of the mesh, not a stranger. */
  tellsRetries = false;
  upload: Upload | undefined = undefined;
  /** The instance that has responded. */
  instanceId: string | undefined = undefined;
  /** Bytes of the body so far. */
  bytes = 0;
  onFailure: FailureListener | undefined = undefined;
  /** Whether the client waits for `100 Continue`, and may never send its body. */
  awaitsContinue = false;
  readonly #request: IncomingMessage;
  readonly #response: ClientResponse;
  readonly #context: RequestContext;
  readonly #replaced: ReadonlySet<string> | undefined;
  #controller: Controller | undefined = undefined;
  /** Whether the head has been sent, or goes out with the next chunk. */
  #flushed = false;
  /** The length of the body as its head tells it; NaN if it tells none. */
  #length = Number.NaN;
  /** A short body that came whole in the turn of its head, and goes out with its end. */
  #whole: Buffer | undefined = undefined;
  #over = false;
  /** Runs while something waits for the client to take it. */
  #sending: NodeJS.Timeout | undefined = undefined;

  /** @param own headers that hooks of Fastify have set */
  constructor(
    request: IncomingMessage,
    response: ClientResponse,
    context: RequestContext,
    own: OwnHeaders | undefined,
  ) {
    this.#request = request;
    this.#response = response;
    this.#context = context;
    this.ownHeaders = ['x-request-id', context.requestId];
    this.#replaced = own && this.#add(own);
    response.on('close', this.#onClose).on('error', ignore);
    // A request of node:http tells of an error only where somebody listens.
    if (request.httpVersionMajor === 2) request.on('error', ignore);
  }

  /** Whether the response is complete, or nobody waits for it any more. */
  get over(): boolean {
    return this.#over;
  }

  /** Lets `rejectBody` find this response. */
  expectBody(): void {
    withBody.set(this.#response, this);
  }

  /** Sends a problem document, unless the response has begun: then the response breaks off. */
  fail(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#controller?.abort(OVER);
    if (this.#response.headersSent) breakOff(this.#response);
    else this.#sendProblem(error);
    this.#endUpload();
  }

  /** Sends a response of the gateway's own. */
  finish({ status, headers, body }: LocalResponse): void {
    this.#over = true;
    const length = status === 204 ? [] : ['content-length', String(Buffer.byteLength(body))];
    this.#send(status, [...toPairs(headers), ...length], body);
    this.#endUpload();
  }

  onRequestStart(controller: Controller): void {
    this.#controller = controller;
  }

  onResponseStart(controller: CallController, status: number, headers: ResponseHeaders): void {
    if (this.#over) return;
    if (status < 200) {
      if (status === 103) writeEarlyHints(this.#response, headers);
      return;
    }
    this.instanceId = controller.instance!.instanceId;
    if (hasUnknownCoding(headers)) {
      this.fail(MALFORMED);
      return;
    }
    const list = this.ownHeaders;
    addResponseHeaders(list, status, headers, this.route?.responseHeaders, this.#replaced);
    if ((headers.location ?? headers['content-location']) !== undefined)
      hideInstance(list, controller.instance!, this.route?.pathView);
    this.#markRetriesSpent(list, status, headers[RETRIES_SPENT_HEADER] !== undefined);
    try {
      writeHead(this.#response, status, list);
    } catch {
      this.fail(MALFORMED);
      return;
    }
    this.#controller = controller;
    this.#length = Number(headers['content-length']);
    // A body that came with the head goes out with it, and one that is still to come must not delay it.
    process.nextTick(flushHead, this);
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#over) return;
    this.bytes += chunk.length;
    if (!this.#flushed && chunk.length === this.#length && chunk.length <= MAX_JOINED) {
      this.#whole = chunk;
      return;
    }
    this.#flushed = true;
    if (this.#response.write(chunk)) return;
    controller.pause();
    this.#awaitClient();
    this.#response.once('drain', () => {
      clearTimeout(this.#sending);
      controller.resume();
    });
  }

  onResponseEnd(_controller: Controller, trailers: ResponseHeaders): void {
    if (this.#over) return;
    this.#over = true;
    const forwarded = forwardableTrailers(trailers, this.route?.responseHeaders);
    if (forwarded !== undefined) this.#response.addTrailers(forwarded);
    const whole = this.#whole;
    // Node sends a string together with the head, in one piece.
    if (whole === undefined) this.#response.end();
    else this.#response.end(whole.toString('latin1'), 'latin1');
    this.#awaitEnd();
    this.#endUpload();
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.fail(error);
  }

  /** Sends what has come in the turn of the head, unless all has been sent. */
  flush(): void {
    if (this.#over || this.#flushed) return;
    this.#flushed = true;
    if (this.#whole === undefined) this.#response.flushHeaders();
    else this.#response.write(this.#whole);
    this.#whole = undefined;
  }

  #add(own: OwnHeaders): ReadonlySet<string> | undefined {
    let names: Set<string> | undefined;
    for (const name in own) {
      const value = own[name];
      names ??= new Set();
      // What a response varies with, both may say.
      if (name !== 'vary') names.add(name);
      if (value === undefined) continue;
      for (const one of [value].flat()) this.ownHeaders.push(name, String(one));
    }
    return names;
  }

  #sendProblem(error: unknown): void {
    const problem = toProblem(error);
    const { status, headers, body } = problem;
    if (status >= 500)
      this.onFailure?.(toFailure(this.#request, problem, this.route?.options.service, error));
    this.#markRetriesSpent(this.ownHeaders, status);
    this.#send(status, headers, body);
  }

  /**
   * Tells a client of the mesh not to retry what was retried here.
   *
   * @param service whether the service has said so
   */
  #markRetriesSpent(headers: string[], status: number, service = false): void {
    const spent = service || (status >= 500 && wereRetriesSpent(this.#context));
    if (spent && this.tellsRetries) headers.push(RETRIES_SPENT_HEADER, '1');
  }

  #send(status: number, headers: readonly string[], body: LocalResponse['body']): void {
    const isTooSlow = status === 408;
    const isLast = this.#request.httpVersionMajor < 2 && (isTooSlow || !this.#canReadRest());
    writeHead(this.#response, status, [
      ...this.ownHeaders,
      ...headers,
      ...(isLast ? ['connection', 'close'] : []),
    ]);
    const shown = this.#request.method === 'HEAD' ? '' : body;
    this.bytes = Buffer.byteLength(shown);
    if (isLast && !this.awaitsContinue) endLate(this.#request, this.#response, shown);
    else this.#response.end(shown);
    this.#awaitEnd();
  }

  /** Breaks the response off if its client takes nothing. */
  #awaitClient(): void {
    this.#sending = setTimeout(breakOff, SEND_TIMEOUT, this.#response);
  }

  #awaitEnd(): void {
    if (this.#response.writableLength > 0) this.#awaitClient();
  }

  /** Whether the connection can be used again: a client that waits may skip its body, or send it. */
  #canReadRest(): boolean {
    const { headers, complete } = this.#request;
    if (complete) return true;
    const length = headers['content-length'];
    return !this.awaitsContinue && isWorthDiscarding(length === undefined ? undefined : Number(length));
  }

  #endUpload(): void {
    this.upload?.destroy();
    if (this.#request.complete) return;
    discardRest(this.#request);
    stopUpload(this.#response);
  }

  readonly #onClose = () => {
    clearTimeout(this.#sending);
    if (this.#over) return;
    this.#over = true;
    this.#controller?.abort(OVER);
    this.upload?.destroy();
  };
}

function toPairs(headers: LocalResponse['headers']): string[] {
  return Object.entries(headers).flatMap(([name, value]) => [value].flat().flatMap((one) => [name, one]));
}

function flushHead(response: ProxiedResponse): void {
  response.flush();
}

function ignore(): void {}

const MALFORMED = new Rejection(502, 'bad-gateway', 'The service gave no valid response.');
