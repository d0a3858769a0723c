import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { CallResult, Lease } from '../balancing/lease.ts';
import type { ServiceResponseError } from '../errors.ts';
import type { Abortable, AbortListener } from '../policies/abort.ts';
import type { Attempt } from './attempt.ts';
import { type CallState, describeCall } from './call-state.ts';
import type { AttemptHandler, Connection } from './connections.ts';
import { createDispatchOptions } from './dispatch-options.ts';
import type { ResponseHeaders, ServiceResponse } from './response.ts';
import { toResponseError } from './response-content.ts';
import { Sending } from './sending.ts';
import { asError, createTooLargeError, toServiceError } from './service-errors.ts';
import type { AttemptResult, Transport } from './transport.ts';

type Controller = Dispatcher.DispatchController;

/** The limits of a streamed body, and the callback for its end. */
export interface BodyOptions {
  /** The size, in bytes, beyond which the body ends with an error. */
  readonly maxResponseSize: number;
  /** Ends the body. The context of the attempt ends only the wait for the head. */
  readonly cancellation: Abortable | undefined;
  /** Called once, when the body has ended. */
  onEnd(): void;
}

/** A response whose body is a stream. */
class StreamedResponse implements AttemptResult<ServiceResponse>, ServiceResponse {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly instanceId: string;
  readonly body: Readable;
  readonly succeeded: boolean;

  constructor(attempt: Attempt, status: number, headers: ResponseHeaders, body: Readable) {
    this.status = status;
    this.headers = headers;
    this.instanceId = attempt.instance.instanceId;
    this.body = body;
    this.succeeded = attempt.judge(this);
  }

  hold(lease: Lease): void {
    lease.responded();
  }

  deliver(): ServiceResponse {
    return this;
  }

  discard(): void {
    this.body.destroy();
  }

  toError(call: CallState): ServiceResponseError {
    return toResponseError(call, this, undefined);
  }
}

/** Creates a transport that resolves with a response as soon as its head has arrived. */
export function createStreamedTransport(options: BodyOptions): Transport<AttemptResult<ServiceResponse>> {
  return (attempt) => {
    return new Promise((resolve, reject) => {
      attempt.dispatch(
        createDispatchOptions(attempt),
        new StreamedHandler(attempt, options, resolve, reject),
      );
    });
  };
}

/** Streams a response for undici at the pace of its reader: a full stream stops the socket. */
class StreamedHandler implements AttemptHandler, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #attempt: Attempt;
  readonly #sending: Sending;
  readonly #options: BodyOptions;
  readonly #resolve: (response: StreamedResponse) => void;
  readonly #reject: (error: unknown) => void;
  #source: Abortable | undefined;
  #body: Readable | undefined = undefined;
  /** Milliseconds to the head: how long the rest takes is up to the reader. */
  #latency = 0;
  #size = 0;
  #over = false;
  #complete = false;

  constructor(
    attempt: Attempt,
    options: BodyOptions,
    resolve: (response: StreamedResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#attempt = attempt;
    this.#sending = new Sending(attempt.call);
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#source = attempt.context.source;
    this.#source?.listen(this);
  }

  onAbort(reason: unknown): void {
    this.#reject(reason);
    if (this.#body === undefined) {
      this.#sending.abort(this, reason);
    } else {
      this.#sending.reason = asError(reason);
      this.#body.destroy(this.#sending.reason);
    }
  }

  onRequestStart(controller: Controller): void {
    this.#sending.begin(controller);
  }

  onResponseStart(controller: Controller, status: number, headers: ResponseHeaders): void {
    if (status < 200 || this.#sending.reason !== undefined) return;
    this.#latency = this.#attempt.elapsed;
    this.#source?.unlisten(this);
    this.#source = this.#options.cancellation;
    this.#body = new Readable({
      read: () => controller.resume(),
      destroy: (error, callback) => {
        const cancelled = error === null || this.#sending.reason !== undefined;
        this.#finish(cancelled ? { cancelled } : { error });
        if (!this.#complete) controller.abort(error ?? new Error('the body was destroyed before its end'));
        callback(error);
      },
    });
    // Without a listener, an error of a body that nobody reads would end the process.
    this.#body.on('error', () => {});
    this.#source?.listen(this);
    this.#resolve(new StreamedResponse(this.#attempt, status, headers, this.#body));
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    const { maxResponseSize } = this.#options;
    this.#size += chunk.length;
    if (this.#size > maxResponseSize)
      this.#body?.destroy(createTooLargeError(this.#attempt.instance, maxResponseSize));
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
    const failure = toServiceError(error, this.#attempt.instance, this.#sending.sent);
    if (this.#body === undefined) {
      this.#source?.unlisten(this);
      this.#reject(failure);
    } else {
      this.#body.destroy(failure);
    }
  }

  #finish(end: Pick<CallResult, 'error' | 'cancelled'>): void {
    if (this.#over) return;
    this.#over = true;
    this.#source?.unlisten(this);
    this.#options.onEnd();
    describeCall(end.error, this.#attempt.call);
    this.#attempt.lease.release({ latency: this.#latency, ...end });
  }
}
