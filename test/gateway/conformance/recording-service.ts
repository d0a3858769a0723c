import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { mask } from './row.ts';

/** Is sent back by the service: bytes, or a function that writes them. */
export type Reply = string | ((socket: Socket) => void);

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

/**
 * A service that keeps the bytes of its connections as they come. It responds
 * to whatever a parser takes for a request once that is whole, so a smuggled one shows up as well.
 */
export class RecordingService {
  reply: Reply = OK;
  readonly #server: Server;
  readonly #connections = new Map<Socket, string>();

  private constructor() {
    this.#server = createServer((request) => this.#respond(request));
    this.#server.on('connection', (socket) => {
      this.#connections.set(
        socket.on('error', () => {}),
        '',
      );
      socket.prependListener('data', (chunk: Buffer) => {
        this.#connections.set(socket, this.#connections.get(socket) + chunk.toString('latin1'));
      });
    });
  }

  static async start(): Promise<RecordingService> {
    const service = new RecordingService();
    await new Promise<void>((resolve) => service.#server.listen(0, '127.0.0.1', resolve));
    return service;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The bytes of each connection since the last reset, in Latin-1; what differs is masked. */
  get received(): string[] {
    return [...this.#connections.values()].filter((bytes) => bytes !== '').map(mask);
  }

  reset(reply: Reply = OK): void {
    for (const socket of this.#connections.keys()) {
      if (socket.destroyed) this.#connections.delete(socket);
      else this.#connections.set(socket, '');
    }
    this.reply = reply;
  }

  async close(): Promise<void> {
    for (const socket of this.#connections.keys()) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #respond(request: IncomingMessage): void {
    const { socket } = request;
    request.resume().on('error', () => {});
    request.on('end', () => {
      if (typeof this.reply === 'string') socket.write(this.reply, 'latin1');
      else this.reply(socket);
    });
  }
}
