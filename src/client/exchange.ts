import { isUtf8 } from 'node:buffer';
import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import {
  InvalidRequestError,
  ResponseInvalidError,
  ResponseTooLargeError,
  ServiceConnectionError,
  type ServiceErrorDetails,
} from '../errors.ts';
import type { Abortable, AbortListener } from '../policies/abort.ts';
import type { Connection, Exchange } from './connections.ts';
import { decodeWhole } from './content-encoding.ts';

export type ResponseHeaders = Record<string, string | string[] | undefined>;

/** The head of an answer. */
export interface Answer {
  readonly status: number;
  readonly headers: ResponseHeaders;
  /** Whose answer it is. */
  readonly instanceId: string;
}

/** An answer whose body was read to its end. */
export interface BufferedResponse extends Answer {
  /** Decoded, without a byte order mark; empty if it is `binary`. */
  readonly body: string;
  /** Whether the body is no UTF-8 text. */
  readonly binary?: boolean;
}

/**
 * An answer whose body is still to come. Read it to its end or destroy it: until then it holds a connection.
 */
export interface ServiceResponse extends Answer {
  readonly body: Readable;
}

type Controller = Dispatcher.DispatchController;

/** What an exchange needs to know of where it goes. */
export interface ExchangeDetails extends ServiceErrorDetails {
  /** In bytes. */
  maxResponseSize: number;
}

/** Told when the request is handed to a connection: from then on the instance may have processed it. */
export interface Progress {
  sent: boolean;
  /** Whether the body has been read, or will be once there is a connection. */
  taken: boolean;
  readonly request: { readonly method: string; readonly replayable: boolean };
}

/** Tells that the request is with a connection. */
export function begins(progress: Progress): void {
  progress.sent = true;
  progress.taken = true;
}

/**
 * Leaves a connection that is still being made to the next call, which need not make one of its own. undici keeps what
 * was given up until it would begin.
 */
export function leaveEarly(exchange: Exchange, progress: Progress): void {
  progress.taken = true;
  exchange.connection?.release(true);
  exchange.connection = undefined;
}

/**
 * Ends what was given up when it would begin. An error that is thrown there costs no more than the request, the
 * controller's abort the connection as well; but that does away with a body that is a stream.
 */
export function endAtStart(controller: Controller, { request }: Progress, reason: Error): void {
  if (request.replayable) throw reason;
  controller.abort(reason);
}

export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('the call was cancelled', { cause: reason });
}

export function tooLarge(details: ExchangeDetails): ResponseTooLargeError {
  const { serviceName, maxResponseSize } = details;
  return new ResponseTooLargeError(
    `the answer of '${serviceName}' is larger than ${maxResponseSize} bytes`,
    details,
  );
}

export function undecodable(serviceName: string, encoding: string): string {
  return `the body of the response of '${serviceName}' cannot be decoded as ${encoding.slice(0, 100)}`;
}

/** What undici says where it does not like the request, the last one where its body was cut short. */
const REFUSALS: ReadonlySet<string | undefined> = new Set([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_ABORTED',
]);

/**
 * What undici says of a failed request, in the terms of the caller.
 *
 * @param sent whether the request was handed to a connection.
 */
export function failureOf(
  error: Error & { code?: string },
  details: ServiceErrorDetails,
  sent: boolean,
): Error {
  if (error instanceof ResponseTooLargeError) return error;
  if (REFUSALS.has(error.code))
    return new InvalidRequestError(error.message || error.code!, { cause: error });
  hideResponse(error);
  const { serviceName, instanceId } = details;
  return new ServiceConnectionError(
    `the connection to '${serviceName}' (instance ${instanceId}) failed: ${error.message || error.code}`,
    { serviceName, instanceId, sent, cause: error },
  );
}

/** Has no log show the bytes of a response that undici and Node keep with what their parsers say of it. */
function hideResponse(error: Error & { data?: unknown; rawPacket?: unknown }): void {
  for (const name of ['data', 'rawPacket'] as const) {
    if (name in error && Object.isExtensible(error))
      Object.defineProperty(error, name, { value: error[name], enumerable: false, writable: true });
  }
}

