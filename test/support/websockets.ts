import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerOptions } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

export const OPCODES = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** Gives the `Sec-WebSocket-Accept` for a key. */
export function acceptFor(key: string): string {
  return createHash('sha1')
    .update(key + GUID)
    .digest('base64');
}

export interface Frame {
  readonly opcode: number;
  readonly masked: boolean;
  /** The first byte as it came, with the bits of extensions. */
  readonly bits: number;
  readonly payload: Buffer;
}

/** Writes a frame of up to 65,535 bytes; with a mask as a client does. */
export function frame(opcode: number, payload: Buffer | string = '', mask?: Buffer, bits = 0x80): Buffer {
  const body = Buffer.from(payload as string);
  const length =
    body.length < 126 ? Buffer.from([body.length]) : Buffer.from([126, body.length >> 8, body.length & 255]);
  length[0]! |= mask === undefined ? 0 : 0x80;
  if (mask !== undefined) for (let index = 0; index < body.length; index++) body[index]! ^= mask[index % 4]!;
  return Buffer.concat([Buffer.from([bits | opcode]), length, mask ?? Buffer.alloc(0), body]);
}

/** Reads frames from bytes as they come. */
export class FrameReader {
  readonly frames: Frame[] = [];
  #rest: Buffer = Buffer.alloc(0);

  /** The number of bytes after the last whole frame. */
  get rest(): number {
    return this.#rest.length;
  }

  push(chunk: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const read: Frame[] = [];
    for (let next = this.#next(); next !== undefined; next = this.#next()) read.push(next);
    this.frames.push(...read);
    return read;
  }

  #next(): Frame | undefined {
    const bytes = this.#rest;
    if (bytes.length < 2) return undefined;
    const masked = (bytes[1]! & 0x80) !== 0;
    let length = bytes[1]! & 0x7f;
    let start = 2;
    if (length === 126) {
      if (bytes.length < 4) return undefined;
      length = bytes.readUInt16BE(2);
      start = 4;
    } else if (length === 127) {
      if (bytes.length < 10) return undefined;
      length = Number(bytes.readBigUInt64BE(2));
      start = 10;
    }
    const mask = masked ? bytes.subarray(start, start + 4) : undefined;
    if (masked) start += 4;
    if (bytes.length < start + length) return undefined;
    const payload = Buffer.from(bytes.subarray(start, start + length));
    if (mask !== undefined) for (let index = 0; index < length; index++) payload[index]! ^= mask[index % 4]!;
    this.#rest = bytes.subarray(start + length);
    return { opcode: bytes[0]! & 0x0f, bits: bytes[0]! & 0xf0, masked, payload };
  }
}

/** A WebSocket as a service has it. */
export class ServedSocket {
  readonly reader = new FrameReader();
  readonly request: IncomingMessage;
  readonly socket: Socket;

  constructor(request: IncomingMessage, socket: Socket) {
    this.request = request;
    this.socket = socket;
  }

  get frames(): readonly Frame[] {
    return this.reader.frames;
  }

  send(text: string): void {
    this.socket.write(frame(OPCODES.text, text));
  }

  close(code: number): void {
    this.socket.write(frame(OPCODES.close, Buffer.from([code >> 8, code & 255])));
  }

  get closeCode(): number | undefined {
    const closing = this.frames.find(({ opcode }) => opcode === OPCODES.close);
    return closing?.payload.readUInt16BE(0);
  }
}

export interface WebSocketService {
  readonly origin: string;
  readonly port: number;
  readonly sockets: ServedSocket[];
  /** The requests for an upgrade, in order, whatever became of them. */
  readonly requests: IncomingMessage[];
  stop(): Promise<void>;
}

export interface WebSocketServiceOptions {
  /** Takes the place of the handshake. */
  onUpgrade?(request: IncomingMessage, socket: Socket, head: Buffer): void;
  /** Headers of the 101. */
  headers?: Readonly<Record<string, string>>;
  /** Is told of each frame. Default: texts are echoed, pings and closes responded to. */
  onFrame?(served: ServedSocket, received: Frame): void;
  onOpen?(served: ServedSocket): void;
  tls?: { key: string; cert: string };
}

