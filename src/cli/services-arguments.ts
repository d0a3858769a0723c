import { isName } from '../discovery/service-instance.ts';
import {
  checkOptions,
  type Environment,
  type OptionValues,
  REDIS_OPTIONS,
  type RedisPlace,
  readRedisPlace,
  usageError,
} from './options.ts';

export interface ServicesCommand extends RedisPlace {
  readonly command: 'services';
  /** The names of the services; empty for all. */
  readonly names: readonly string[];
  readonly watch: boolean;
  readonly json: boolean;
}

export function parseServicesCommand(
  names: readonly string[],
  values: OptionValues,
  env: Environment,
): ServicesCommand {
  checkOptions('services', values, [...REDIS_OPTIONS, 'watch']);
  for (const [index, name] of names.entries()) {
    if (isName(name)) continue;
    throw usageError(
      `the name of a service is letters, digits and . _ : - (at most 128), unlike name ${index + 1}; ` +
        'where Redis is goes after --redis',
    );
  }
  const { watch = false, json = false } = values;
  return { command: 'services', names: [...new Set(names)], ...readRedisPlace(values, env), watch, json };
}
