import type { RouteAuth } from '../auth/auth-options.ts';
import { toDashes } from '../http/header-name.ts';
import type { GatewayConfig, HeaderRules, RouteOptions } from '../options.ts';
import { type AllowedOrigins, compileOrigins } from '../websocket/handshake.ts';
import {
  compilePathView,
  compileRewrite,
  type PathPattern,
  type PathView,
  parsePattern,
  type Rewrite,
} from './path-pattern.ts';
import { compileSplit, type Split } from './split.ts';

/** A header that a request must have. */
interface HeaderMatch {
  readonly name: string;
  readonly value: string;
}

/** The headers that a route sets and removes, their names in lower case. */
export interface CompiledHeaderRules {
  /** Names and values in turn. */
  readonly set: readonly string[];
  /** The names that are set or removed, as `toDashes` writes them. */
  readonly replaced: ReadonlySet<string>;
}

/** A route as requests are matched against it. */
export interface Route {
  readonly options: RouteOptions;
  readonly service: string;
  readonly pattern: PathPattern;
  readonly rewrite: Rewrite | undefined;
  /** Tells how paths of the service look to clients; undefined if they look the same, or it is not known. */
  readonly pathView: PathView | undefined;
  readonly hosts: readonly string[] | undefined;
  readonly methods: ReadonlySet<string> | undefined;
  readonly headers: readonly HeaderMatch[];
  readonly auth: RouteAuth | false;
  readonly maxBodySize: number;
  readonly requestHeaders: CompiledHeaderRules | undefined;
  readonly responseHeaders: CompiledHeaderRules | undefined;
  readonly split: Split | undefined;
  /** The origins whose pages may open WebSockets; undefined if there are none on this route. */
  readonly allowedOrigins: AllowedOrigins | undefined;
}

const MAX_BODY_SIZE = 1_048_576;

/**
 * Compiles a route.
 *
 * @throws TypeError naming the option that is malformed
 */
export function compileRoute(
  options: RouteOptions,
  index: number,
  prefix: string,
  cors?: GatewayConfig['cors'],
): Route {
  const name = `routes[${index}]`;
  const { host, methods, rewrite, headers = {} } = options;
  const pattern = parsePattern(`${prefix}${options.path}`, `${name}.path`);
  return {
    options,
    service: options.service,
    pattern,
    rewrite: rewrite === undefined ? undefined : compileRewrite(rewrite, pattern, `${name}.rewrite`),
    pathView: rewrite === undefined ? undefined : compilePathView(pattern, rewrite, `${name}.rewrite`),
    hosts: host === undefined ? undefined : [host].flat().map((one) => one.toLowerCase()),
    methods: methods && new Set(methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))),
    headers: Object.entries(headers).map(([header, value]) => ({ name: header.toLowerCase(), value })),
    auth: options.auth ?? {},
    maxBodySize: options.maxBodySize ?? MAX_BODY_SIZE,
    requestHeaders: compileHeaderRules(options.requestHeaders),
    responseHeaders: compileHeaderRules({
      ...options.responseHeaders,
      set: { ...lifecycleHeaders(options), ...options.responseHeaders?.set },
    }),
    split: compileSplit(options, `${name}.sticky`),
    allowedOrigins: compileOrigins(options.webSocket, cors),
  };
}

/** Gives `Deprecation` (RFC 9745, a structured date) and `Sunset` (RFC 8594, an HTTP date). */
function lifecycleHeaders({ deprecation, sunset }: RouteOptions): Record<string, string> {
  return {
    ...(deprecation !== undefined && { deprecation: `@${Math.floor(Date.parse(deprecation) / 1_000)}` }),
    ...(sunset !== undefined && { sunset: new Date(sunset).toUTCString() }),
  };
}

function compileHeaderRules({ set = {}, remove = [] }: HeaderRules = {}): CompiledHeaderRules | undefined {
  const entries = Object.entries(set).map(([name, value]) => [name.toLowerCase(), value]);
  if (entries.length === 0 && remove.length === 0) return undefined;
  return {
    set: entries.flat() as string[],
    replaced: new Set(
      [...entries.map(([name]) => name!), ...remove].map((name) => toDashes(name.toLowerCase())),
    ),
  };
}
