import type { BodyHash, RequestBody } from '../idempotency/body-hash.ts';

/** What is needed of a request of Hono. */
export interface WebRequestHolder {
  raw: Request;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** The body of a WHATWG Request, which is looked at while it is read. */
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
    const body = observed(raw.body, hash);
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
      while (hash.wantsMore) {
        const { done, value } = await reader.read();
        if (done) hash.end();
        else hash.update(value);
      }
    } catch {
      // The client has gone: there is nobody to whom it matters whether this was the same request.
    }
  }

  /** Hono keeps what was read through it. What was read otherwise cannot be known. */
  async #observeRead(hash: BodyHash): Promise<void> {
    try {
      hash.update(new Uint8Array(await this.#holder.arrayBuffer()));
      hash.end();
    } catch {}
  }
}

function observed(body: ReadableStream<Uint8Array>, hash: BodyHash): ReadableStream<Uint8Array> {
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
