import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { expect, onTestFinished, vi } from 'vitest';

/** The bytes that a service sends once it has the head of a request, or a function that writes them. */
export type UpstreamReply = string | ((socket: Socket) => void);

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

/**
 * A service on bare sockets. It keeps the bytes that it receives as they came, so that a test can tell what
 * another parser would read in them.
 */
export class RecordingUpstream {
  /** Is sent for each head of a request. */
  reply: UpstreamReply = OK;
  readonly #server: Server;
  readonly #received: { socket: Socket; bytes: string }[] = [];

  constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket) => this.#onConnection(socket));
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** All bytes of all connections, in Latin-1. */
  get bytes(): string {
    return this.#received.map(({ bytes }) => bytes).join('');
  }

  /** The heads of requests that a simple parser finds: whatever it would take for one counts. */
  get requestLines(): string[] {
    return this.bytes.match(/[A-Z]+ \S+ HTTP\/1\.[01](?=\r\n)/g) ?? [];
  }

  /** The connections that are open. */
  get connections(): number {
    return this.#received.filter(({ socket }) => !socket.destroyed).length;
  }

  /** Resolves once the bytes contain the text. */
  async waitFor(text: string): Promise<void> {
    await vi.waitFor(() => expect(this.bytes).toContain(text), { interval: 5, timeout: 5_000 });
  }

  destroyAll(): void {
    for (const { socket } of this.#received) socket.destroy();
  }

  #onConnection(socket: Socket): void {
    const connection = { socket, bytes: '' };
    this.#received.push(connection);
    let heads = 0;
    socket.setEncoding('latin1').on('error', () => {});
    socket.on('data', (chunk: string) => {
      connection.bytes += chunk;
      const found = connection.bytes.match(/[A-Z]+ \S+ HTTP\/1\.[01]\r\n(?:[^\r\n]+\r\n)*\r\n/g) ?? [];
      for (; heads < found.length; heads++) {
        if (typeof this.reply === 'string') socket.write(this.reply, 'latin1');
        else this.reply(socket);
      }
    });
  }
}

/** Starts a service on bare sockets that ends with the test. */
export async function startRecordingUpstream(): Promise<RecordingUpstream> {
  const server = createServer({ allowHalfOpen: false });
  const upstream = new RecordingUpstream(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    upstream.destroyAll();
    await new Promise((resolve) => server.close(resolve));
  });
  return upstream;
}
