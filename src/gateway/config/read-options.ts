import { createSecureContext } from 'node:tls';
import type { GatewayConfig, GatewayOptions } from '../options.ts';
import type { ServerOptions } from '../server-options.ts';
import { checkConfig } from './cross-checks.ts';
import { config, configFields, serverFields } from './option-shapes.ts';
import { OptionPlace, throwProblems } from './problems.ts';
import { codeOnly, object, type Shape, text } from './shape.ts';

const options = object<GatewayOptions>('GatewayOptions', {
  ...configFields,
  client: hasMethods('a ServiceClient', 'request', 'close'),
  discovery: hasMethods('a ServiceDiscovery', 'instances', 'watch'),
  accessLog: codeOnly((value) => typeof value === 'function', 'a function'),
  rateLimitStore: hasMethods('a store such as a RedisRateLimiter', 'take'),
});

const serverOptions = object<ServerOptions>('ServerOptions', {
  ...serverFields,
  tls: codeOnly((value) => typeof value === 'object' && value !== null, 'an object with key and cert'),
  logger: hasMethods('a logger such as pino', 'info', 'error', 'child'),
});

const pluginPrefix = text(/^(?:\/(?!\.)[\w.~-]+)*$/, "a path such as '/api', without a slash at its end");

function hasMethods(expected: string, ...methods: readonly string[]): Shape {
  return codeOnly((value) => {
    const given = value as Record<string, unknown> | null | undefined;
    return methods.every((method) => typeof given?.[method] === 'function');
  }, expected);
}

/**
 * Reads the options of a gateway. Later changes of the given objects have no effect on the result.
 *
 * @throws GatewayConfigError that tells all that is wrong
 */
export function readGatewayOptions(given: GatewayOptions): GatewayOptions {
  return readChecked(options, given, checkClient) as GatewayOptions;
}

/**
 * Reads the options of the server of a gateway.
 *
 * @throws GatewayConfigError that tells all that is wrong
 */
export function readServerOptions(given: ServerOptions): ServerOptions {
  const place = new OptionPlace([], []);
  const read = serverOptions.read(given, place) as ServerOptions;
  if (place.isClean('tls') && read.tls !== undefined) {
    place.at('tls').tell('tls', () => void createSecureContext(read.tls));
  }
  throwProblems(place.problems);
  return read;
}

/**
 * Reads where a plugin is, and gives the beginning of all its paths.
 *
 * @param appPrefix the prefix of the app that the plugin is registered in
 * @throws GatewayConfigError if the prefix is no plain path
 */
export function readPrefix(appPrefix: string, prefix: unknown): string {
  const place = new OptionPlace(['prefix'], []);
  pluginPrefix.read(typeof prefix === 'string' ? `${appPrefix}${prefix}` : prefix, place);
  throwProblems(place.problems);
  return `${appPrefix}${prefix}`;
}

/**
 * Reads the options that can be replaced while a gateway runs.
 *
 * @throws GatewayConfigError that tells all that is wrong
 */
export function readGatewayConfig(given: GatewayConfig): GatewayConfig {
  return readChecked(config, given) as GatewayConfig;
}

function checkClient({ client, discovery }: GatewayOptions, place: OptionPlace): void {
  if (client === undefined && discovery === undefined) {
    place.report("needs the option 'client' or 'discovery'");
  }
  if (client !== undefined && discovery !== undefined) {
    place.at('discovery').report('is for a client of its own, and `client` was given');
  }
}

function readChecked(
  shape: Shape,
  given: unknown,
  check: (value: GatewayOptions, place: OptionPlace) => void = () => {},
): unknown {
  const place = new OptionPlace([], []);
  const result = shape.read(given, place) as GatewayOptions;
  if (shape.accepts(given)) {
    check(result, place);
    checkConfig(result, place);
  }
  throwProblems(place.problems);
  return result;
}
