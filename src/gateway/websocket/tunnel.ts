import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { Direction } from './direction.ts';

/** Milliseconds until the system begins to ask a silent peer whether it is still there. */
const KEEP_ALIVE_DELAY = 30_000;
/** Milliseconds that one side has to end after the other has. */
const END_TIMEOUT = 10_000;

/** A Close frame with the code 1001, 'going away'. */
const GOING_AWAY = Buffer.from([0x88, 2, 0x03, 0xe9]);

/** Masks the frame as a client must: RFC 6455, section 5.3. */
function createMaskedGoingAway(): Buffer {
  const mask = randomBytes(4);
  return Buffer.from([0x88, 0x82, ...mask, 0x03 ^ mask[0]!, 0xe9 ^ mask[1]!]);
}

/**
 * An open WebSocket between a client and a service. The bytes of both go through as they are, Close
 * frames and the ends of connections too. Frames are told apart only so that the gateway can say
 * that it goes away.
 */
export class Tunnel {
  /** Resolves when both connections have closed. */
  readonly closed: Promise<void>;
  readonly #client: Socket;
  readonly #service: Socket;
  readonly #toService: Direction;
  readonly #toClient: Direction;
  #closing = false;
  #timer: NodeJS.Timeout | undefined = undefined;
  /** When the timer is due, by `performance.now()`. */
  #cutAt = Infinity;

  constructor(client: Socket, service: Socket) {
    this.#client = client;
    this.#service = service;
    const onClose = () => this.#endClosed();
    this.#toService = new Direction(client, service, createMaskedGoingAway, onClose);
    this.#toClient = new Direction(service, client, () => GOING_AWAY, onClose);
    this.closed = Promise.all([this.#watch(client, service), this.#watch(service, client)]).then(() => {
      clearTimeout(this.#timer);
    });
  }

  /**
   * Sends both sides a Close frame with the code 1001, and ends the connection to a side when that
   * has sent one too. What is left after `timeout` milliseconds is cut.
   */
  close(timeout: number): Promise<void> {
    this.#closing = true;
    this.#cutAfter(timeout);
    this.#toService.close();
    this.#toClient.close();
    return this.closed;
  }

  #endClosed(): void {
    if (!this.#closing) return;
    if (this.#toService.sourceClosed && this.#toClient.targetClosed) this.#client.end();
    if (this.#toClient.sourceClosed && this.#toService.targetClosed) this.#service.end();
  }

  /** Resolves when the socket has closed, and sees that the other one then closes too. */
  #watch(socket: Socket, other: Socket): Promise<void> {
    // The timeouts that servers have for requests are none for WebSockets.
    socket.setTimeout(0).setNoDelay(true).setKeepAlive(true, KEEP_ALIVE_DELAY);
    socket.on('end', () => this.#cutAfter(END_TIMEOUT));
    return new Promise((resolve) => {
      socket.on('close', () => {
        this.#cutAfter(END_TIMEOUT);
        // What has come before is still sent.
        other.destroySoon();
        resolve();
      });
    });
  }

  #cutAfter(timeout: number): void {
    const cutAt = performance.now() + timeout;
    if (cutAt >= this.#cutAt) return;
    this.#cutAt = cutAt;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#client.destroy();
      this.#service.destroy();
    }, timeout).unref();
  }
}
