import { connect, type Socket } from 'node:net';

/** Types of frames, their flags and error codes: RFC 9113, sections 6 and 7. */
export const DATA = 0;
export const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
export const CONTINUATION = 9;
export const END_STREAM = 1;
export const END_HEADERS = 4;

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const ERRORS = ['NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR'];
const NAMES: Readonly<Record<number, string>> = {
  5: 'STREAM_CLOSED',
  6: 'FRAME_SIZE_ERROR',
  7: 'REFUSED_STREAM',
  8: 'CANCEL',
  9: 'COMPRESSION_ERROR',
  11: 'ENHANCE_YOUR_CALM',
};

export type Field = readonly [name: string, value: string];

/** Writes a frame. */
export function frame(type: number, flags: number, stream: number, payload: Buffer | string = ''): Buffer {
  const body = Buffer.from(payload as string, 'latin1');
  const head = Buffer.alloc(9);
  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, body]);
}

/** Writes fields as HPACK literals without Huffman codes, so that any byte can be in them: RFC 7541, 6.2.2. */
export function encode(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.of(0), ...[name, value].map(literal)]));
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  if (bytes.length < 127) return Buffer.concat([Buffer.of(bytes.length), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
  return Buffer.concat([Buffer.of(...length, rest), bytes]);
}

/** A client of HTTP/2 that sends frames as they are given, and tells what became of each stream. */
export class FrameClient {
  /** For each stream its status, or the name of the error with which it was reset. */
  readonly results = new Map<number, number | string>();
  /** The name of the error with which the connection was ended. */
  goneAway: string | undefined = undefined;
  readonly #socket: Socket;
  #received = Buffer.alloc(0);
  #hasSettings = false;
  #onChange = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket.on('error', () => {});
    socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#read();
      this.#onChange();
    });
    socket.on('close', () => {
      this.goneAway ??= 'closed';
      this.#onChange();
    });
  }

  static async open(url: string): Promise<FrameClient> {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const client = new FrameClient(socket);
    socket.write(Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0)]));
    await client.#until(() => client.#hasSettings);
    return client;
  }

  send(...frames: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(frames));
  }

  /** Resolves with the status of a stream, or the name of the error that ended it or the connection. */
  async resultOf(stream: number): Promise<number | string | undefined> {
    const result = () => this.results.get(stream) ?? this.goneAway;
    await this.#until(() => result() !== undefined);
    return result();
  }

  close(): void {
    this.#socket.destroy();
  }

  #until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, 5_000);
      this.#onChange = () => {
        if (!condition()) return;
        clearTimeout(timer);
        resolve();
      };
      this.#onChange();
    });
  }

  #read(): void {
    while (this.#received.length >= 9) {
      const length = this.#received.readUIntBE(0, 3);
      if (this.#received.length < 9 + length) return;
      const type = this.#received[3]!;
      const flags = this.#received[4]!;
      const stream = this.#received.readUInt32BE(5);
      const payload = this.#received.subarray(9, 9 + length);
      this.#received = this.#received.subarray(9 + length);
      this.#take(type, flags, stream, payload);
    }
  }

  #take(type: number, flags: number, stream: number, payload: Buffer): void {
    const acknowledged = (flags & 1) === 1;
    if (type === SETTINGS && !acknowledged) {
      this.send(frame(SETTINGS, 1, 0));
      this.#hasSettings = true;
    }
    if (type === PING && !acknowledged) this.send(frame(PING, 1, 0, payload));
    if (type === GOAWAY) this.goneAway ??= errorName(payload.readUInt32BE(4));
    if (type === RST_STREAM && !this.results.has(stream))
      this.results.set(stream, errorName(payload.readUInt32BE(0)));
    const status = type === HEADERS ? readStatus(payload) : 100;
    if (status >= 200) this.results.set(stream, status);
  }
}

function errorName(code: number): string {
  return ERRORS[code] ?? NAMES[code] ?? String(code);
}

/** The statuses that the static table of HPACK holds, from index 8 on. */
const INDEXED = [200, 204, 206, 304, 400, 404, 500];
/** The Huffman codes of the digits, of which the first three have 5 bits and the others 6: RFC 7541, appendix B. */
const DIGITS = [
  '00000',
  '00001',
  '00010',
  ...[25, 26, 27, 28, 29, 30, 31].map((code) => `0${code.toString(2)}`),
];

/**
 * Reads the status, which comes first: by its index, or as a literal. A server that knows a status from an
 * earlier response of the connection may name it by another index; then this throws.
 */
function readStatus(block: Buffer): number {
  let start = 0;
  while ((block[start]! & 0xe0) === 0x20) start++;
  const first = block[start]!;
  if (first & 0x80) {
    const status = INDEXED[(first & 0x7f) - 8];
    if (status === undefined) throw new Error(`an index of HPACK that is not of its static table: ${first}`);
    return status;
  }
  const length = block[start + 1]! & 0x7f;
  const bytes = block.subarray(start + 2, start + 2 + length);
  if ((block[start + 1]! & 0x80) === 0) return Number(bytes.toString());
  let bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  let text = '';
  for (let digit = 0; digit !== -1 && text.length < 3; ) {
    digit = DIGITS.findIndex((code) => bits.startsWith(code));
    text += digit;
    bits = bits.slice(DIGITS[digit]?.length);
  }
  return Number(text);
}
