import type { RateLimitRule } from '../../middleware/server/rate-limit/rate-limit-store.ts';
import { checkAuthOptions } from '../auth/auth-options.ts';
import { toDashes } from '../http/header-name.ts';
import type { CorsOptions, GatewayConfig, HeaderRules, RouteOptions, SplitOptions } from '../options.ts';
import { HEALTH_PATH, JWKS_PATH } from '../own-paths.ts';
import { compileRewrite, type PathPattern, parsePattern } from '../routing/path-pattern.ts';
import type { OptionPlace } from './problems.ts';

/** By how much the sum of shares may differ from 1: a third thrice is not quite 1. */
const SHARE_TOLERANCE = 1e-6;

/** Headers that say where a message ends and whom a connection is for: the gateway alone sets them. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-holdfast-identity',
]);

/** The paths at which the gateway itself responds to GET: no route of these could. */
const OWN_PATHS: readonly string[] = [HEALTH_PATH, JWKS_PATH];

export function checkRoute(route: RouteOptions, place: OptionPlace): void {
  checkPaths(route, place);
  const { split, sticky, auth, deprecation, sunset, headers } = route;
  if (split !== undefined) checkSplit(split, place.at('split'));
  else if (sticky !== undefined)
    place.at('sticky').report('needs `split`: it keeps a client at one version of it');
  if (auth === false && sticky?.startsWith('claim:')) {
    place.at('sticky').report('is a claim, and the route takes requests without a token: `auth` is false');
  }
  checkRule(route.rateLimit, auth === false, place.at('rateLimit'));
  if (deprecation !== undefined && sunset !== undefined && Date.parse(sunset) < Date.parse(deprecation)) {
    place.at('sunset').report('is before `deprecation`');
  }
  checkTwice(headers ?? {}, place.at('headers'));
}

function checkPaths({ path, rewrite }: RouteOptions, place: OptionPlace): void {
  let pattern: PathPattern | undefined;
  place.at('path').tell('the path', () => {
    pattern = parsePattern(path, 'the path');
  });
  if (pattern === undefined || rewrite === undefined) return;
  const parsed = pattern;
  place.at('rewrite').tell('the new path', () => void compileRewrite(rewrite, parsed, 'the new path'));
}

function checkSplit(split: readonly SplitOptions[], place: OptionPlace): void {
  const sum = split.reduce((total, { share }) => total + share, 0);
  if (Math.abs(sum - 1) > SHARE_TOLERANCE)
    place.report(`has shares that add up to ${Number(sum.toFixed(6))}, not 1`);
  const first = new Map<string, number>();
  for (const [index, { select }] of split.entries()) {
    const key = JSON.stringify(Object.entries(select).sort());
    if (Object.keys(select).length === 0) place.at(index, 'select').report('names no version: it is empty');
    else if (first.has(key))
      place.at(index, 'select').report(`is the version of split[${first.get(key)}] again`);
    first.set(key, index);
  }
}

function checkRule(rule: RateLimitRule | undefined, open: boolean, place: OptionPlace): void {
  if (!open || rule?.by === undefined || rule.by === 'address') return;
  place.at('by').report('needs a caller, and the route takes requests of anybody: `auth` is false');
}

export function checkHeaderRules({ set = {}, remove = [] }: HeaderRules, place: OptionPlace): void {
  for (const name of Object.keys(set))
    if (OWN_HEADERS.has(toDashes(name.toLowerCase()))) reportOwn(place.at('set', name));
  for (const [index, name] of remove.entries()) {
    if (OWN_HEADERS.has(toDashes(name.toLowerCase()))) reportOwn(place.at('remove', index));
  }
  checkTwice(set, place.at('set'));
}

function reportOwn(place: OptionPlace): void {
  place.report('is a header that the gateway itself sets');
}

/** Header names differ not by case, as names of fields do. */
function checkTwice(headers: Readonly<Record<string, string>>, place: OptionPlace): void {
  const seen = new Set<string>();
  for (const name of Object.keys(headers)) {
    if (seen.has(name.toLowerCase())) place.at(name).report('is there twice, in other letters');
    seen.add(name.toLowerCase());
  }
}

