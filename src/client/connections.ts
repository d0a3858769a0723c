import type { buildConnector, Client, Dispatcher } from 'undici';
import { whenRead } from '../internal/event-loop-stall.ts';
import { CONNECT_OPTIONS, checkExternalOptions } from '../internal/external-options.ts';
import * as undici from '../internal/undici.ts';
import type { Check } from '../internal/validate.ts';

/** How connections are made: options of undici's Client. */
export type ConnectionOptions = Omit<Client.Options, 'pipelining'>;

/** What handles an answer, and gives back the connection when it is whole or has failed, if it has it still. */
export interface Exchange extends Dispatcher.DispatchHandler {
  connection: Connection | undefined;
}

/** How often connections must rest, and not be closed, before they are trusted again. */
const CAUTION = 1_000;

/** One kept-alive connection. It opens itself when it is needed, and again after it broke. */
export class Connection {
  readonly client: Client;
  free = false;
  connected = false;
  /**
   * Whether it was free for a turn of the event loop: had the instance closed it after its last answer, that would be
   * known. Over HTTP/2, where the instance says so, it need not be.
   */
  rested = false;
  readonly #free: Connection[];

  constructor(client: Client, free: Connection[]) {
    this.client = client;
    this.#free = free;
  }

  dispatch(request: Dispatcher.DispatchOptions, exchange: Exchange): void {
    exchange.connection = this;
    this.free = false;
    const canTakeMore = this.client.dispatch(request, exchange);
    if (canTakeMore) this.release(true);
  }

  release(rested = false): void {
    if (this.free) return;
    this.free = true;
    this.rested = rested;
    this.#free.push(this);
  }
}

/**
 * The connections to one instance: as many as calls are under way, or fewer where HTTP/2 lets them share.
 * The one that was used last is used next, so that the others can close when the load sinks, and a choice costs
 * the same however many there are; undici's Pool looks at one after the other.
 *
 * Some instances close a connection right after an answer without saying so, and a request that is sent before
 * that is known fails. One that could not be sent again is therefore never sent on a connection that has only just
 * become free, nor before this process has read what came while it computed; nor is any other for a while after an
 * instance has done so, or has crashed.
 */
export class Connections {
  readonly #origin: string;
  readonly #options: Client.Options;
  readonly #all = new Set<Connection>();
  readonly #free: Connection[] = [];
  /** Connections that have yet to rest before one is used again at once. */
  #caution = 0;

  /** @param servername the name that TLS asks for, and that the certificate must be for. Default: the host's. */
  constructor(origin: string, options: ConnectionOptions, servername?: string) {
    this.#origin = origin;
    this.#options = { headersTimeout: 0, ...options, connect: connectorOf(options, servername) };
  }

  /** Sends a request; `again` says that it could be sent a second time if the connection breaks. */
  dispatch(request: Dispatcher.DispatchOptions, exchange: Exchange, again: boolean): void {
    if (again && this.#caution === 0) (this.#free.pop() ?? this.#open()).dispatch(request, exchange);
    else if (this.#free.length === 0) this.#open().dispatch(request, exchange);
    else whenRead(() => (this.#takeRested() ?? this.#open()).dispatch(request, exchange));
  }

  /**
   * Resolves when what is under way, streamed bodies included, is done. On a connection that is still being made
   * only calls can wait that were given up: those it does not wait for.
   */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#all, close));
  }

  #takeRested(): Connection | undefined {
    const index = this.#free.findLastIndex(({ rested }) => rested);
    return index === -1 ? undefined : this.#free.splice(index, 1)[0];
  }

  #open(): Connection {
    const client = new undici.Client(this.#origin, this.#options);
    const connection = new Connection(client, this.#free);
    const broke = () => {
      connection.connected = false;
      if (connection.free) this.#drop(connection);
    };
    client
      .on('connect', () => {
        connection.connected = true;
      })
      .on('drain', () => {
        // Over HTTP/2 it can take more calls as soon as it is open.
        connection.release();
        connection.rested = true;
        if (this.#caution > 0) this.#caution--;
      })
      .on('connectionError', broke)
      .on('disconnect', (_origin, _targets, error) => {
        if (!connection.rested && isUnannounced(error)) this.#caution = CAUTION;
        broke();
      });
    this.#all.add(connection);
    return connection;
  }

  #drop(connection: Connection): void {
    // One of HTTP/2 can break twice: when the other side says that it will go away, and when it has gone.
    if (!this.#all.delete(connection)) return;
    this.#free.splice(this.#free.indexOf(connection), 1);
    // What is under way on one that goes away is still answered.
    if (!connection.client.destroyed) void connection.client.close();
  }
}

async function close({ client, connected }: Connection): Promise<void> {
  if (client.destroyed) return;
  await (connected ? client.close() : client.destroy());
}

/** Whether the other side closed; undici's own reasons, as for an answer that said so, have other codes. */
function isUnannounced(error: Error & { code?: string }): boolean {
  return error.code === 'UND_ERR_SOCKET' || error.code === 'ECONNRESET' || error.code === 'EPIPE';
}

/** One for all connections to an instance, since it is what remembers TLS sessions. */
function connectorOf(options: ConnectionOptions, servername: string | undefined): buildConnector.connector {
  const { connect, connectTimeout, autoSelectFamily, autoSelectFamilyAttemptTimeout } = options;
  if (typeof connect === 'function') return connect;
  const { allowH2, maxCachedSessions, socketPath, h2Options } = options;
  return undici.buildConnector({
    allowH2,
    maxCachedSessions,
    socketPath,
    useH2c: h2Options?.useH2c,
    timeout: connectTimeout,
    servername,
    ...(autoSelectFamily !== undefined && { autoSelectFamily, autoSelectFamilyAttemptTimeout }),
    ...connect,
  } as unknown as buildConnector.BuildOptions);
}

/** What undici's Client takes, and what it refuses by itself. */
const CLIENT_OPTIONS: ReadonlySet<string> = new Set([
  'allowH2',
  'autoSelectFamily',
  'autoSelectFamilyAttemptTimeout',
  'bodyTimeout',
  'connect',
  'connectTimeout',
  'connectionWindowSize',
  'eventSource',
  'h2Options',
  'headersTimeout',
  'idleTimeout',
  'initialWindowSize',
  'keepAlive',
  'keepAliveMaxTimeout',
  'keepAliveTimeout',
  'keepAliveTimeoutThreshold',
  'localAddress',
  'maxCachedSessions',
  'maxConcurrentStreams',
  'maxHeaderSize',
  'maxKeepAliveTimeout',
  'maxRequestsPerClient',
  'maxResponseSize',
  'pingInterval',
  'pipelining',
  'requestTimeout',
  'socketPath',
  'socketTimeout',
  'strictContentLength',
  'tls',
  'useH2c',
  'useMilo',
  'webSocket',
]);

/** Lets undici itself say which values it does not take. */
export const connectionOptions: Check = (value, option) => {
  checkExternalOptions(value, option, CLIENT_OPTIONS);
  const { connect } = value as ConnectionOptions;
  if (typeof connect === 'object' && connect !== null)
    checkExternalOptions(connect, `${option}, 'connect',`, CONNECT_OPTIONS);
  try {
    new undici.Client('http://localhost', value as ConnectionOptions);
  } catch (cause) {
    throw new TypeError(`${option} is refused: ${(cause as Error).message}`, { cause });
  }
};
