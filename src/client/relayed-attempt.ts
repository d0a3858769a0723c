import type { Dispatcher } from 'undici';
import type { CallResult, Lease } from '../balancing/lease.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { ServiceResponseError } from '../errors.ts';
import type { AbortListener } from '../policies/abort.ts';
import type { Attempt } from './attempt.ts';
import type { CallController } from './call-controller.ts';
import { type CallState, describeCall } from './call-state.ts';
import type { AttemptHandler, Connection } from './connections.ts';
import { createRelayOptions, type RelayOptions } from './dispatch-options.ts';
import type { ResponseHeaders } from './response.ts';
import { toResponseError } from './response-content.ts';
import { Sending } from './sending.ts';
import { toServiceError } from './service-errors.ts';
import type { AttemptResult, Transport } from './transport.ts';

type Controller = Dispatcher.DispatchController;

/** How a body ended. */
interface BodyEnd {
  readonly error: Error | undefined;
  readonly trailers: ResponseHeaders;
}

/**
 * How far a relayed attempt has come. It is `waiting` for the head of the response; the response is
 * `held` back, its connection paused, until it is known what becomes of the call; it is being
 * `delivered`; or the attempt is `done`, since its body has ended, or it was given up.
 */
type Phase =
  | { readonly name: 'waiting' }
  | {
      readonly name: 'held';
      readonly response: RelayedResponse;
      readonly statusText: string | undefined;
      /** How the body ended meanwhile, as an empty one does. */
      end: BodyEnd | undefined;
    }
  | { readonly name: 'delivered'; readonly response: RelayedResponse }
  | { readonly name: 'done' };

const WAITING: Phase = { name: 'waiting' };
const DONE: Phase = { name: 'done' };

/** The response to an attempt of a relayed call, whose body goes to the handler of that call. */
class RelayedResponse implements AttemptResult<void> {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly instanceId: string;
  readonly succeeded: boolean;
  readonly #relayed: RelayedAttempt;

  constructor(relayed: RelayedAttempt, attempt: Attempt, status: number, headers: ResponseHeaders) {
    this.status = status;
    this.headers = headers;
    this.instanceId = attempt.instance.instanceId;
    this.#relayed = relayed;
    this.succeeded = attempt.judge(this);
  }

  hold(lease: Lease): void {
    lease.responded();
    this.#relayed.hold();
  }

  deliver(): void {
    this.#relayed.deliver();
  }

  discard(): void {
    this.#relayed.discard();
  }

  toError(call: CallState): ServiceResponseError {
    return toResponseError(call, this, undefined);
  }
}

/** Creates a transport that hands responses to the handler of the call. */
export function createRelayTransport(
  options: RelayOptions,
  call: CallController,
): Transport<RelayedResponse> {
  return (attempt) => {
    return new Promise((resolve, reject) => {
      attempt.dispatch(
        createRelayOptions(attempt, options),
        new RelayedAttempt(call, attempt, resolve, reject),
      );
    });
  };
}

/**
 * Makes one attempt of a relayed call. It delivers a success at once, unless the Retry may want
 * another attempt nevertheless. Any other response is held back until it is discarded for another
 * attempt, or delivered since there is none.
 */
export class RelayedAttempt implements AttemptHandler, AbortListener {
  connection: Connection | undefined = undefined;
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #call: CallController;
  readonly #attempt: Attempt;
  readonly #sending: Sending;
  readonly #resolve: (response: RelayedResponse) => void;
  readonly #reject: (error: unknown) => void;
  /**
   * The milliseconds to the head, if the body was still to come when the head had been judged: the
   * pace of the rest is up to the reader.
   */
  #latency: number | undefined = undefined;
  #phase: Phase = WAITING;

  constructor(
    call: CallController,
    attempt: Attempt,
    resolve: (response: RelayedResponse) => void,
    reject: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#attempt = attempt;
    this.#sending = new Sending(attempt.call);
    this.#resolve = resolve;
    this.#reject = reject;
    call.setAttempt(this);
    attempt.context.listen(this);
  }

  get instance(): ServiceInstance {
    return this.#attempt.instance;
  }