export function checkCors({ origins, credentials }: CorsOptions, place: OptionPlace): void {
  if (origins !== '*' || !credentials) return;
  place.report(
    "lets every origin read responses with a client's credentials: list the origins, or leave credentials out",
  );
}

/** Checks what is right by itself: a route with problems of its own is left out, and so is a wrong `auth`. */
export function checkConfig(config: GatewayConfig, place: OptionPlace): void {
  const { auth } = config;
  if (auth !== undefined && place.isClean('auth'))
    place.at('auth').tell('auth', () => checkAuthOptions(auth));
  if (!Array.isArray(config.routes)) return;
  const taken = new Map<string, Taken[]>();
  for (const [index, route] of config.routes.entries()) {
    if (!place.isClean('routes', index)) continue;
    const at = place.at('routes', index);
    checkUnique(route, index, taken, at);
    if (place.isClean('auth')) checkAuth(route, config, at);
    checkOwnPath(route, at.at('path'));
  }
  if (place.isClean('auth') && place.isClean('rateLimit'))
    checkBy(config.rateLimit, config, place.at('rateLimit'));
}

/** @param taken what earlier routes take, by their rank */
function checkUnique(
  route: RouteOptions,
  index: number,
  taken: Map<string, Taken[]>,
  place: OptionPlace,
): void {
  const own = describeTaken(route, index);
  const rank = rankOf(route);
  const earlier = taken.get(rank) ?? [];
  const same = earlier.find((other) => overlap(own, other));
  if (same !== undefined)
    place.report(`takes requests that routes[${same.index}] takes, and neither is the more specific`);
  taken.set(rank, [...earlier, own]);
}

function checkOwnPath({ path, methods = ['GET'] }: RouteOptions, place: OptionPlace): void {
  if (!OWN_PATHS.includes(toComparable(path)) || !methods.includes('GET')) return;
  place.report('is where the gateway itself responds to GET: name other `methods`, or another path');
}

function checkAuth(route: RouteOptions, config: GatewayConfig, place: OptionPlace): void {
  if (route.auth === false) return;
  if (config.auth === undefined) {
    place.report(
      'needs a caller with a token or a key, and there is no `auth`: configure it, or let all in with `auth: false`',
    );
    return;
  }
  if (route.sticky?.startsWith('claim:') && config.auth.jwt === undefined) {
    place.at('sticky').report('is a claim, and there is no `auth.jwt`');
  }
  checkBy(route.rateLimit, config, place.at('rateLimit'));
}

/** Checks that there are callers of the kind that a rule counts. */
function checkBy(rule: RateLimitRule | undefined, { auth }: GatewayConfig, place: OptionPlace): void {
  if (rule?.by?.startsWith('claim:') && auth?.jwt === undefined) {
    place.at('by').report('is a claim, and there is no `auth.jwt`');
  }
  if (rule?.by === 'key' && auth?.apiKeys === undefined) {
    place.at('by').report('is the API key, and there is no `auth.apiKeys`');
  }
}

/** The requests that a route takes, as far as one of them may be another route's too. */
interface Taken {
  readonly index: number;
  readonly hosts: readonly string[];
  /** Undefined for all. */
  readonly methods: readonly string[] | undefined;
}

function describeTaken({ host = '*', methods }: RouteOptions, index: number): Taken {
  return {
    index,
    hosts: [host].flat().map((one) => one.toLowerCase()),
    methods: methods?.includes('GET') ? [...methods, 'HEAD'] : methods,
  };
}

/** Writes what makes a route more specific than others, so that it is the same where none of two is. */
function rankOf({ path, headers = {} }: RouteOptions): string {
  const names = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  return JSON.stringify([toComparable(path), names.sort()]);
}

/** Writes a path in its canonical form, whatever the parameters are called. */
function toComparable(path: string): string {
  const { segments, wildcard } = parsePattern(path, 'the path');
  const texts = segments.map((segment) => (segment.kind === 'literal' ? segment.text : ':'));
  return `/${[...texts, ...(wildcard ? ['*'] : [])].join('/')}`;
}

function overlap(one: Taken, other: Taken): boolean {
  return (
    meet(one.hosts, other.hosts) &&
    (one.methods === undefined || other.methods === undefined || meet(one.methods, other.methods))
  );
}

function meet(some: readonly string[], others: readonly string[]): boolean {
  return some.some((one) => others.includes(one));
}
