import type { BodyHash, RequestBody } from '../idempotency/body-hash.ts';

/** The part of Hono's request that a guard needs. */
export interface WebRequestHolder {
  raw: Request;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** The body of a WHATWG Request. It is hashed while it is read. */
export class WebBody implements RequestBody {
  readonly #holder: WebRequestHolder;

  constructor(holder: WebRequestHolder) {
    this.#holder = holder;
  }

  async observe(hash: BodyHash): Promise<void> {
    const { raw } = this.#holder;
    if (raw.bodyUsed) return this.#observeRead(hash);
    if (raw.body === null) {
      hash.end();
      return;
    }
    const body = observeStream(raw.body, hash);
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

  /** Hashes a body that was read through Hono, which keeps it. Any other read body is unknown. */
  async #observeRead(hash: BodyHash): Promise<void> {
    try {
      hash.update(new Uint8Array(await this.#holder.arrayBuffer()));
      hash.end();
    } catch {}
  }
}

function observeStream(body: ReadableStream<Uint8Array>, hash: BodyHash): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) {
        hash.end();
        controller.close();
      } else {
        hash.update(value);
        controller.enqueue(value);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
