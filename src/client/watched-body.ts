import type { Readable } from 'node:stream';
import { InvalidRequestError, TimeoutError } from '../errors.ts';
import { type Abortable, type AbortOwner, AbortScope } from '../policies/abort.ts';

/**
 * Watches the stream that gives the body of a call. A failure of the stream cancels the call, since
 * the stream is the caller's: it says nothing about the service.
 */
export class WatchedBody implements AbortOwner {
  /** Cancels the call: its signal does, and a failure of the stream. */
  readonly scope: AbortScope;
  readonly #body: Readable;

  constructor(body: Readable, signal: Abortable | undefined) {
    this.#body = body;
    this.scope = new AbortScope(signal, this);
    body.on('error', this.#fail);
    if (signal?.aborted) this.scope.abort(signal.reason);
    else if (body.errored) this.#fail(body.errored);
    else if (body.destroyed) this.scope.abort(createUnreadableError());
  }

  onAbort(): void {}

  /**
   * Stops watching, once the call is over. A stream that nobody has read may still fail, which must
   * not end the process.
   */
  end(): void {
    this.scope.end();
    this.#body.off('error', this.#fail);
    if (!this.#body.listeners('error').includes(ignore)) this.#body.on('error', ignore);
  }

  readonly #fail = (cause: Error) => this.scope.abort(createBodyError(cause));
}

/** Creates the error of a call whose body is a stream that was destroyed, or read to its end. */
export function createUnreadableError(): InvalidRequestError {
  return new InvalidRequestError('the body of the request has been destroyed, or read, before it was sent');
}

/**
 * Gives the failure of a body as the reason for which the call ends. A TimeoutError is wrapped:
 * that of another call, such as one whose response is the body, would otherwise count against the
 * service.
 */
export function toAbortReason(error: Error): Error {
  return error instanceof TimeoutError ? createBodyError(error) : error;
}

function createBodyError(cause: Error): InvalidRequestError {
  return new InvalidRequestError(`the body of the request failed: ${String(cause?.message)}`, { cause });
}

function ignore(): void {}
