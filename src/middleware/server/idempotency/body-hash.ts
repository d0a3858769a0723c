import { createHash } from 'node:crypto';

/** What is known of a request: enough to tell whether another is the same. */
export interface Fingerprint {
  /** SHA-256 of the method, the target and as much of the body as was read. */
  readonly digest: string;
  /** Bytes of the body in it. */
  readonly bytes: number;
  /** Whether that is the whole body. */
  readonly complete: boolean;
}

/** Takes the fingerprint of a request while its body goes by. */
export class BodyHash {
  readonly #hash = createHash('sha256');
  readonly #expected: Fingerprint | undefined;
  #bytes = 0;
  #complete = false;

  /** @param expected the fingerprint that it is to be compared with: no more of the body is needed than is in it. */
  constructor(method: string, target: string, expected?: Fingerprint) {
    this.#hash.update(JSON.stringify([method, target]));
    this.#expected = expected;
  }

  update(chunk: Uint8Array): void {
    const wanted = this.#expected === undefined ? chunk.length : this.#expected.bytes - this.#bytes;
    this.#hash.update(chunk.subarray(0, Math.max(0, wanted)));
    this.#bytes += chunk.length;
  }

  /** The body is over. */
  end(): void {
    this.#complete = true;
  }

  /** Whether more of the body could change what is known. */
  get wantsMore(): boolean {
    if (this.#complete) return false;
    if (this.#expected === undefined) return true;
    const { bytes, complete } = this.#expected;
    return complete ? this.#bytes <= bytes : this.#bytes < bytes;
  }

  fingerprint(): Fingerprint {
    const digest = this.#hash.copy().digest('base64url');
    return { digest, bytes: this.#bytes, complete: this.#complete };
  }

  /** Whether it is the same request, as far as the body of the expected one was read. */
  matches(): boolean {
    const { digest, bytes, complete } = this.#expected!;
    const own = this.fingerprint();
    if (own.digest !== digest) return false;
    return complete ? own.complete && own.bytes === bytes : own.bytes >= bytes;
  }
}

/** The body of a request, which belongs to the handler. */
export interface RequestBody {
  /** Takes note of what the handler reads from now on, and of what was read already as far as that can be known. */
  observe(hash: BodyHash): void | Promise<void>;
  /** Reads it in place of a handler, for as long as the hash wants more. */
  read(hash: BodyHash): Promise<void>;
}
