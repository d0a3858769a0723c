import type { Dispatcher } from 'undici';
import type { AttemptHandler } from './connections.ts';
import { asError } from './service-errors.ts';

type Controller = Dispatcher.DispatchController;

/** The part of a call that changes while its request is sent. */
export interface SentCall {
  /** Whether the body has been read, or will be once there is a connection. */
  bodyConsumed: boolean;
  readonly request: { readonly method: string; readonly replayable: boolean };
  /** Notes that the instance may have processed the request. */
  markSent(): void;
}

/**
 * Sends a request through undici. The request may be given up before there is a connection, and
 * after.
 */
export class Sending {
  /** undici's controller, once the request has a connection. */
  controller: Controller | undefined = undefined;
  /** The reason for which the request was given up. */
  reason: Error | undefined = undefined;
  readonly #call: SentCall;

  constructor(call: SentCall) {
    this.#call = call;
  }

  /** Whether the request has, or had, a connection. */
  get sent(): boolean {
    return this.controller !== undefined;
  }

  /**
   * Begins the sending, unless the request was given up: undici keeps such a request until it would
   * be sent.
   */
  begin(controller: Controller): void {
    const { reason } = this;
    if (reason === undefined) {
      this.#call.markSent();
      this.controller = controller;
      return;
    }
    // An error thrown here ends the request alone, but leaves the stream of its body open. The
    // abort of the controller destroys the stream, and ends the connection as well.
    if (this.#call.request.replayable) throw reason;
    controller.abort(reason);
  }

  /**
   * Gives the request up. A connection that is still being made is left to the next call, which
   * then need not make its own.
   */
  abort(handler: AttemptHandler, reason: unknown): void {
    this.reason = asError(reason);
    if (this.controller !== undefined) {
      this.controller.abort(this.reason);
      return;
    }
    this.#call.bodyConsumed = true;
    handler.connection?.release(true);
    handler.connection = undefined;
  }
}
