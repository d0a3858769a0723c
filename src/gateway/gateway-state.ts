import type { LocalResponse } from '../middleware/server/guard/local-response.ts';
import { Authenticator } from './auth/authenticator.ts';
import { createHealthResponder, type HealthRequest, type HealthSource } from './health.ts';
import type { OwnHeaders } from './http/client-response.ts';
import { CORS_HEADERS, type CorsHook, createCors } from './http/cors.ts';
import { readHelmetHeaders } from './http/helmet.ts';
import { Networks } from './http/networks.ts';
import { compileLimits, type GatewayLimits } from './limits/rate-limits.ts';
import type { GatewayConfig } from './options.ts';
import { HEALTH_PATH, JWKS_PATH } from './own-paths.ts';
import { compileRoute } from './routing/route.ts';
import { Router } from './routing/router.ts';

/** Responds to a GET or HEAD of a path that is the gateway's own. */
export type OwnResponder = (
  source: HealthSource,
  request: HealthRequest,
) => LocalResponse | Promise<LocalResponse>;

/**
 * A configuration, compiled: nothing of it changes. A request keeps the one with which it began.
 */
export interface GatewayState {
  readonly config: GatewayConfig;
  readonly router: Router;
  readonly authenticator: Authenticator | undefined;
  readonly limits: GatewayLimits;
  /** Tells browsers which origins may read responses. */
  readonly cors: CorsHook | undefined;
  /** Headers of all responses, in place of those of services; a service may not send undefined ones. */
  readonly ownHeaders: OwnHeaders | undefined;
  readonly trustedProxies: Networks;
  /** By path; these go before routes. */
  readonly ownPaths: ReadonlyMap<string, OwnResponder>;
}

/**
 * Compiles a configuration.
 *
 * @param prefix begins the paths of all routes
 * @param previous what this one replaces
 * @throws GatewayConfigError if a package is missing that an option needs
 */
export async function compileState(
  config: GatewayConfig,
  prefix: string,
  previous?: GatewayState,
): Promise<GatewayState> {
  const { auth } = config;
  const routes = config.routes.map((route, index) => compileRoute(route, index, prefix, config.cors));
  const authenticator = auth && new Authenticator(auth, previous?.authenticator);
  const cors = config.cors ? await createCors(config.cors) : undefined;
  const ownPaths = new Map<string, OwnResponder>([
    [`${prefix}${HEALTH_PATH}`, createHealthResponder(config)],
  ]);
  if (authenticator !== undefined) {
    ownPaths.set(`${prefix}${JWKS_PATH}`, () => authenticator.signer.respond());
  }
  return {
    config,
    router: new Router(routes),
    authenticator,
    limits: compileLimits(config.rateLimit, routes),
    cors,
    ownHeaders: await compileOwnHeaders(config),
    trustedProxies: new Networks(config.trustedProxies ?? [], 'trustedProxies'),
    ownPaths,
  };
}

async function compileOwnHeaders({ cors, helmet }: GatewayConfig): Promise<OwnHeaders | undefined> {
  if (!cors && !helmet) return undefined;
  return {
    ...(cors && CORS_HEADERS),
    ...(helmet && (await readHelmetHeaders(helmet === true ? {} : helmet))),
  };
}
