/**
 * The buckets over which new keys are spread. The number is kept in Redis: what is there keeps its own.
 */
export const BUCKETS = 16;

/** Names the keys of sagas. What is in the slot of a bucket is named by its scripts: see saga-lua.ts. */
export class SagaKeys {
  /** A hash: the number of buckets. */
  readonly meta: string;
  readonly #prefix: string;

  constructor(keyPrefix: string) {
    this.meta = `${keyPrefix}:sagas:meta`;
    this.#prefix = `${keyPrefix}:sagas`;
  }

  /** Names a bucket: all names of its keys begin with this, and have its hash tag. */
  bucket(number: number): string {
    return `${this.#prefix}:{sagas:${number}}`;
  }
}
