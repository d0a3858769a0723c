import type { DnsName } from '../../discovery/dns-lookup.ts';
import type { GatewayConfig } from '../options.ts';

/** A file that configures a gateway, as JSON or YAML. What is code cannot be written in it. */
export interface GatewayFileOptions extends GatewayConfig {
  /** The address of the JSON Schema, for editors. */
  $schema?: string | undefined;
  /** Where the instances of services are listed: one of these. */
  discovery?: DiscoveryFileOptions | undefined;
  /** Counts the requests of rate limits. Default: in memory. */
  rateLimitStore?: RateLimitStoreFileOptions | undefined;
  /** The server of `npx holdfast gateway`. */
  server?: ServerFileOptions | undefined;
}

export interface DiscoveryFileOptions {
  /** Instances that are registered in Redis. */
  redis?: RedisFileOptions | undefined;
  /** Lists of origins such as `http://10.0.0.1:8001`, by the name of the service. */
  static?: Readonly<Record<string, readonly string[]>> | undefined;
  /** The DNS name of each service, by the name of the service. */
  dns?: Readonly<Record<string, DnsName>> | undefined;
}

export interface RateLimitStoreFileOptions {
  /** Counts in Redis, for all processes of the gateway together. */
  redis: RedisFileOptions;
}

export interface RedisFileOptions {
  /** A URL such as `redis://127.0.0.1:6379`, or `rediss://` for TLS. */
  url: string;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
}

export interface ServerFileOptions {
  /** Default `127.0.0.1`. */
  host?: string | undefined;
  /** Default 8080. 0 for a free one. */
  port?: number | undefined;
  /** Serves https with this certificate. Default: http. */
  tls?: TlsFileOptions | undefined;
  /**
   * Speaks HTTP/2: over TLS to clients that ask for it, without TLS to all, who must know it. Default
   * false.
   */
  http2?: boolean | undefined;
  /** Writes a line for each request to standard output. Default false. */
  accessLog?: boolean | undefined;
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
   * Milliseconds from the signal to end, when `/health` responds with 503, until no more connections are
   * taken. Load balancers must have seen it by then. Default 2,000.
   */
  drainDelay?: number | undefined;
  /** Milliseconds that the end then waits for requests in flight. Default 15,000. */
  shutdownTimeout?: number | undefined;
}

export interface TlsFileOptions {
  /** The file of the private key, as PEM; a relative path begins at the folder of this file. */
  keyFile: string;
  /** The file of the certificate and those above it, as PEM. */
  certFile: string;
}
