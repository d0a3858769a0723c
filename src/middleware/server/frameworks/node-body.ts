import type { IncomingMessage } from 'node:http';
import type { BodyHash, RequestBody } from '../idempotency/body-hash.ts';

/**
 * The body of a request of node:http. It is looked at while Node hands it to the stream, so that whoever reads it
 * finds it as it would be without, and nothing is held in memory.
 */
export class NodeBody implements RequestBody {
  readonly #message: IncomingMessage;
  readonly #parsed: () => unknown;

  /** @param parsed what a parser that came first made of the body */
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
    if (message.complete) hash.end();
    const { push } = message;
    message.push = (chunk: Buffer | string | null, encoding?: BufferEncoding) => {
      if (chunk === null) hash.end();
      else hash.update(bytesOf(chunk, encoding));
      return push.call(message, chunk, encoding);
    };
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
        if (!hash.wantsMore) done();
      };
      if (!hash.wantsMore || message.readableEnded || message.destroyed) {
        resolve();
        return;
      }
      // The rest, if any, flows to nowhere, so that the connection can be used again.
      message.on('data', onData).once('end', done).once('close', done).once('error', done);
    });
  }

  #observeParsed(hash: BodyHash): void {
    const parsed = this.#parsed();
    if (parsed === undefined) return;
    hash.update(bytesOf(parsed));
    hash.end();
  }
}

function bytesOf(value: unknown, encoding?: BufferEncoding): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return Buffer.from(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''), encoding);
}
