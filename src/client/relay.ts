import type { Dispatcher } from 'undici';
import type { CallResult, Lease } from '../balancing/lease.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { emitWarning } from '../internal/emitter.ts';
import { errors } from '../internal/undici.ts';
import { type Abortable, type AbortListener, type AbortOwner, AbortScope } from '../policies/abort.ts';
import { type CallState, describeCall } from './call-state.ts';
import type { Connection, Exchange } from './connections.ts';
import {
  type Answer,
  asError,
  begins,
  endAtStart,
  failureOf,
  leaveEarly,
  type ResponseHeaders,
} from './exchange.ts';
import { IteratedBody } from './iterated-body.ts';
import type { NearMiss } from './mesh-target.ts';
import { isNodeStream, type RelayRequest } from './relay-request.ts';
import type { CallUnderWay, RelayedCalls } from './relayed-calls.ts';
import { reasonOf, unreadable } from './watched-body.ts';

type Controller = Dispatcher.DispatchController;
type Handler = Dispatcher.DispatchHandler;

/** What relays calls: a ServiceClient. */
export interface Relay {
  relay(request: RelayRequest, handler: Handler, calls?: RelayedCalls): void;
  policies(service: string): { readonly maxResponseSize: number; readonly timeout: number };
  notePassthrough(nearMiss: NearMiss): void;
  close(): Promise<void>;
}

