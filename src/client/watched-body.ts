import type { Readable } from 'node:stream';
import { InvalidRequestError, TimeoutError } from '../errors.ts';
import { type Abortable, type AbortOwner, AbortScope } from '../policies/abort.ts';

/**
 * The stream that gives the body of a call. Its failure cancels the call, since it is the caller's: it says nothing about
 * the service.
 */
export class WatchedBody implements AbortOwner {
  /** What cancels the call: its signal, or the failure of the stream. */
  readonly scope: AbortScope;
  readonly #body: Readable;

  constructor(body: Readable, signal: Abortable | undefined) {
    this.#body = body;
    this.scope = new AbortScope(signal, this);
    body.on('error', this.#failed);
    if (signal?.aborted) this.scope.abort(signal.reason);
    else if (body.errored) this.#failed(body.errored);
    else if (body.destroyed) this.scope.abort(unreadable());
  }

  onAbort(): void {}

  /** To be called when the call is over. A stream that nobody has read may still fail, which must not end the process. */
  end(): void {
    this.scope.end();
    this.#body.off('error', this.#failed);
    if (!this.#body.listeners('error').includes(ignore)) this.#body.on('error', ignore);
  }

  readonly #failed = (cause: Error) => this.scope.abort(bodyFailure(cause));
}

/** What a call ends with whose body is a stream that has been destroyed, or read to its end. */
export function unreadable(): InvalidRequestError {
  return new InvalidRequestError('the body of the request has been destroyed, or read, before it was sent');
}

/**
 * The failure of what gives the body as the reason for which the call ends. A TimeoutError of another call, say of the one
 * whose response is passed on, would count against the service as it is.
 */
export function reasonOf(error: Error): Error {
  return error instanceof TimeoutError ? bodyFailure(error) : error;
}

function bodyFailure(cause: Error): InvalidRequestError {
  return new InvalidRequestError(`the body of the request failed: ${String(cause?.message)}`, { cause });
}

function ignore(): void {}