/** A request whose answer is read whole: undici's handler, and what ends it when the call is aborted. */
export class BufferedExchange implements Exchange, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #details: ExchangeDetails;
  readonly #progress: Progress;
  readonly #source: Abortable | undefined;
  readonly #resolve: (response: BufferedResponse) => void;
  readonly #reject: (error: unknown) => void;
  #controller: Controller | undefined = undefined;
  #abortedWith: Error | undefined = undefined;
  #status = 0;
  #headers: ResponseHeaders = {};
  #first: Buffer | undefined = undefined;
  #rest: Buffer[] | undefined = undefined;
  #size = 0;
  #complete = false;

  constructor(
    details: ExchangeDetails,
    progress: Progress,
    source: Abortable | undefined,
    resolve: (response: BufferedResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#details = details;
    this.#progress = progress;
    this.#source = source;
    this.#resolve = resolve;
    this.#reject = reject;
    source?.listen(this);
  }

  onAbort(reason: unknown): void {
    this.#reject(reason);
    // What is being decoded holds no connection any more.
    if (this.#complete) return;
    this.#abortedWith = asError(reason);
    if (this.#controller === undefined) leaveEarly(this, this.#progress);
    else this.#controller.abort(this.#abortedWith);
  }

  onRequestStart(controller: Controller): void {
    if (this.#abortedWith !== undefined) {
      endAtStart(controller, this.#progress, this.#abortedWith);
      return;
    }
    begins(this.#progress);
    this.#controller = controller;
  }

  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
    // RFC 9110, section 8.6: of these it is the length of what another response would have.
    const none = status === 304 || this.#progress.request.method === 'HEAD';
    if (!none && Number(headers['content-length']) > this.#details.maxResponseSize)
      controller.abort(tooLarge(this.#details));
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size > this.#details.maxResponseSize) controller.abort(tooLarge(this.#details));
    else if (this.#first === undefined) this.#first = chunk;
    else if (this.#rest === undefined) this.#rest = [this.#first, chunk];
    else this.#rest.push(chunk);
  }

  onResponseEnd(): void {
    this.connection!.release();
    this.#complete = true;
    const bytes = this.#rest === undefined ? this.#first : Buffer.concat(this.#rest, this.#size);
    const encoding = this.#headers['content-encoding'];
    if (bytes === undefined || encoding === undefined) this.#settle(bytes);
    else void this.#decode(bytes, String(encoding));
  }

  async #decode(bytes: Buffer, encoding: string): Promise<void> {
    const { serviceName, maxResponseSize } = this.#details;
    try {
      this.#settle(await decodeWhole(bytes, encoding, maxResponseSize));
    } catch (cause) {
      this.#source?.unlisten(this);
      const large = (cause as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE';
      const message = undecodable(serviceName, encoding);
      this.#reject(
        large ? tooLarge(this.#details) : new ResponseInvalidError(message, { ...this.#details, cause }),
      );
    }
  }

  #settle(bytes: Buffer | undefined): void {
    this.#source?.unlisten(this);
    const binary = bytes !== undefined && !isUtf8(bytes);
    this.#resolve({
      status: this.#status,
      headers: this.#headers,
      instanceId: this.#details.instanceId,
      body: bytes === undefined || binary ? '' : textOf(bytes),
      binary,
    });
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.connection?.release();
    this.#source?.unlisten(this);
    this.#reject(failureOf(error, this.#details, this.#controller !== undefined));
  }
}

/** Without a byte order mark, which JSON.parse takes for no JSON. */
function textOf(bytes: Buffer): string {
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return bytes.toString('utf8', marked ? 3 : 0);
}

/** How the body of a streamed answer ended, for the balancer. */
export interface BodyEnd {
  /** Milliseconds to its head: how long the rest takes is up to whoever reads it. */
  readonly latency: number;
  readonly error?: unknown;
  readonly cancelled?: boolean;
}

/**
 * A request whose answer is handed on when its head is there. The reader's pace is kept: a full stream stops
 * the socket. `cancellation` ends the body; the call's own context only the wait for the head.
 */
export class StreamedExchange implements Exchange, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #details: ExchangeDetails;
  readonly #progress: Progress;
  readonly #resolve: (response: ServiceResponse) => void;
  readonly #reject: (error: unknown) => void;
  readonly #cancellation: Abortable | undefined;
  readonly #whenOver: (end: BodyEnd) => void;
  #source: Abortable | undefined;
  #controller: Controller | undefined = undefined;
  #abortedWith: Error | undefined = undefined;
  #body: Readable | undefined = undefined;
  readonly #startedAt = performance.now();
  #latency = 0;
  #size = 0;
  #over = false;
  #complete = false;

  constructor(
    details: ExchangeDetails,
    progress: Progress,
    source: Abortable | undefined,
    cancellation: Abortable | undefined,
    whenOver: (end: BodyEnd) => void,
    resolve: (response: ServiceResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#details = details;
    this.#progress = progress;
    this.#source = source;
    this.#cancellation = cancellation;
    this.#whenOver = whenOver;
    this.#resolve = resolve;
    this.#reject = reject;
    source?.listen(this);
  }

  onAbort(reason: unknown): void {
    this.#reject(reason);
    this.#abortedWith = asError(reason);
    if (this.#controller === undefined) leaveEarly(this, this.#progress);
    else if (this.#body === undefined) this.#controller.abort(this.#abortedWith);
    else this.#body.destroy(this.#abortedWith);
  }

  onRequestStart(controller: Controller): void {
    if (this.#abortedWith !== undefined) {
      endAtStart(controller, this.#progress, this.#abortedWith);
      return;
    }
    begins(this.#progress);
    this.#controller = controller;
  }

  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders): void {
    if (status < 200 || this.#abortedWith !== undefined) return;
    this.#latency = performance.now() - this.#startedAt;
    this.#source?.unlisten(this);
    this.#source = this.#cancellation;
    this.#body = new Readable({
      read: () => controller.resume(),
      destroy: (error, callback) => {
        this.#finish(error === null || this.#abortedWith !== undefined ? { cancelled: true } : { error });
        if (!this.#complete) controller.abort(error ?? new Error('the body was destroyed before its end'));
        callback(error);
      },
    });
    // Whoever reads learns of an error; if nobody does it must not end the process.
    this.#body.on('error', () => {});
    this.#source?.listen(this);
    this.#resolve({ status, headers, instanceId: this.#details.instanceId, body: this.#body });
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size > this.#details.maxResponseSize) this.#body?.destroy(tooLarge(this.#details));
    else if (this.#body?.push(chunk) === false) controller.pause();
  }

  onResponseEnd(): void {
    this.connection!.release();
    this.#complete = true;
    this.#finish({});
    this.#body?.push(null);
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.connection?.release();
    this.#complete = true;
    const failure = failureOf(error, this.#details, this.#controller !== undefined);
    if (this.#body === undefined) {
      this.#source?.unlisten(this);
      this.#reject(failure);
    } else {
      this.#body.destroy(failure);
    }
  }

  #finish(end: Omit<BodyEnd, 'latency'>): void {
    if (this.#over) return;
    this.#over = true;
    this.#source?.unlisten(this);
    this.#whenOver({ latency: this.#latency, ...end });
  }
}
