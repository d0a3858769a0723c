import type { Socket } from 'node:net';
import type { buildConnector, Client, Dispatcher } from 'undici';
import { whenRead } from '../internal/event-loop-stall.ts';
import { CONNECT_OPTIONS, checkExternalOptions } from '../internal/external-options.ts';
import * as undici from '../internal/undici.ts';
import { type Check, matching } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';

/** How connections are made: options of undici's Client, and the host that an instance is asked for. */
export interface ConnectionOptions extends Omit<Client.Options, 'pipelining'> {
  /**
   * The virtual host that requests ask for, such as `shop.example` or `shop.example:8443`: sent as
   * `Host`, or as `:authority` over HTTP/2, and its name as the one that TLS asks for unless
   * `connect` has a `servername`. Connections go to the address of the instance all the same.
   * Default: the address of the instance.
   */
  host?: string | undefined;
}

/** A request as undici takes it; its types leave out the name that TLS asks for. */
type HostedRequest = Dispatcher.DispatchOptions & { servername?: string | undefined };

/**
 * Handles the response to an attempt, and releases the connection when the response is whole or has
 * failed.
 */
export interface AttemptHandler extends Dispatcher.DispatchHandler {
  connection: Connection | undefined;
}

/**
 * After an unannounced close, connections must rest this often without being closed before one is
 * used again at once.
 */
const RESTS_AFTER_CLOSE = 1_000;

/** One kept-alive connection. It opens itself when it is needed, and again after it broke. */
export class Connection {
  readonly client: Client;
  free = false;
  connected = false;
  /**
   * rested tells whether the connection was free for a turn of the event loop: had the instance
   * closed it after its last response, that would be known. Over HTTP/2, where the instance
   * announces a close, a connection counts as rested at once.
   */
  rested = false;
  readonly #free: Connection[];

  constructor(client: Client, free: Connection[]) {
    this.client = client;
    this.#free = free;
  }

