import { connect, type Socket } from 'node:net';
import { expect, onTestFinished, vi } from 'vitest';

/** A client on a bare socket, which sends what no HTTP client would. */
export class RawClient {
  /** All that has come, in Latin-1. */
  received = '';
  /** Whether the other side has ended the connection. */
  ended = false;
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('latin1').on('error', () => {});
    socket.on('data', (chunk: string) => {
      this.received += chunk;
    });
    socket.on('close', () => {
      this.ended = true;
    });
  }

  /** Sends bytes, given in Latin-1. */
  send(bytes: string): void {
    this.socket.write(bytes, 'latin1');
  }

  /** The status lines of the responses that have come. */
  get statuses(): number[] {
    return (this.received.match(/HTTP\/1\.1 \d{3}(?= )/g) ?? []).map((line) => Number(line.slice(9)));
  }

  /** Resolves once that which has come contains the text, or matches the form. */
  async waitFor(text: string | RegExp): Promise<void> {
    await vi.waitFor(() => expect(this.received).toMatch(text), { interval: 5, timeout: 5_000 });
  }

  async waitForEnd(): Promise<void> {
    await vi.waitFor(() => expect(this.ended).toBe(true), { interval: 5, timeout: 5_000 });
  }

  /** Resolves with the status of a response once it has come whole, or the connection has ended. */
  async status(index = 0): Promise<number | undefined> {
    await vi.waitFor(() => expect(this.ended || this.statuses.length > index).toBe(true), {
      interval: 5,
      timeout: 5_000,
    });
    return this.statuses[index];
  }
}

/** Opens a connection that ends with the test. */
export async function openRawClient(url: string): Promise<RawClient> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return new RawClient(socket);
}
