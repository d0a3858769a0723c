import { copyJson } from '../events/json-data.ts';

/** Makes text of what a saga keeps, and back: to encrypt it, for one. */
export interface Serialize {
  stringify(value: unknown): string;
  parse(text: string): unknown;
}

/** Finds a zero character, or half of a surrogate pair: not every store keeps them. */
const UNKEPT = /[\0\p{Surrogate}]/u;

/** The most bytes of an input or a result, in UTF-8. */
const MAX_SIZE = 256 * 1_024;

/** Writes and reads inputs and results. */
export class Serializer {
  readonly #serialize: Serialize;

  constructor(serialize: Serialize = JSON) {
    this.#serialize = serialize;
  }

  /**
   * @param name names the value in errors
   * @throws TypeError if JSON does not keep the value, or no store its text; RangeError if it is too large
   */
  write(value: unknown, name: string): string {
    const text = this.#serialize.stringify(copyJson(value, name));
    if (typeof text !== 'string') throw new TypeError(`'serialize' made no text of ${name}`);
    if (UNKEPT.test(text)) {
      const why = 'a zero character, or half of a surrogate pair';
      throw new TypeError(`'serialize' made a text of ${name} with ${why}, which not every store keeps`);
    }
    const size = Buffer.byteLength(text);
    if (size <= MAX_SIZE) return text;
    throw new RangeError(
      `${name} has ${size} bytes, and a saga keeps at most ${MAX_SIZE}: keep a reference to it`,
    );
  }

  /** Writes a result, which may be undefined. */
  writeResult(value: unknown, name: string): string | undefined {
    return value === undefined ? undefined : this.write(value, name);
  }

  read(text: string): unknown {
    return this.#serialize.parse(text);
  }

  readResult(text: string | undefined): unknown {
    return text === undefined ? undefined : this.#serialize.parse(text);
  }
}
