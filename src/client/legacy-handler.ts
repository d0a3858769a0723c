import type { IncomingHttpHeaders } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Dispatcher } from 'undici';
import { InvalidRequestError } from '../errors.ts';

type Controller = Dispatcher.DispatchController;
type Handler = Dispatcher.DispatchHandler;

/** A handler of undici's older protocol, which the built-in fetch of Node speaks up to Node 25. */
export interface LegacyDispatchHandler {
  onConnect?(abort: (reason?: Error) => void, context?: unknown): void;
  onUpgrade?(status: number, headers: readonly (Buffer | Buffer[])[], socket: Duplex): unknown;
  onHeaders?(
    status: number,
    headers: readonly (Buffer | Buffer[])[],
    resume: () => void,
    statusText: string | undefined,
  ): unknown;
  onData?(chunk: Buffer): unknown;
  onComplete?(trailers: readonly (Buffer | Buffer[])[]): void;
  onError?(error: Error): void;
  onResponseStarted?(): void;
  onBodySent?(chunk: Buffer): void;
  onRequestSent?(): void;
}

/**
 * Gives the handler itself if it speaks undici's newer protocol, else one that translates for it.
 *
 * @throws InvalidRequestError if it speaks neither protocol
 */
export function toNewerHandler(handler: Handler | LegacyDispatchHandler): Handler {
  const { onRequestStart, onResponseError, onError } = Object(handler) as Handler & LegacyDispatchHandler;
  if (typeof onResponseError !== 'function' && typeof onError !== 'function') {
    throw new InvalidRequestError('the handler of a request must have onResponseError(), or onError()');
  }
  return typeof onRequestStart === 'function'
    ? (handler as Handler)
    : new LegacyHandler(handler as LegacyDispatchHandler);
}

class LegacyHandler implements Handler {
  readonly #handler: LegacyDispatchHandler;

  constructor(handler: LegacyDispatchHandler) {
    this.#handler = handler;
  }

  onRequestStart(controller: Controller, context: unknown): void {
    this.#handler.onConnect?.((reason) => controller.abort(reason as Error), context);
  }

  /** Is called only for requests to hosts that are no service of the mesh. */
  onRequestUpgrade(
    controller: Controller,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex,
  ): unknown {
    return this.#handler.onUpgrade?.(status, rawOf(controller.rawHeaders, headers), socket);
  }

  onResponseStart(
    controller: Controller,
    status: number,
    headers: IncomingHttpHeaders,
    statusText?: string,
  ): void {
    const raw = rawOf(controller.rawHeaders, headers);
    const more = this.#handler.onHeaders?.(status, raw, () => controller.resume(), statusText);
    // An informational response has no body to hold back.
    if (more === false && status >= 200) controller.pause();
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#handler.onData?.(chunk) === false) controller.pause();
  }

  onResponseEnd(controller: Controller, trailers: IncomingHttpHeaders): void {
    this.#handler.onComplete?.(rawOf(controller.rawTrailers, trailers));
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.#handler.onError!(error);
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted?.();
  }

  onBodySent(chunk: Buffer): void {
    this.#handler.onBodySent?.(chunk);
  }

  onRequestSent(): void {
    this.#handler.onRequestSent?.();
  }
}

/**
 * Gives names and values in turn, as bytes: as they came, or written again from the parsed headers,
 * as over HTTP/2.
 */
function rawOf(raw: Controller['rawHeaders'], parsed: IncomingHttpHeaders): (Buffer | Buffer[])[] {
  if (Array.isArray(raw)) return raw as Buffer[];
  return Object.entries(parsed).flatMap(([name, value]) => [
    toBytes(name),
    Array.isArray(value) ? value.map(toBytes) : toBytes(value ?? ''),
  ]);
}

function toBytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