/** Starts a service that takes WebSockets; it ends with the test, and its connections too. */
export async function startWebSocketService(
  options: WebSocketServiceOptions = {},
): Promise<WebSocketService> {
  const { headers = {}, onFrame = echo, onOpen, tls } = options;
  const sockets: ServedSocket[] = [];
  const requests: IncomingMessage[] = [];
  const all = new Set<Socket>();
  const server = tls === undefined ? createServer({} as ServerOptions) : createTlsServer(tls);
  server.on('connection', (socket: Socket) => void all.add(socket.on('error', () => {})));
  server.on('request', (_request, response) => response.end('plain'));
  server.on('upgrade', (request: IncomingMessage, duplex, head: Buffer) => {
    const socket = duplex as Socket;
    socket.on('error', () => {});
    requests.push(request);
    if (options.onUpgrade !== undefined) {
      options.onUpgrade(request, socket, head);
      return;
    }
    const served = new ServedSocket(request, socket);
    acceptUpgrade(request, socket, headers);
    sockets.push(served);
    const take = (chunk: Buffer) => {
      for (const received of served.reader.push(chunk)) onFrame(served, received);
    };
    take(head);
    socket.on('data', take).on('end', () => socket.end());
    onOpen?.(served);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of all) socket.destroy();
    });
  onTestFinished(stop);
  const protocol = tls === undefined ? 'http' : 'https';
  return { origin: `${protocol}://127.0.0.1:${port}`, port, sockets, requests, stop };
}

/** Sends the 101 for a request. */
export function acceptUpgrade(
  request: IncomingMessage,
  socket: Socket,
  headers: Readonly<Record<string, string>> = {},
): void {
  const accept = acceptFor(request.headers['sec-websocket-key'] ?? '');
  const all = { upgrade: 'websocket', connection: 'Upgrade', 'sec-websocket-accept': accept, ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
}

function echo(served: ServedSocket, { opcode, payload }: Frame): void {
  if (opcode === OPCODES.text || opcode === OPCODES.binary) served.socket.write(frame(opcode, payload));
  if (opcode === OPCODES.ping) served.socket.write(frame(OPCODES.pong, payload));
  if (opcode === OPCODES.close) served.socket.end(frame(OPCODES.close, payload));
}

export const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';

/** The head of a request for a WebSocket. A header that is undefined is left out. */
export function handshakeHead(
  path: string,
  headers: Readonly<Record<string, string | undefined>> = {},
  requestLine = `GET ${path} HTTP/1.1`,
): string {
  const all: Record<string, string | undefined> = {
    host: 'gateway.example',
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-key': KEY,
    'sec-websocket-version': '13',
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}: ${value}\r\n`],
  );
  return `${requestLine}\r\n${lines.join('')}\r\n`;
}

/** A client that speaks to a server byte by byte. */
export class RawWebSocket {
  readonly socket: Socket;
  readonly reader = new FrameReader();
  /** Resolves once the head of the response is whole, or there will be none. */
  readonly responded: Promise<void>;
  #head = '';
  #respond!: () => void;
  #body = Buffer.alloc(0);
  #ended = false;

  constructor(port: number) {
    this.responded = new Promise((resolve) => {
      this.#respond = resolve;
    });
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    this.socket.on('close', this.#respond);
    this.socket.on('error', () => {}).on('data', (chunk: Buffer) => this.#take(chunk));
    this.socket.on('end', () => {
      this.#ended = true;
      this.#respond();
    });
    onTestFinished(() => void this.socket.destroy());
  }

  /** The head of the response, once it is whole. */
  get head(): string {
    return this.#head;
  }

  get status(): number {
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(this.#head)?.[1]);
  }

  get body(): string {
    return this.#body.toString();
  }

  get frames(): readonly Frame[] {
    return this.reader.frames;
  }

  /** Whether the server has ended its side, or the connection has broken. */
  get ended(): boolean {
    return this.#ended || this.socket.destroyed;
  }

  write(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  #take(chunk: Buffer): void {
    if (this.status === 101) {
      this.reader.push(chunk);
      return;
    }
    this.#body = Buffer.concat([this.#body, chunk]);
    if (this.#head !== '') return;
    const end = this.#body.indexOf('\r\n\r\n');
    if (end === -1) return;
    this.#head = this.#body.subarray(0, end + 4).toString('latin1');
    this.#body = this.#body.subarray(end + 4);
    if (this.status === 101) this.reader.push(this.#body);
    this.#respond();
  }
}
