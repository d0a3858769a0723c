import type { RateLimitRule } from '../../middleware/server/rate-limit/rate-limit-store.ts';
import { HELMET_OPTIONS } from '../http/helmet.ts';
import type { CorsOptions, GatewayConfig, HeaderRules, RouteOptions, SplitOptions } from '../options.ts';
import type { ServerOptions } from '../server-options.ts';
import { auth, routeAuth } from './auth-shapes.ts';
import { checkCors, checkHeaderRules, checkRoute } from './cross-checks.ts';
import {
  countBy,
  date,
  HEADER_NAME,
  headerName,
  headerValue,
  host,
  method,
  milliseconds,
  network,
  origin,
  positiveMilliseconds,
  service,
  stickyBy,
} from './scalar-shapes.ts';
import {
  anyText,
  choice,
  either,
  externalObject,
  type Fields,
  flag,
  fromEnv,
  list,
  number,
  object,
  record,
  required,
  text,
} from './shape.ts';

const MAX_COUNT = Number.MAX_SAFE_INTEGER;

const rateLimit = object<RateLimitRule>('RateLimitRule', {
  limit: required(number(1e-6, MAX_COUNT)),
  interval: required(positiveMilliseconds),
  burst: number(1, MAX_COUNT, { whole: true }),
  by: countBy,
});

const split = object<SplitOptions>('SplitOptions', {
  select: required(record(/^[\s\S]+$/, 'the name of a field of the metadata', anyText)),
  share: required(number(0, 1)),
});

const headerRules = object<HeaderRules>(
  'HeaderRules',
  {
    set: record(HEADER_NAME, 'the name of a header', fromEnv(headerValue)),
    remove: list(headerName),
  },
  checkHeaderRules,
);

const webSocket = object<Exclude<NonNullable<RouteOptions['webSocket']>, boolean>>('WebSocketOptions', {
  origins: required(list(fromEnv(origin), { min: 1 })),
});

const path = text(/^\/[^?#\s\\]*$/, "a path that begins with '/', without a query");

const route = object<RouteOptions>(
  'RouteOptions',
  {
    path: required(path),
    methods: list(method, { min: 1 }),
    host: either(fromEnv(host), list(fromEnv(host), { min: 1 })),
    headers: record(HEADER_NAME, 'the name of a header', headerValue),
    service: required(service),
    rewrite: path,
    auth: either(choice(false), routeAuth),
    timeout: positiveMilliseconds,
    retries: number(0, MAX_COUNT, { whole: true }),
    idempotencyKeys: flag,
    maxBodySize: number(0, MAX_COUNT, { whole: true, unbounded: true }),
    rateLimit,
    split: list(split, { min: 1 }),
    sticky: stickyBy,
    requestHeaders: headerRules,
    responseHeaders: headerRules,
    deprecation: date,
    sunset: date,
    getBody: choice('reject', 'forward'),
    rawPath: flag,
    webSocket: either(flag, webSocket),
  },
  checkRoute,
);

const cors = object<CorsOptions>(
  'CorsOptions',
  {
    origins: required(either(choice('*'), list(fromEnv(origin), { min: 1 }))),
    credentials: flag,
    methods: list(method, { min: 1 }),
    allowedHeaders: list(headerName),
    exposedHeaders: list(headerName),
    maxAge: milliseconds,
  },
  checkCors,
);

/** The options of a gateway that can be replaced while it runs. */
export const configFields: Fields<GatewayConfig> = {
  routes: required(list(route, { min: 1 })),
  auth,
  cors: either(choice(false), cors),
  helmet: either(flag, externalObject('the options of @fastify/helmet', HELMET_OPTIONS)),
  rateLimit,
  maxRequests: number(1, MAX_COUNT, { whole: true, unbounded: true }),
  maxEventLoopDelay: either(choice(false), positiveMilliseconds),
  trustedProxies: list(fromEnv(network)),
  internalAddresses: list(fromEnv(network)),
};

/** The options of a server that a file has as well. */
export const serverFields: Fields<Omit<ServerOptions, 'tls' | 'logger'>> = {
  http2: flag,
  maxConnections: number(1, MAX_COUNT, { whole: true }),
  maxHeaderSize: number(1_024, 1_048_576, { whole: true }),
  requestTimeout: milliseconds,
  headersTimeout: positiveMilliseconds,
  keepAliveTimeout: positiveMilliseconds,
  drainDelay: milliseconds,
  shutdownTimeout: milliseconds,
};

export const config = object<GatewayConfig>('GatewayConfig', configFields);