/**
 * A call whose answer goes to a handler of undici's as it comes. It is the controller that the handler is given, from
 * before the first try to the end of the body, and sees to it that the handler is told of one end.
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
  /** The latest try that has reached a connection. */
  #exchange: RelayedExchange | undefined = undefined;
  #unwatch: (() => void) | undefined = undefined;
  #paused = false;
  #over = false;

  constructor(handler: Handler, signal: Abortable | undefined, calls: RelayedCalls | undefined) {
    this.#handler = handler;
    this.#calls = calls;
    this.scope = new AbortScope(signal, this);
    calls?.began(this);
  }

  get over(): boolean {
    return this.#over;
  }

  /** The instance that the latest attempt went to; undefined before the first, and after the end. */
  get instance(): ServiceInstance | undefined {
    return this.#exchange?.instance;
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
    this.#exchange?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#exchange?.resume();
  }

  onAbort(reason: unknown): void {
    const exchange = this.#exchange;
    this.fail(reason as Error);
    exchange?.onAbort(reason);
  }

  begin(): void {
    try {
      this.#handler.onRequestStart?.(this, null);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  /** Ends the call if what should give its body fails. */
  watch(body: unknown): void {
    const failed = (error: Error) => this.abort(reasonOf(error));
    if (body instanceof IteratedBody) {
      body.whenFailed = failed;
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

  goesBy(exchange: RelayedExchange): void {
    this.#exchange = exchange;
  }

  bodySent(chunk: Buffer): void {
    if (this.#over || this.#handler.onBodySent === undefined) return;
    try {
      this.#handler.onBodySent(chunk);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  requestSent(): void {
    if (this.#over || this.#handler.onRequestSent === undefined) return;
    try {
      this.#handler.onRequestSent();
    } catch (error) {
      this.abort(error as Error);
    }
  }

  responseStarted(): void {
    if (this.#over || this.#handler.onResponseStarted === undefined) return;
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
    if (this.#over) return;
    this.rawHeaders = rawHeaders;
    try {
      this.#handler.onResponseStart?.(this, status, headers, statusText);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  data(chunk: Buffer): void {
    if (this.#over) return;
    try {
      this.#handler.onResponseData?.(this, chunk);
    } catch (error) {
      this.abort(error as Error);
    }
  }

  end({ rawTrailers }: Controller, trailers: ResponseHeaders): void {
    if (this.#over) return;
    this.rawTrailers = rawTrailers;
    const handler = this.#finish();
    try {
      handler.onResponseEnd?.(this, trailers);
    } catch (error) {
      tell(handler, this, error as Error);
    }
  }

  fail(error: Error): void {
    if (!this.#over) tell(this.#finish(), this, error);
  }

  /**
   * Lets go of all that it knows, for it may be known for longer itself: while one call leads to the next, each of
   * them would otherwise keep the one after it from an early end in V8's collections of young objects.
   */
  #finish(): Handler {
    const handler = this.#handler;
    this.#handler = NOBODY;
    this.#exchange = undefined;
    this.#over = true;
    this.scope.end();
    this.#calls?.ended(this);
    this.#unwatch?.();
    return handler;
  }
}

/** In place of a handler that has been told of the end. */
const NOBODY: Handler = {};

function tell(handler: Handler, call: RelayedCall, error: Error): void {
  try {
    handler.onResponseError?.(call, error);
  } catch (thrown) {
    emitWarning(thrown, 'A handler threw when it was told that its request had failed.');
  }
}

/** The answer to a try of a relayed call. */
export interface RelayedAnswer extends Answer {
  /** Whether it counts as a success. */
  readonly stands: boolean;
  readonly exchange: RelayedExchange;
}

/** Says of an answer, once, what is to come of it. */
export interface AnswerJudge {
  succeeded(answer: Answer): boolean;
  /** Whether there may be another try though it succeeded. */
  mayRetry(answer: Answer): boolean;
  /** To be called before its caller learns of it, and may ask for the same at once. */
  invalidateAfter(state: CallState): void;
}

/**
 * One try of a relayed call. The answer of a success is handed on at once. Any other is held back, its connection
 * paused, until it is dropped for another try, or handed on since there is none.
 */
export class RelayedExchange implements Exchange, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  controller: Controller | undefined = undefined;
  readonly #call: RelayedCall;
  readonly #lease: Lease;
  readonly #state: CallState;
  readonly #source: Abortable | undefined;
  readonly #judge: AnswerJudge;
  readonly #resolve: (answer: RelayedAnswer) => void;
  readonly #reject: (error: unknown) => void;
  readonly #startedAt: number;
  /** Milliseconds to the head, if the body is still to come when it has been seen by all: what is left is up to the reader. */
  #latency: number | undefined = undefined;
  #answer: RelayedAnswer | undefined = undefined;
  #statusText: string | undefined = undefined;
  #handedOn = false;
  #abortedWith: Error | undefined = undefined;
  #complete = false;
  /** How the body ended while it was held back, which an empty one does. */
  #end: { error: Error } | { trailers: ResponseHeaders } | undefined = undefined;

  constructor(
    call: RelayedCall,
    lease: Lease,
    state: CallState,
    source: Abortable | undefined,
    judge: AnswerJudge,
    startedAt: number,
    resolve: (answer: RelayedAnswer) => void,
    reject: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#lease = lease;
    this.#state = state;
    this.#source = source;
    this.#judge = judge;
    this.#startedAt = startedAt;
    this.#resolve = resolve;
    this.#reject = reject;
    call.goesBy(this);
    source?.listen(this);
  }

  get instance(): ServiceInstance {
    return this.#lease.instance;
  }

  onAbort(reason: unknown): void {
    if (this.#complete || this.#abortedWith !== undefined) return;
    this.#abortedWith = asError(reason);
    if (this.#answer === undefined) {
      this.#source?.unlisten(this);
      this.#reject(reason);
    } else {
      this.#finish({ cancelled: true });
    }
    if (this.controller === undefined) leaveEarly(this, this.#state);
    else this.controller.abort(this.#abortedWith);
  }

  pause(): void {
    if (this.#handedOn) this.controller!.pause();
  }

  resume(): void {
    if (this.#handedOn) this.controller!.resume();
  }

  /** The head has been seen by all that judge it. */
  goesOn(): void {
    if (!this.#complete) this.#latency = performance.now() - this.#startedAt;
  }

  /** Hands on what was held back, if it was. */
  handOn(): void {
    if (this.#handedOn) return;
    this.#begin();
    if (this.#end === undefined) {
      if (!this.#call.paused) this.controller!.resume();
    } else if ('error' in this.#end) {
      this.#call.fail(this.#end.error);
    } else {
      this.#call.end(this.controller!, this.#end.trailers);
    }
  }

  /** Lets go of what was held back. What is here of it is read, so that the connection can be used again. */
  drop(): void {
    if (this.#complete) return;
    this.controller!.resume();
    if (!this.#complete) this.onAbort(new Error('another try took the place of this one'));
  }

  onRequestStart(controller: Controller): void {
    if (this.#abortedWith !== undefined) {
      endAtStart(controller, this.#state, this.#abortedWith);
      return;
    }
    begins(this.#state);
    this.controller = controller;
  }

  /** The types of undici 7 say that it is given numbers; it is given what was sent. */
  onBodySent(chunk: never): void {
    this.#call.bodySent(chunk);
  }

  onRequestSent(): void {
    this.#call.requestSent();
  }

  onResponseStarted(): void {
    this.#call.responseStarted();
  }

  onResponseStart(
    controller: Controller,
    status: number,
    headers: ResponseHeaders,
    statusText?: string,
  ): void {
    if (this.#abortedWith !== undefined) return;
    if (status < 200) {
      this.#call.head(controller, status, headers, statusText);
      return;
    }
    this.#source?.unlisten(this);
    const { instanceId } = this.#lease.instance;
    const answer = { status, headers, instanceId };
    const stands = this.#judge.succeeded(answer);
    this.#answer = { status, headers, instanceId, stands, exchange: this };
    this.#statusText = statusText;
    this.#resolve(this.#answer);
    if (stands && !this.#judge.mayRetry(answer)) this.#begin();
    else controller.pause();
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    if (this.#handedOn) this.#call.data(chunk);
  }

  onResponseEnd(controller: Controller, trailers: ResponseHeaders): void {
    this.connection!.release();
    this.#complete = true;
    this.#finish({});
    if (this.#handedOn) this.#call.end(controller, trailers);
    else this.#end = { trailers };
  }

  onResponseError(_controller: Controller, cause: Error): void {
    this.connection?.release();
    this.#complete = true;
    if (this.#abortedWith !== undefined) return;
    const error = failureOf(cause, this.#lease.instance, this.controller !== undefined);
    describeCall(error, this.#state);
    if (this.#answer === undefined) {
      this.#source?.unlisten(this);
      this.#reject(error);
      return;
    }
    this.#finish({ error });
    if (this.#handedOn) this.#call.fail(error);
    else this.#end = { error };
  }

  /** What did not count as a success has been judged by its head. */
  #finish(end: CallResult): void {
    if (!this.#answer!.stands) return;
    if (this.#latency !== undefined) end.latency = this.#latency;
    this.#lease.release(end);
  }

  #begin(): void {
    const { status, headers } = this.#answer!;
    this.#handedOn = true;
    this.#judge.invalidateAfter(this.#state);
    if (this.#call.paused) this.controller!.pause();
    this.#call.head(this.controller!, status, headers, this.#statusText);
  }
}
