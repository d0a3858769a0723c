import type { SecureServerOptions } from 'node:http2';

type LogMethod = (object: unknown, message?: string, ...values: unknown[]) => void;

/**
 * A logger as Fastify takes one, such as pino. It is described here, so that a program which uses another
 * part of this entry needs no types of fastify.
 */
export interface GatewayLogger {
  level: string;
  readonly fatal: LogMethod;
  readonly error: LogMethod;
  readonly warn: LogMethod;
  readonly info: LogMethod;
  readonly debug: LogMethod;
  readonly trace: LogMethod;
  readonly silent: LogMethod;
  child(bindings: object, options?: object): GatewayLogger;
}

/** How the server of a gateway speaks with its clients. */
export interface ServerOptions {
  /** The key and the certificate, and other options of Node's TLS. Default: no TLS. */
  tls?: SecureServerOptions | undefined;
  /**
   * Speaks HTTP/2: over TLS to clients that ask for it, without TLS to all, who must know it. Default
   * false.
   */
  http2?: boolean | undefined;
  /** Connections of clients at once; Node closes more of them unheard. Default: any number. */
  maxConnections?: number | undefined;
  /** Bytes of the head of a request. Default 16,384. */
  maxHeaderSize?: number | undefined;
  /** Milliseconds for a whole request, its body included. Default 300,000. */
  requestTimeout?: number | undefined;
  /** Milliseconds for the head of a request. Default 60,000. */
  headersTimeout?: number | undefined;
  /** Milliseconds for which an idle connection stays open. Default 72,000. */
  keepAliveTimeout?: number | undefined;
  /**
   * Milliseconds from the beginning of `close()`, when `/health` responds with 503, until no more connections
   * are taken. Load balancers must have seen it by then. Default 2,000.
   */
  drainDelay?: number | undefined;
  /** Milliseconds that `close()` then waits for requests in flight. Default 15,000. */
  shutdownTimeout?: number | undefined;
  /** The logger of the server, which logs as that of Fastify does. Default: none. */
  logger?: GatewayLogger | undefined;
}
