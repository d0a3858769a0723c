import { parseArgs } from 'node:util';
import { integer, MAX_DELAY } from '../internal/validate.ts';
import { CommandError } from './command-error.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where Redis is, and what keys to look at. */
export interface RedisPlace {
  readonly redis: string;
  readonly keyPrefix: string;
  /** Milliseconds that a command to Redis may take. */
  readonly timeout: number;
}

/** The place of a database of PostgreSQL. */
export interface PostgresPlace {
  readonly postgres: string;
  /** Milliseconds that a statement may take. */
  readonly timeout: number;
}

/** The options of all commands. Which command takes which, `checkOptions` tells. */
const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
  redis: { type: 'string' },
  'key-prefix': { type: 'string' },
  timeout: { type: 'string' },
  json: { type: 'boolean' },
  watch: { type: 'boolean' },
  group: { type: 'string' },
  all: { type: 'boolean' },
  postgres: { type: 'string' },
  status: { type: 'string' },
  name: { type: 'string' },
  unclaimed: { type: 'boolean' },
  reason: { type: 'string' },
  config: { type: 'string' },
  check: { type: 'boolean' },
  host: { type: 'string' },
  port: { type: 'string' },
} as const;

export type OptionName = keyof typeof OPTIONS;

export type OptionValues = ReturnType<typeof parseOptions>['values'];

export function parseOptions(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
  } catch (error) {
    // The first sentence repeats only the names of options.
    const [message] = (error as Error).message.split(/\.\s/, 1) as [string];
    throw usageError(/[@:]/.test(message) ? 'there is an option that is not known' : message, error);
  }
}

/** Rejects the options that a command does not take. */
export function checkOptions(command: string, values: OptionValues, taken: readonly OptionName[]): void {
  for (const name of Object.keys(values) as OptionName[]) {
    if (!taken.includes(name)) throw usageError(`${command} takes no option --${name}`);
  }
}

export const REDIS_OPTIONS: readonly OptionName[] = ['redis', 'key-prefix', 'timeout', 'json'];

export function readRedisPlace(values: OptionValues, env: Environment): RedisPlace {
  return {
    redis: readRedisUrl(values.redis, env.REDIS_URL),
    keyPrefix: readKeyPrefix(values['key-prefix']),
    timeout: readTimeout(values.timeout),
  };
}

function readRedisUrl(given: string | undefined, fromEnvironment: string | undefined): string {
  const url = given ?? (fromEnvironment || undefined);
  const name = given === undefined ? 'REDIS_URL' : '--redis';
  if (url === undefined) throw usageError('where is Redis? Say it with --redis <url>, or with REDIS_URL');
  const wellFormed = /^rediss?:\/\/./.test(url) && URL.canParse(url);
  if (!wellFormed || !/^\/?\d*$/.test(new URL(url).pathname)) {
    throw usageError(
      `${name} must be a URL such as redis://127.0.0.1:6379 or redis://:password@host:6379/0, ` +
        'or rediss:// for TLS; what is special in a password must be percent-encoded',
    );
  }
  return url;
}

export function readPostgresPlace(values: OptionValues, env: Environment): PostgresPlace {
  return { postgres: readPostgresUrl(values, env), timeout: readTimeout(values.timeout) };
}

function readPostgresUrl({ postgres: given }: OptionValues, env: Environment): string {
  const url = given ?? (env.DATABASE_URL || undefined);
  const name = given === undefined ? 'DATABASE_URL' : '--postgres';
  if (url === undefined) {
    throw usageError('where is the database? Say it with --postgres <url>, or with DATABASE_URL');
  }
  if (/^postgres(ql)?:\/\/./.test(url) && URL.canParse(url)) return url;
  throw usageError(
    `${name} must be a URL such as postgres://user:password@host:5432/orders; ` +
      'what is special in a password must be percent-encoded',
  );
}

function readKeyPrefix(given = 'holdfast'): string {
  if (/^[\w.:-]{1,64}$/.test(given)) return given;
  throw usageError('--key-prefix must be letters, digits and . _ : - (at most 64)');
}

function readTimeout(given = '5000'): number {
  const timeout = Number(given);
  try {
    integer(1, MAX_DELAY)(timeout, '--timeout');
  } catch (error) {
    throw usageError((error as Error).message, error);
  }
  return timeout;
}

/** Creates the error of a command line that is not understood. It must repeat nothing that may be a password. */
export function usageError(message: string, cause?: unknown): CommandError {
  return new CommandError(`${message} (holdfast --help lists the commands and options)`, {
    exitCode: 2,
    cause,
  });
}

/** Creates the error of a command that is missing, or not known. */
export function unknownCommand(
  what: string,
  given: string | undefined,
  known: readonly string[],
): CommandError {
  const list = known.join(', ');
  if (given === undefined) return usageError(`a ${what} is missing: ${list}`);
  return usageError(`there is no ${what} ${/^[\w-]+$/.test(given) ? `'${given}'` : 'of that name'}: ${list}`);
}
