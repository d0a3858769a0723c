import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock } from '../../internal/clock.ts';
import { CallerWait } from '../../policies/caller-wait.ts';
import { Rejection } from '../problem.ts';

/** The longest body that is read before the request is sent, so that it can be sent again. */
const MAX_REPLAYABLE = 65_536;
/** Bytes of a body that are read for nothing, so that its connection can be used again. */
const MAX_DISCARDED = 1_048_576;
/** Milliseconds for which a client whose body is streamed may send nothing while more is asked for. */
const MAX_SILENCE = 30_000;

/** Whether a body is short enough to be read before the request is sent. */
export function isReplayable(contentLength: number | undefined): contentLength is number {
  return contentLength !== undefined && contentLength <= MAX_REPLAYABLE;
}

/** Reads a short body whole. Nothing is called if the client leaves before its end. */
export function readWhole(request: IncomingMessage, onEnd: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => void chunks.push(chunk));
  request.on('end', () => onEnd(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)));
}

/**
 * The body of a request as it goes on to a service, at the pace of the service. Whoever destroys it
 * leaves the connection of the client alone, over which a response may still have to go.
 */
export class Upload extends Readable {
  readonly #request: IncomingMessage;
  readonly #maxSize: number;
  readonly #reject: (rejection: Rejection) => void;
  /** Tells while the client is to send more. */
  readonly wait: CallerWait;
  readonly #silence: NodeJS.Timeout;
  #size = 0;

  /**
   * @param clock the clock of the call
   * @param reject is called if more than `maxSize` bytes come, or none for too long
   */
  constructor(
    request: IncomingMessage,
    maxSize: number,
    clock: Clock,
    reject: (rejection: Rejection) => void,
  ) {
    super({ highWaterMark: request.readableHighWaterMark });
    this.#request = request;
    this.#maxSize = maxSize;
    this.wait = new CallerWait(clock);
    this.#reject = reject;
    this.#silence = setTimeout(this.#onSilence, MAX_SILENCE);
    request.on('data', this.#onData).on('end', this.#onEnd);
    request.pause();
  }

  override _read(): void {
    this.#silence.refresh();
    this.wait.begin();
    this.#request.resume();
  }

  override _destroy(_error: Error | null, callback: (error?: Error | null) => void): void {
    this.#request.off('data', this.#onData).off('end', this.#onEnd);
    clearTimeout(this.#silence);
    // undici destroys the body of a request that was given up, and tells the reason elsewhere.
    callback(null);
  }

  readonly #onData = (chunk: Buffer) => {
    this.wait.end();
    this.#size += chunk.length;
    if (this.#size > this.#maxSize) this.#reject(createTooLarge(this.#maxSize));
    else if (!this.push(chunk)) this.#request.pause();
  };

  readonly #onEnd = () => {
    this.wait.end();
    this.push(null);
  };

  /** Rejects a silent client; one that waits for the service is none. */
  readonly #onSilence = () => {
    if (this.wait.active) this.#reject(TOO_SLOW);
  };
}

/** Whether the rest of a body is short enough to be read for nothing. */
export function isWorthDiscarding(contentLength: number | undefined): boolean {
  return contentLength === undefined || contentLength <= MAX_DISCARDED;
}

/** The latest request of a connection that got its response before its end. */
const discarded = new WeakMap<object, IncomingMessage>();

/** Whether what comes from a connection belongs to a request that has its response. */
export function isDiscarding(socket: object): boolean {
  return discarded.get(socket)?.complete === false;
}

/**
 * Reads the rest of a body for nothing, so that the next request of the connection can be read. One
 * that does not end soon costs the client its connection.
 */
export function discardRest(request: IncomingMessage): void {
  if (request.readableEnded || request.destroyed) return;
  discarded.set(request.socket, request);
  let size = 0;
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_DISCARDED) request.destroy();
  });
  request.resume();
}

/** Milliseconds for which a connection stays open after its last response, whose client still sends. */
const LINGER_TIMEOUT = 1_000;

/**
 * Ends the last response of a connection, whose client is still sending its body, once the client has
 * had the time to read it: the bytes that nobody has read when a connection closes make TCP reset it,
 * and the response may be lost with it (RFC 9112, section 9.6).
 */
export function endLate(request: IncomingMessage, response: ServerResponse, body: string | Uint8Array): void {
  response.write(body);
  const end = () => void response.end();
  const timer = setTimeout(end, LINGER_TIMEOUT);
  response.once('close', () => clearTimeout(timer));
  request.once('end', end);
}

const TOO_SLOW = new Rejection(408, 'request-timeout', 'The body of the request did not go on in time.');

/** Creates the rejection of a body that is longer than its route allows. */
export function createTooLarge(maxSize: number): Rejection {
  return new Rejection(413, 'body-too-large', `The body is longer than ${maxSize} bytes.`);
}