  onAbort(reason: unknown): void {
    const phase = this.#phase;
    if (this.#ended) return;
    this.#phase = DONE;
    if (phase.name === 'held' || phase.name === 'delivered') {
      this.#release(phase.response, { cancelled: true });
    } else {
      this.#attempt.context.unlisten(this);
      this.#reject(reason);
    }
    this.#sending.abort(this, reason);
  }

  pause(): void {
    if (this.#phase.name === 'delivered') this.#sending.controller!.pause();
  }

  resume(): void {
    if (this.#phase.name === 'delivered') this.#sending.controller!.resume();
  }

  /** Takes the latency when the head has been judged: the pace of the rest is up to the reader. */
  hold(): void {
    if (!this.#ended) this.#latency = this.#elapsed();
  }

  /** Delivers the response, if it was held back. */
  deliver(): void {
    const phase = this.#phase;
    if (phase.name !== 'held') return;
    const { response, statusText, end } = phase;
    this.#begin(response, statusText, end === undefined ? { name: 'delivered', response } : DONE);
    if (end === undefined) {
      if (!this.#call.paused) this.resume();
    } else if (end.error !== undefined) {
      this.#call.fail(end.error);
    } else {
      this.#call.end(this.#sending.controller!, end.trailers);
    }
  }

  /**
   * Lets go of the response. The part of it that has arrived is read, so that the connection can be
   * used again.
   */
  discard(): void {
    if (this.#ended) return;
    this.#sending.controller!.resume();
    this.onAbort(new Error('another attempt took the place of this one'));
  }

  onRequestStart(controller: Controller): void {
    this.#sending.begin(controller);
  }

  /** Takes a chunk that was sent, which the types of undici 7 call a number. */
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
    if (this.#phase.name === 'done') return;
    if (status < 200) {
      this.#call.head(controller, status, headers, statusText);
      return;
    }
    const attempt = this.#attempt;
    attempt.context.unlisten(this);
    const response = new RelayedResponse(this, attempt, status, headers);
    const final = response.succeeded && !attempt.policies.retryRule.mayRetrySuccess(response);
    if (!final) this.#phase = { name: 'held', response, statusText, end: undefined };
    this.#resolve(response);
    if (final) this.#begin(response, statusText, { name: 'delivered', response });
    else controller.pause();
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    if (this.#phase.name === 'delivered') this.#call.data(chunk);
  }

  onResponseEnd(controller: Controller, trailers: ResponseHeaders): void {
    this.connection!.release();
    if (this.#endBody({ error: undefined, trailers })) this.#call.end(controller, trailers);
  }

  onResponseError(_controller: Controller, cause: Error): void {
    this.connection?.release();
    if (this.#phase.name === 'done') return;
    const error = toServiceError(cause, this.instance, this.#sending.sent);
    describeCall(error, this.#attempt.call);
    if (this.#phase.name === 'waiting') {
      this.#phase = DONE;
      this.#attempt.context.unlisten(this);
      this.#reject(error);
    } else if (this.#endBody({ error, trailers: {} })) {
      this.#call.fail(error);
    }
  }

  /** Whether the connection has nothing more to do for the attempt. */
  get #ended(): boolean {
    const phase = this.#phase;
    return phase.name === 'done' || (phase.name === 'held' && phase.end !== undefined);
  }

  /**
   * Takes in the end of the body.
   *
   * @returns whether the handler is to be told of it now
   */
  #endBody(end: BodyEnd): boolean {
    const phase = this.#phase;
    if (phase.name !== 'held' && phase.name !== 'delivered') return false;
    this.#release(phase.response, end.error === undefined ? {} : { error: end.error });
    if (phase.name === 'held') {
      phase.end = end;
      return false;
    }
    this.#phase = DONE;
    return true;
  }

  /** Releases the lease of a success. That of a failure was released when its head was judged. */
  #release({ succeeded }: RelayedResponse, result: CallResult): void {
    if (!succeeded) return;
    if (this.#latency !== undefined) result.latency = this.#latency;
    // The lease counts by itself, but knows nothing of waits.
    else if (this.#attempt.call.callerWait !== undefined) result.latency = this.#elapsed();
    this.#attempt.lease.release(result);
  }

  /** Gives the milliseconds since the attempt began, without its waits for the caller. */
  #elapsed(): number {
    const { elapsed, call } = this.#attempt;
    return Math.max(0, elapsed - (call.callerWait?.waited ?? 0));
  }

  #begin({ status, headers }: RelayedResponse, statusText: string | undefined, phase: Phase): void {
    this.#phase = phase;
    const controller = this.#sending.controller!;
    this.#attempt.invalidateCache();
    if (this.#call.paused) controller.pause();
    this.#call.head(controller, status, headers, statusText);
  }
}
