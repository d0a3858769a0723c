import { buildConnector, Client, type Dispatcher } from 'undici';
import type { Check } from '../internal/validate.ts';

/** How connections are made: options of undici's Client. */
export type ConnectionOptions = Omit<Client.Options, 'pipelining'>;

/** What handles an answer, and gives back the connection when it is whole or has failed. */
export interface Exchange extends Dispatcher.DispatchHandler {
  connection: Connection | undefined;
}

/** One kept-alive connection. It opens itself when it is needed, and again after it broke. */
export class Connection {
  readonly client: Client;
  free = false;
  readonly #free: Connection[];

  constructor(client: Client, free: Connection[]) {
    this.client = client;
    this.#free = free;
  }

  dispatch(request: Dispatcher.DispatchOptions, exchange: Exchange): void {
    exchange.connection = this;
    this.free = false;
    const canTakeMore = this.client.dispatch(request, exchange);
    if (canTakeMore) this.release();
  }

  release(): void {
    if (this.free) return;
    this.free = true;
    this.#free.push(this);
  }
}

/**
 * The connections to one instance: as many as calls are under way, or fewer where HTTP/2 lets them share.
 * The one that was used last is used next, so that the others can close when the load sinks, and a choice costs
 * the same however many there are; undici's Pool looks at one after the other.
 */
export class Connections {
  readonly #origin: string;
  readonly #options: Client.Options;
  readonly #all = new Set<Connection>();
  readonly #free: Connection[] = [];

  constructor(origin: string, options: ConnectionOptions) {
    this.#origin = origin;
    this.#options = { headersTimeout: 0, ...options, connect: connectorOf(options) };
  }

  dispatch(request: Dispatcher.DispatchOptions, exchange: Exchange): void {
    const connection = this.#free.pop() ?? this.#open();
    connection.dispatch(request, exchange);
  }

  /** Resolves when what is under way, streamed bodies included, is done. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#all, close));
  }

  #open(): Connection {
    const client = new Client(this.#origin, this.#options);
    const connection = new Connection(client, this.#free);
    const dropIfUnused = () => {
      if (!connection.free) return;
      this.#free.splice(this.#free.indexOf(connection), 1);
      this.#all.delete(connection);
      void close(connection);
    };
    client.on('disconnect', dropIfUnused).on('connectionError', dropIfUnused);
    this.#all.add(connection);
    return connection;
  }
}

async function close({ client }: Connection): Promise<void> {
  if (!client.closed && !client.destroyed) await client.close();
}

/** One for all connections to an instance, since it is what remembers TLS sessions. */
function connectorOf(options: ConnectionOptions): buildConnector.connector {
  const { connect, connectTimeout, autoSelectFamily, autoSelectFamilyAttemptTimeout } = options;
  if (typeof connect === 'function') return connect;
  const { allowH2, maxCachedSessions, socketPath } = options;
  return buildConnector({
    allowH2,
    maxCachedSessions,
    socketPath,
    timeout: connectTimeout,
    ...(autoSelectFamily !== undefined && { autoSelectFamily, autoSelectFamilyAttemptTimeout }),
    ...connect,
  } as buildConnector.BuildOptions);
}

/** Lets undici itself say which of its options it does not take. */
export const connectionOptions: Check = (value, option) => {
  try {
    new Client('http://localhost', value as ConnectionOptions);
  } catch (cause) {
    throw new TypeError(`${option} is refused: ${(cause as Error).message}`, { cause });
  }
};
