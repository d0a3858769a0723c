import type { Dispatcher } from 'undici';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { emitWarning } from '../internal/emitter.ts';
import { errors } from '../internal/undici.ts';
import { type Abortable, type AbortOwner, AbortScope } from '../policies/abort.ts';
import type { InFlightCall, InFlightCalls } from './in-flight-calls.ts';
import { IteratedBody } from './iterated-body.ts';
import { isNodeStream } from './relay-request.ts';
import type { RelayedAttempt } from './relayed-attempt.ts';
import type { ResponseHeaders } from './response.ts';
import { createUnreadableError, toAbortReason } from './watched-body.ts';

type Controller = Dispatcher.DispatchController;
type Handler = Dispatcher.DispatchHandler;

/**
 * Controls a call whose response goes to a handler of undici's as it comes: it is the controller
 * that the handler gets, from before the first attempt to the end of the body. It tells the handler
 * of exactly one end.
 */
export class CallController implements Controller, AbortOwner, InFlightCall {
  next: InFlightCall | undefined = undefined;
  previous: InFlightCall | undefined = undefined;
  /** Cancels the whole call. */
  readonly scope: AbortScope;
  rawHeaders: Controller['rawHeaders'] = undefined;
  rawTrailers: Controller['rawTrailers'] = undefined;
  #handler: Handler;
  readonly #calls: InFlightCalls | undefined;
  /** The latest attempt. */
  #attempt: RelayedAttempt | undefined = undefined;
  #unwatch: (() => void) | undefined = undefined;
  #paused = false;

  constructor(handler: Handler, signal: Abortable | undefined, calls: InFlightCalls | undefined) {
    this.#handler = handler;
    this.#calls = calls;
    this.scope = new AbortScope(signal, this);
    calls?.add(this);
  }

  get over(): boolean {
    return this.#handler === NO_HANDLER;
  }

  /**
   * The instance that the latest attempt went to; undefined before the first, and after the end.
   */
  get instance(): ServiceInstance | undefined {
    return this.#attempt?.instance;
  }

  get aborted(): boolean {
    return this.scope.aborted;
  }

  get reason(): Error | null {
    return (this.scope.reason as Error | undefined) ?? null;
  }

  get paused(): boolean {
    return this.#paused;
  }

  abort(reason?: Error): void {
    this.scope.abort(reason ?? new errors.RequestAbortedError());
  }

  pause(): void {
    this.#paused = true;
    this.#attempt?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#attempt?.resume();
  }

  onAbort(reason: unknown): void {
    const attempt = this.#attempt;
    this.fail(reason as Error);
    attempt?.onAbort(reason);
  }

  begin(): void {
    try {
      this.#handler.onRequestStart?.(this, null);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  /** Ends the call if the source of its body fails. */
  watchBody(body: unknown): void {
    const onError = (error: Error) => this.abort(toAbortReason(error));
    if (body instanceof IteratedBody) {
      body.onSourceError = onError;
      this.#unwatch = () => body.close();
    } else if (isNodeStream(body)) {
      if (body.errored || body.destroyed) {
        this.abort(body.errored ? toAbortReason(body.errored) : createUnreadableError());
        return;
      }
      body.on('error', onError);
      this.#unwatch = () => void body.off('error', onError);
    }
  }

  setAttempt(attempt: RelayedAttempt): void {
    this.#attempt = attempt;
  }

  bodySent(chunk: Buffer): void {
    if (this.over || this.#handler.onBodySent === undefined) return;
    try {
      this.#handler.onBodySent(chunk);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  requestSent(): void {
    if (this.over || this.#handler.onRequestSent === undefined) return;
    try {
      this.#handler.onRequestSent();
    } catch (error) {
      this.abort(error as Error);
    }
  }

  responseStarted(): void {
    if (this.over || this.#handler.onResponseStarted === undefined) return;
    try {
      this.#handler.onResponseStarted();
    } catch (error) {
      this.abort(error as Error);
    }
  }

  head(
    { rawHeaders }: Controller,
    status: number,
    headers: ResponseHeaders,
    statusText: string | undefined,
  ): void {
    if (this.over) return;
    this.rawHeaders = rawHeaders;
    try {
      this.#handler.onResponseStart?.(this, status, headers, statusText);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  data(chunk: Buffer): void {
    if (this.over) return;
    try {
      this.#handler.onResponseData?.(this, chunk);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  end({ rawTrailers }: Controller, trailers: ResponseHeaders): void {
    if (this.over) return;
    this.rawTrailers = rawTrailers;
    const handler = this.#finish();
    try {
      handler.onResponseEnd?.(this, trailers);
    } catch (error) {
      reportFailure(handler, this, error as Error);
    }
  }

  fail(error: Error): void {
    if (!this.over) reportFailure(this.#finish(), this, error);
  }

  /**
   * Ends the call, and lets go of all that it refers to. Others may refer to the controller for
   * longer: where one call leads to the next, each of them would otherwise keep the one after it
   * alive through V8's collections of young objects.
   */
  #finish(): Handler {
    const handler = this.#handler;
    this.#handler = NO_HANDLER;
    this.#attempt = undefined;
    this.scope.end();
    this.#calls?.remove(this);
    this.#unwatch?.();
    return handler;
  }
}

/** Takes the place of a handler that has been told of the end. */
const NO_HANDLER: Handler = {};

function reportFailure(handler: Handler, call: CallController, error: Error): void {
  try {
    handler.onResponseError?.(call, error);
  } catch (thrown) {
    emitWarning(thrown, 'A handler threw when it was told that its request had failed.');
  }
}
