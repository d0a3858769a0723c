import { randomUUID } from 'node:crypto';

type Part = Buffer | Blob;

/**
 * Encodes a FormData, of Node's own undici or any other, as the body of a request. The bytes are
 * made anew each time the body is sent.
 *
 * Source: HTML standard, 'multipart/form-data encoding algorithm'; RFC 7578.
 */
export class FormBody implements AsyncIterable<Uint8Array> {
  readonly replayable = true;
  /** The content type that names the boundary. */
  readonly type: string;
  /** The length of the body in bytes. */
  readonly length: number;
  readonly #parts: readonly Part[];

  constructor(form: FormData) {
    const boundary = `----holdfast-form-${randomUUID()}`;
    const parts: Part[] = [];
    for (const [name, value] of form) {
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(toCrlf(name))}"`;
      if (typeof value === 'string') {
        parts.push(Buffer.from(`${head}\r\n\r\n${toCrlf(value)}\r\n`));
      } else {
        const file = `; filename="${escapeName(value.name)}"\r\nContent-Type: ${value.type || 'application/octet-stream'}`;
        parts.push(Buffer.from(`${head}${file}\r\n\r\n`), value, Buffer.from('\r\n'));
      }
    }
    parts.push(Buffer.from(`--${boundary}--\r\n`));
    this.type = `multipart/form-data; boundary=${boundary}`;
    this.length = parts.reduce((sum, part) => sum + (part instanceof Blob ? part.size : part.length), 0);
    this.#parts = parts;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (const part of this.#parts) {
      if (part instanceof Blob) yield* part.stream();
      else yield part;
    }
  }
}

/** Writes line breaks as CRLF, as the encoding algorithm does. */
function toCrlf(text: string): string {
  return text.replace(/\r\n?|\n/g, '\r\n');
}

function escapeName(name: string): string {
  return name.replace(/\n/g, '%0A').replace(/\r/g, '%0D').replace(/"/g, '%22');
}
