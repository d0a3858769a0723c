import type { Dispatcher } from 'undici';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { emitWarning } from '../internal/emitter.ts';
import { errors } from '../internal/undici.ts';
import { type Abortable, type AbortOwner, AbortScope } from '../policies/abort.ts';
import { IteratedBody } from './iterated-body.ts';
import { isNodeStream } from './relay-request.ts';
import type { RelayedAttempt } from './relayed-attempt.ts';
import type { CallUnderWay, RelayedCalls } from './relayed-calls.ts';
import type { ResponseHeaders } from './response.ts';
import { reasonOf, unreadable } from './watched-body.ts';

type Controller = Dispatcher.DispatchController;
type Handler = Dispatcher.DispatchHandler;

/**
 * A call whose response goes to a handler of undici's as it comes. It is the controller that the handler is given, from
 * before the first attempt to the end of the body, and sees to it that the handler is told of one end.
 */
export class RelayedCall implements Controller, AbortOwner, CallUnderWay {
  next: CallUnderWay | undefined = undefined;
  previous: CallUnderWay | undefined = undefined;
  /** What cancels all of the call. */
  readonly scope: AbortScope;
  rawHeaders: Controller['rawHeaders'] = undefined;
  rawTrailers: Controller['rawTrailers'] = undefined;
  #handler: Handler;
  readonly #calls: RelayedCalls | undefined;
  /** The latest attempt. */
  #attempt: RelayedAttempt | undefined = undefined;
  #unwatch: (() => void) | undefined = undefined;
  #paused = false;

  constructor(handler: Handler, signal: Abortable | undefined, calls: RelayedCalls | undefined) {
    this.#handler = handler;
    this.#calls = calls;
    this.scope = new AbortScope(signal, this);
    calls?.began(this);
  }

  get over(): boolean {
    return this.#handler === NOBODY;
  }

  /** The instance that the latest attempt went to; undefined before the first, and after the end. */
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
    const failed = (error: Error) => this.abort(reasonOf(error));
    if (body instanceof IteratedBody) {
      body.onSourceError = failed;
      this.#unwatch = () => body.close();
    } else if (isNodeStream(body)) {
      if (body.errored || body.destroyed) {
        this.abort(body.errored ? reasonOf(body.errored) : unreadable());
        return;
      }
      body.on('error', failed);
      this.#unwatch = () => void body.off('error', failed);
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
   * Lets go of all that it knows, for it may be known for longer itself: while one call leads to the next, each of
   * them would otherwise keep the one after it from an early end in V8's collections of young objects.
   */
  #finish(): Handler {
    const handler = this.#handler;
    this.#handler = NOBODY;
    this.#attempt = undefined;
    this.scope.end();
    this.#calls?.ended(this);
    this.#unwatch?.();
    return handler;
  }
}

/** In place of a handler that has been told of the end. */
const NOBODY: Handler = {};

function reportFailure(handler: Handler, call: RelayedCall, error: Error): void {
  try {
    handler.onResponseError?.(call, error);
  } catch (thrown) {
    emitWarning(thrown, 'A handler threw when it was told that its request had failed.');
  }
}
