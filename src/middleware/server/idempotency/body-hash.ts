import { createHash } from 'node:crypto';

/** A fingerprint tells whether another request is the same. */
export interface Fingerprint {
  /** The SHA-256 of the method, the target and as much of the body as was read. */
  readonly digest: string;
  /** The number of bytes of the body in the digest. */
  readonly bytes: number;
  /** Whether those bytes are the whole body. */
  readonly complete: boolean;
}

/** Takes the fingerprint of a request while its body is read. */
export class BodyHash {
  readonly #hash = createHash('sha256');
  readonly #expected: Fingerprint | undefined;
  #bytes = 0;
  #complete = false;

  /**
   * @param expected the fingerprint to compare with: no more of the body is needed than that one
   *   contains
   */
  constructor(method: string, target: string, expected?: Fingerprint) {
    this.#hash.update(JSON.stringify([method, target]));
    this.#expected = expected;
  }

  update(chunk: Uint8Array): void {
    const needed = this.#expected === undefined ? chunk.length : this.#expected.bytes - this.#bytes;
    this.#hash.update(chunk.subarray(0, Math.max(0, needed)));
    this.#bytes += chunk.length;
  }

  /** Records that the body has ended. */
  end(): void {
    this.#complete = true;
  }

  /** Whether the whole body is in the hash. */
  get isComplete(): boolean {
    return this.#complete;
  }

  /** Whether more of the body could change the result. */
  get needsMore(): boolean {
    if (this.#complete) return false;
    if (this.#expected === undefined) return true;
    const { bytes, complete } = this.#expected;
    return complete ? this.#bytes <= bytes : this.#bytes < bytes;
  }

  fingerprint(): Fingerprint {
    const digest = this.#hash.copy().digest('base64url');
    return { digest, bytes: this.#bytes, complete: this.#complete };
  }

  /** Whether it is the same request, as far as the body of the expected request was read. */
  matches(): boolean {
    const { digest, bytes, complete } = this.#expected!;
    const own = this.fingerprint();
    if (own.digest !== digest) return false;
    return complete ? own.complete && own.bytes === bytes : own.bytes >= bytes;
  }
}

/** The body of a request. It belongs to the handler. */
export interface RequestBody {
  /**
   * Adds the chunks to the hash that the handler reads from now on, and the body that was read
   * already, as far as that can be known.
   */
  observe(hash: BodyHash): void | Promise<void>;
  /** Reads the body in place of a handler, for as long as the hash needs more. */
  read(hash: BodyHash): Promise<void>;
  /**
   * Whether the client went away before the handler could read the body that the hash observes to
   * its end.
   */
  isCutOff(hash: BodyHash): boolean;
}