  dispatch(request: Dispatcher.DispatchOptions, handler: AttemptHandler): void {
    handler.connection = this;
    this.free = false;
    const canTakeMore = this.client.dispatch(request, handler);
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
 * Holds the connections to one instance: as many as calls are under way, or fewer where HTTP/2 lets
 * calls share one. The connection that was used last is used next, so that the others can close
 * when the load sinks, and a choice costs the same however many there are; undici's Pool looks at
 * one after the other.
 *
 * Some instances close a connection right after a response without saying so, and a request that is
 * sent before that is known fails. A request that could not be sent again is therefore never sent
 * on a connection that has only just become free, nor before this process has read what came while
 * it computed. For a while after an instance has closed like that, or has crashed, this holds for
 * every other request too.
 */
export class Connections {
  readonly #origin: string;
  readonly #options: Client.Options;
  readonly #all = new Set<Connection>();
  readonly #free: Connection[] = [];
  readonly #createSocketConnector: () => buildConnector.connector;
  readonly #host: string | undefined;
  /** #servername is set where undici would take the name for TLS from the `Host` of a request. */
  readonly #servername: string | undefined;
  /** #restsNeeded counts the connections that must still rest before one is used again at once. */
  #restsNeeded = 0;
  #socketConnector: buildConnector.connector | undefined = undefined;

  /**
   * @param servername the name that TLS asks for, and that the certificate must be for. Default:
   *   the host's.
   */
  constructor(origin: string, { host, ...options }: ConnectionOptions, servername?: string) {
    this.#origin = origin;
    this.#host = host;
    if (host !== undefined && origin.startsWith('https:')) {
      const { servername: given } = (options.connect ?? {}) as { servername?: string | undefined };
      this.#servername = given ?? servername;
    }
    this.#options = {
      ...withDefaults({ headersTimeout: 0 }, options),
      connect: createConnector(options, servername),
    };
    this.#createSocketConnector = () => createConnector(withoutHttp2(options), servername);
  }

  /**
   * Opens a socket that is none of the connections, for HTTP/1.1: its caller sends the request, and
   * closes the socket.
   */
  openSocket(callback: (error: Error | null, socket: Socket | null) => void): void {
    this.#socketConnector ??= this.#createSocketConnector();
    const { protocol, host, hostname, port } = new URL(this.#origin);
    // An address of IPv6 has no brackets where it stands alone.
    this.#socketConnector({ protocol, host, hostname: hostname.replace(/^\[|\]$/g, ''), port }, callback);
  }

  /**
   * Sends a request, which could be sent again if the connection breaks where it is `repeatable`.
   */
  dispatch(request: Dispatcher.DispatchOptions, handler: AttemptHandler, repeatable: boolean): void {
    if (this.#host !== undefined) this.#askFor(this.#host, request);
    if (repeatable && this.#restsNeeded === 0) (this.#free.pop() ?? this.#open()).dispatch(request, handler);
    else if (this.#free.length === 0) this.#open().dispatch(request, handler);
    else whenRead(() => (this.#takeRested() ?? this.#open()).dispatch(request, handler));
  }

  /**
   * Resolves when the calls under way, streamed bodies included, are done. It does not wait for a
   * connection that is still being made: only calls that were given up can wait for one.
   */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#all, close));
  }

  #askFor(host: string, request: HostedRequest): void {
    request.headers = ['host', host, ...(request.headers as string[])];
    request.servername = this.#servername;
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
        // Over HTTP/2 a connection can take more calls as soon as it is open.
        connection.release();
        connection.rested = true;
        if (this.#restsNeeded > 0) this.#restsNeeded--;
      })
      .on('connectionError', broke)
      .on('disconnect', (_origin, _targets, error) => {
        if (!connection.rested && isUnannounced(error)) this.#restsNeeded = RESTS_AFTER_CLOSE;
        broke();
      });
    this.#all.add(connection);
    return connection;
  }

  #drop(connection: Connection): void {
    // An HTTP/2 connection can break twice: when the instance says that it will close it, and when
    // it has closed it.
    if (!this.#all.delete(connection)) return;
    this.#free.splice(this.#free.indexOf(connection), 1);
    // A connection that will be closed still brings the responses to the calls under way.
    if (!connection.client.destroyed) void connection.client.close();
  }
}

async function close({ client, connected }: Connection): Promise<void> {
  if (client.destroyed) return;
  await (connected ? client.close() : client.destroy());
}

/**
 * Whether the instance closed the connection without saying so. undici's own reasons, such as a
 * response that said so, have other codes.
 */
function isUnannounced(error: Error & { code?: string | undefined }): boolean {
  return error.code === 'UND_ERR_SOCKET' || error.code === 'ECONNRESET' || error.code === 'EPIPE';
}

/**
 * Creates the connector of all connections to an instance. They share one, since it is the
 * connector that remembers TLS sessions.
 */
function createConnector(
  options: ConnectionOptions,
  servername: string | undefined,
): buildConnector.connector {
  const { connect, connectTimeout, autoSelectFamily, autoSelectFamilyAttemptTimeout } = options;
  if (typeof connect === 'function') return connect;
  const { allowH2, maxCachedSessions, socketPath, h2Options } = options;
  // undici's types leave out `useH2c`, which its connector reads.
  const connectorOptions: buildConnector.BuildOptions & Pick<Client.H2Options, 'useH2c'> = {
    allowH2,
    maxCachedSessions,
    socketPath,
    useH2c: h2Options?.useH2c,
    timeout: connectTimeout,
    servername,
    ...(autoSelectFamily !== undefined && { autoSelectFamily, autoSelectFamilyAttemptTimeout }),
    ...connect,
  };
  return undici.buildConnector(connectorOptions);
}

/** Changes the options so that no connection speaks HTTP/2; a `connect` function stays as it is. */
function withoutHttp2(options: ConnectionOptions): ConnectionOptions {
  const { connect } = options;
  if (typeof connect === 'function') return options;
  return { ...options, h2Options: {}, connect: { ...connect, allowH2: false } };
}

/** Lists all options of undici's Client, also those that it rejects by itself. */
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
  'host',
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

const checkHost = matching(
  /^(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d{1,5})?$/,
  'a host, or a host and a port, such as shop.example:8443',
);

/** Checks the names of the options; undici itself checks their values. */
export const connectionOptions: Check = (value, option) => {
  checkExternalOptions(value, option, CLIENT_OPTIONS);
  const { connect, host } = value as ConnectionOptions;
  if (host !== undefined) checkHost(host, `${option}, 'host',`);
  if (typeof connect === 'object' && connect !== null)
    checkExternalOptions(connect, `${option}, 'connect',`, CONNECT_OPTIONS);
  try {
    new undici.Client('http://localhost', value as ConnectionOptions);
  } catch (cause) {
    throw new TypeError(`${option} is not valid: ${(cause as Error).message}`, { cause });
  }
};
