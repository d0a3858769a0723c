import type { IncomingMessage } from 'node:http';
import type { BodyHash, RequestBody } from '../idempotency/body-hash.ts';
import { isAbortedStream, isCutOff } from './node-body.ts';

/** The part of Hono's request that a guard needs. */
export interface WebRequestHolder {
  raw: Request;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** The body of a WHATWG Request. It is hashed while it is read. */
export class WebBody implements RequestBody {
  readonly #holder: WebRequestHolder;
  readonly #incoming: IncomingMessage | undefined;
  #failed = false;

  /** @param incoming the request of node:http that the Request was made of, if it was */
  constructor(holder: WebRequestHolder, incoming: IncomingMessage | undefined) {
    this.#holder = holder;
    this.#incoming = incoming;
  }

  async observe(hash: BodyHash): Promise<void> {
    const { raw } = this.#holder;
    if (raw.bodyUsed) return this.#observeRead(hash);
    if (raw.body === null) {
      hash.end();
      return;
    }
    const body = this.#observeStream(raw.body, hash);
    this.#holder.raw = new Request(raw, { body, duplex: 'half' } as RequestInit);
  }

  async read(hash: BodyHash): Promise<void> {
    const { raw } = this.#holder;
    if (raw.bodyUsed) return this.#observeRead(hash);
    if (raw.body === null) {
      hash.end();
      return;
    }
    const reader = raw.body.getReader();
    try {
      while (hash.needsMore) {
        const { done, value } = await reader.read();
        if (done) hash.end();
        else hash.update(value);
      }
    } catch {
      // The client has disconnected: whether this was the same request matters to nobody.
    }
  }

  isCutOff(hash: BodyHash): boolean {
    return this.#failed || (this.#incoming !== undefined && isCutOff(this.#incoming, hash));
  }

  /** Hashes a body that was read through Hono, which keeps it. Any other read body is unknown. */
  async #observeRead(hash: BodyHash): Promise<void> {
    try {
      hash.update(new Uint8Array(await this.#holder.arrayBuffer()));
      hash.end();
    } catch {}
  }

  #observeStream(body: ReadableStream<Uint8Array>, hash: BodyHash): ReadableStream<Uint8Array> {
    const reader = body.getReader();
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const { done, value } = await this.#readChunk(reader);
        if (!done) {
          hash.update(value);
          controller.enqueue(value);
          return;
        }
        if (this.#incoming === undefined || !isAbortedStream(this.#incoming)) hash.end();
        controller.close();
      },
      cancel: (reason) => reader.cancel(reason),
    });
  }

  async #readChunk(reader: ReadableStreamDefaultReader<Uint8Array>) {
    try {
      return await reader.read();
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }
}
