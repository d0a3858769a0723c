import { connect, type Socket } from 'node:net';

/** Milliseconds after which a row has failed. Nothing in the table waits for a time to pass. */
const TIMEOUT = 5_000;

/** A connection to a gateway over which any bytes go. It looks at each event, as many rows need it fast. */
export class Connection {
  /** All that has come, in Latin-1. */
  received = '';
  ended = false;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket
      .setNoDelay()
      .setEncoding('latin1')
      .on('error', () => {});
    socket.on('data', (text: string) => {
      this.received += text;
    });
    socket.on('close', () => {
      this.ended = true;
    });
  }

  static async open(url: string): Promise<Connection> {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new Connection(socket);
  }

  /** Sends bytes, given in Latin-1. */
  send(bytes: string): void {
    this.#socket.write(bytes, 'latin1');
  }

  /** The statuses of the responses that have begun; 100 and 103 count. */
  get statuses(): number[] {
    return (this.received.match(/HTTP\/1\.1 \d{3}(?= )/g) ?? []).map((line) => Number(line.slice(9)));
  }

  /** Resolves once that many responses have come, or the connection has ended. */
  waitForResponses(count: number): Promise<void> {
    return this.#until(() => this.ended || this.statuses.length >= count);
  }

  /** Resolves once that which has come since an index matches the form, or the connection has ended. */
  waitFor(form: RegExp, since: number): Promise<void> {
    return this.#until(() => this.ended || form.test(this.received.slice(since)));
  }

  /** Resolves once the other side has ended the connection, or does not in time. */
  waitForEnd(): Promise<void> {
    return this.#until(() => this.ended);
  }

  close(): void {
    this.#socket.destroy();
  }

  #until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = () => {
        if (!condition()) return;
        clearTimeout(timer);
        this.#socket.off('data', check).off('close', check);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#socket.off('data', check).off('close', check);
        resolve();
      }, TIMEOUT);
      this.#socket.on('data', check).on('close', check);
      check();
    });
  }
}
