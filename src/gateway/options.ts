import type { ServiceClient } from '../client/service-client.ts';
import type { ServiceDiscovery } from '../discovery/service-discovery.ts';
import type { RateLimitRule, RateLimitStore } from '../middleware/server/rate-limit/rate-limit-store.ts';
import type { AccessLog } from './access-log.ts';
import type { AuthOptions, RouteAuth } from './auth/auth-options.ts';

/** One way through the gateway: which requests it takes, and which service they go to. */
export interface RouteOptions {
  /**
   * The path of the requests: `/users/:userId` has a parameter, which is one segment, and `/shop/*`
   * takes all that begins like it. Of several routes the more specific one is chosen.
   */
  path: string;
  /** Default: all but TRACE and CONNECT. GET stands for HEAD too. */
  methods?: readonly string[] | undefined;
  /** The hosts of the requests, without a port; `*.example.com` takes all below. Default: all. */
  host?: string | readonly string[] | undefined;
  /** Headers that a request must have, with these values. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** The name of the service. */
  service: string;
  /**
   * The path that the service gets, with the parameters of `path`; the query stays as it is.
   * Default: the path as it came.
   */
  rewrite?: string | undefined;
  /** Which callers are let in; false for all. Default: each with a token or an API key. */
  auth?: RouteAuth | false | undefined;
  /** Milliseconds until the head of the response, retries included. Default: that of the client. */
  timeout?: number | undefined;
  /** Retries beyond the first attempt. Default: as the client is set. */
  retries?: number | undefined;
  /**
   * Says that the service handles requests with the same `Idempotency-Key` once: a POST or PATCH with
   * one is retried even if it may have arrived. Default false.
   */
  idempotencyKeys?: boolean | undefined;
  /** Bytes of a request body. Default 1 MiB; Infinity for no bound. */
  maxBodySize?: number | undefined;
  /** Bounds the requests of each client on this route. Default: none. */
  rateLimit?: RateLimitRule | undefined;
  /** Splits the requests over versions of the service. The shares must add up to 1. */
  split?: readonly SplitOptions[] | undefined;
  /**
   * Keeps a client at one version of the split: `cookie:NAME`, `header:NAME`, `claim:NAME`, or
   * `address`. Default: each request is drawn anew.
   */
  sticky?: string | undefined;
  /** Headers that are sent to the service, or taken away. */
  requestHeaders?: HeaderRules | undefined;
  /** Headers that are sent to the client, or taken away. */
  responseHeaders?: HeaderRules | undefined;
  /** When the route became, or becomes, deprecated: an ISO date, sent as `Deprecation` (RFC 9745). */
  deprecation?: string | undefined;
  /** When the route will be gone: an ISO date, sent as `Sunset` (RFC 8594). */
  sunset?: string | undefined;
  /** Says what becomes of a GET or HEAD that has a body. Default 'reject'. */
  getBody?: 'reject' | 'forward' | undefined;
  /** Takes the path as it was written, escaped slashes and backslashes too. Default false. */
  rawPath?: boolean | undefined;
  /** Lets WebSockets through, from pages of these origins; `true` for those of `cors`. Default false. */
  webSocket?: boolean | { origins: readonly string[] } | undefined;
}

export interface HeaderRules {
  /** Headers to set, in place of those that came in. */
  set?: Readonly<Record<string, string>> | undefined;
  /** The names of headers to take away. */
  remove?: readonly string[] | undefined;
}

/** A version of a service, and its share of the requests. */
export interface SplitOptions {
  /** The metadata that instances of this version have. */
  select: Readonly<Record<string, string>>;
  /** The share of the requests, 0 to 1. */
  share: number;
}

/** The parts of a gateway that can be replaced while it runs. */
export interface GatewayConfig {
  /** The ways to services, at least one. */
  routes: readonly RouteOptions[];
  /** How callers prove who they are. Required unless each route has `auth: false`. */
  auth?: AuthOptions | undefined;
  /** Which pages of other origins may read responses. Default false: none. */
  cors?: CorsOptions | false | undefined;
  /** Sets the headers of `@fastify/helmet` on all responses, with its options. Default false. */
  helmet?: boolean | Readonly<Record<string, unknown>> | undefined;
  /** Bounds the requests of each client over all routes. Default: none. */
  rateLimit?: RateLimitRule | undefined;
  /** Requests in flight at once, open WebSockets among them; others get 503. Default 10,000. */
  maxRequests?: number | undefined;
  /**
   * Milliseconds that the event loop may be late, on average over half a second. Above that, requests get
   * 503: the more the later it is, and all of them at twice that. Default false: any delay.
   */
  maxEventLoopDelay?: number | false | undefined;
  /**
   * Addresses and networks (CIDR) of proxies in front of the gateway, whose forwarding headers and
   * request ids are believed. Default: none, loopback neither.
   */
  trustedProxies?: readonly string[] | undefined;
  /** Addresses and networks that see the services in `/health` without a token. Default: none. */
  internalAddresses?: readonly string[] | undefined;
}

export interface CorsOptions {
  /** Origins that may read responses, or '*' for all, which excludes `credentials`. */
  origins: readonly string[] | '*';
  /** Whether browsers send cookies and the like, and let pages read the response. Default false. */
  credentials?: boolean | undefined;
  /** Methods that pages may use. Default: GET, HEAD, POST, PUT, PATCH, DELETE and QUERY. */
  methods?: readonly string[] | undefined;
  /** Headers that pages may send. Default: those that they ask for. */
  allowedHeaders?: readonly string[] | undefined;
  /** Headers that pages may read, besides the usual ones. */
  exposedHeaders?: readonly string[] | undefined;
  /** Milliseconds for which a browser keeps the result of a preflight. Default 5,000. */
  maxAge?: number | undefined;
}

export interface GatewayOptions extends GatewayConfig {
  /** Makes the calls to services; it stays open. Required unless `discovery` is given. */
  client?: ServiceClient | undefined;
  /** Lists the instances, for a client of the gateway's own. */
  discovery?: ServiceDiscovery | undefined;
  /** Counts the requests of rate limits. Default: in memory. */
  rateLimitStore?: RateLimitStore | undefined;
  /** Is called once for each request, when its response is over. Default: none. */
  accessLog?: AccessLog | undefined;
}
