import type {
  RateLimitDecision,
  RateLimitRule,
  RateLimitStore,
} from '../../middleware/server/rate-limit/rate-limit-store.ts';
import type { RouteOptions } from '../options.ts';
import { Rejection } from '../problem.ts';
import type { Route } from '../routing/route.ts';
import { type Client, type CountBy, nameClient, parseCountBy } from './counted-client.ts';
import { buildRateLimitFields, type LimitResult } from './rate-limit-fields.ts';

/** A limit that requests are counted against. */
export interface Limit {
  /** 'gateway', 'route' or 'health', for clients. */
  readonly name: string;
  /** Names the limit in the keys of the store: the same in all processes and after a reload. */
  readonly scope: string;
  readonly rule: RateLimitRule;
  readonly by: CountBy;
}

/** The limits of a route, by when they are taken. */
export interface RouteLimits {
  /** Limits by address, which count the guesses of keys and tokens too. */
  readonly beforeAuth: readonly Limit[];
  readonly afterAuth: readonly Limit[];
}

/** The limits of a gateway. */
export interface GatewayLimits {
  /** Of routes that have any. */
  readonly routes: ReadonlyMap<Route, RouteLimits>;
  /** Of requests that no route takes: nothing but the address is known of them. */
  readonly unrouted: readonly Limit[];
  /** Of tokens and keys that are shown to `/health`. */
  readonly health: readonly Limit[];
}

/**
 * Bounds how many tokens and keys a client may show to `/health`: else they could be guessed there,
 * where no limit of a route counts. A monitor may ask once a second.
 */
const HEALTH_RULE: RateLimitRule = { limit: 60, interval: 60_000 };

/** Compiles the limits of a gateway, whose options were validated. */
export function compileLimits(rule: RateLimitRule | undefined, routes: readonly Route[]): GatewayLimits {
  const unrouted = rule === undefined ? [] : [toLimit('gateway', 'gateway', rule)].filter(isByAddress);
  const limited = routes.filter(({ options }) => (rule ?? options.rateLimit) !== undefined);
  return {
    routes: new Map(limited.map((route) => [route, compileRouteLimits(rule, route.options)])),
    unrouted,
    health: [...unrouted, toLimit('health', 'health', HEALTH_RULE)],
  };
}

/** Compiles the limits of a route. */
export function compileRouteLimits(gatewayRule: RateLimitRule | undefined, route: RouteOptions): RouteLimits {
  const limits: Limit[] = [];
  if (gatewayRule !== undefined) limits.push(toLimit('gateway', 'gateway', gatewayRule));
  if (route.rateLimit !== undefined) limits.push(toLimit('route', nameRoute(route), route.rateLimit));
  return {
    beforeAuth: limits.filter(isByAddress),
    afterAuth: limits.filter((limit) => !isByAddress(limit)),
  };
}

function isByAddress({ by }: Limit): boolean {
  return by.kind === 'address';
}

function toLimit(name: string, scope: string, rule: RateLimitRule): Limit {
  return { name, scope, rule, by: parseCountBy(rule.by) };
}

function nameRoute({ path, methods, host, headers }: RouteOptions): string {
  return JSON.stringify(['route', path, methods, host, headers]);
}

/**
 * Counts a request against limits, all at once. Gives a promise only if the store does.
 *
 * @param earlier the results of limits that it was counted against before, for the fields
 * @throws Rejection 429 if one of them has nothing left
 */
export function takeLimits(
  store: RateLimitStore,
  limits: readonly Limit[],
  client: Client,
  earlier: readonly LimitResult[] = [],
): readonly LimitResult[] | Promise<readonly LimitResult[]> {
  if (limits.length === 0) return earlier;
  const decisions = limits.map(({ scope, rule, by }) =>
    store.take(`${scope}|${nameClient(by, client)}`, rule),
  );
  if (decisions.some((decision) => decision instanceof Promise)) {
    return Promise.all(decisions).then((known) => conclude(limits, known, earlier));
  }
  // None of them is a promise, as was checked.
  return conclude(limits, decisions as RateLimitDecision[], earlier);
}

function conclude(
  limits: readonly Limit[],
  decisions: readonly RateLimitDecision[],
  earlier: readonly LimitResult[],
): readonly LimitResult[] {
  const results = [...earlier, ...limits.map((limit, index) => ({ limit, decision: decisions[index]! }))];
  let wait = 0;
  for (const { allowed, retryAfter } of decisions) if (!allowed) wait = Math.max(wait, retryAfter);
  if (decisions.every(({ allowed }) => allowed)) return results;
  const seconds = Math.max(1, Math.ceil(wait / 1_000));
  throw new Rejection(429, 'rate-limited', `There were too many requests: come again in ${seconds} s.`, {
    ...buildRateLimitFields(results),
    'retry-after': String(seconds),
  });
}
