import type { IncomingMessage } from 'node:http';
import type { Http2ServerRequest } from 'node:http2';
import type { BodyHash, RequestBody } from '../idempotency/body-hash.ts';
import { observeChunks } from './node-patches.ts';

/**
 * The body of a request of node:http. It is hashed while Node hands it to the stream, so that the
 * handler reads it as it would without a guard, and no part of it is held in memory.
 */
export class NodeBody implements RequestBody {
  readonly #message: IncomingMessage;
  readonly #parsed: () => unknown;

  /** @param parsed gives the body as an earlier parser left it, if one did */
  constructor(message: IncomingMessage, parsed: () => unknown) {
    this.#message = message;
    this.#parsed = parsed;
  }

  observe(hash: BodyHash): void {
    const message = this.#message;
    if (message.readableDidRead) {
      this.#observeParsed(hash);
      return;
    }
    if (message.readableLength > 0) {
      const chunk: Buffer | string = message.read();
      hash.update(bytesOf(chunk));
      message.unshift(chunk);
    }
    if (message.complete && !isAbortedStream(message)) hash.end();
    observeChunks(message, (chunk, encoding) => {
      if (chunk !== null) hash.update(bytesOf(chunk, encoding));
      else if (!isAbortedStream(message)) hash.end();
    });
  }

  read(hash: BodyHash): Promise<void> {
    const message = this.#message;
    this.observe(hash);
    return new Promise((resolve) => {
      const done = () => {
        message.off('data', onData).off('end', done).off('close', done);
        resolve();
      };
      const onData = () => {
        if (!hash.needsMore) done();
      };
      if (!hash.needsMore || message.readableEnded || message.destroyed) {
        resolve();
        return;
      }
      // The rest of the body is read and dropped, so that the connection can be used again.
      message.on('data', onData).once('end', done).once('close', done).once('error', done);
    });
  }

  isCutOff(hash: BodyHash): boolean {
    return isCutOff(this.#message, hash);
  }

  #observeParsed(hash: BodyHash): void {
    const parsed = this.#parsed();
    if (parsed === undefined) return;
    hash.update(bytesOf(parsed));
    hash.end();
  }
}

/**
 * Whether a stream of HTTP/2 was aborted. Node ends the body of such a request as if it had arrived
 * whole.
 */
export function isAbortedStream(message: IncomingMessage): boolean {
  return (message as { stream?: Http2ServerRequest['stream'] | undefined }).stream?.aborted === true;
}

/** Whether the client of a request went away before its body could be read to the end. */
export function isCutOff(message: IncomingMessage, hash: BodyHash): boolean {
  if (message.httpVersionMajor >= 2) return isAbortedStream(message) && !hash.isComplete;
  // Node destroys the request, so that what has arrived and was not read yet is lost, too.
  return message.destroyed && !message.readableEnded && announcesBody(message);
}

function announcesBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

function bytesOf(value: unknown, encoding?: BufferEncoding): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return Buffer.from(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''), encoding);
}
