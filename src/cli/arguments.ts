import { parseArgs } from 'node:util';
import { isName } from '../discovery/service-instance.ts';
import { integer, MAX_DELAY } from '../internal/validate.ts';
import { CommandError } from './command-error.ts';

export const USAGE = `Usage: holdfast <command> [options]

Commands:
  services [name...]     Lists services and their instances, as they are registered in Redis;
                         all services, or those that are named.

Options of services:
  --redis <url>          Where Redis is: redis://[[user]:password@]host[:port][/database], or
                         rediss:// for TLS. Default: REDIS_URL of the environment, which keeps
                         a password out of the list of processes.
  --key-prefix <prefix>  The beginning of the names of all keys. Default: holdfast.
  --watch                Goes on, and shows each change, until it is interrupted with Ctrl-C.
  --json                 For programs: one array; with --watch, one line for each change.
  --timeout <ms>         How long a command to Redis may take. Default: 5000.

Options:
  -h, --help             Prints this.
  -v, --version          Prints the version of Holdfast.

Exit code: 0 if all went well, 1 if it failed, 2 if the command was not understood.
`;

export interface ServicesCommand {
  readonly command: 'services';
  /** The names of the services; empty for all. */
  readonly names: readonly string[];
  readonly redis: string;
  readonly keyPrefix: string;
  readonly watch: boolean;
  readonly json: boolean;
  /** Milliseconds. */
  readonly timeout: number;
}

export type Command = { readonly command: 'help' | 'version' } | ServicesCommand;

const options = {
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
  redis: { type: 'string' },
  'key-prefix': { type: 'string', default: 'holdfast' },
  watch: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  timeout: { type: 'string', default: '5000' },
} as const;

/**
 * Parses a command line. A message repeats no argument that may be a password.
 *
 * @throws CommandError
 */
export function parseCommand(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Command {
  const { values, positionals } = parse(args);
  if (values.help) return { command: 'help' };
  if (values.version) return { command: 'version' };
  const [command, ...names] = positionals;
  if (command === undefined) throw usageError('a command is missing: services');
  if (command !== 'services') {
    throw usageError(
      `there is no command ${/^[\w-]+$/.test(command) ? `'${command}'` : 'of that name'}: services`,
    );
  }
  for (const [index, name] of names.entries()) {
    if (isName(name)) continue;
    throw usageError(
      `the name of a service is letters, digits and . _ : - (at most 128), unlike name ${index + 1}; ` +
        'where Redis is goes after --redis',
    );
  }
  return {
    command,
    names: [...new Set(names)],
    redis: parseRedisUrl(values.redis, env.REDIS_URL),
    keyPrefix: parseKeyPrefix(values['key-prefix']),
    watch: values.watch,
    json: values.json,
    timeout: parseTimeout(values.timeout),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    // The first sentence repeats only the names of options.
    const [message] = (error as Error).message.split(/\.\s/, 1) as [string];
    throw usageError(/[@:]/.test(message) ? 'there is an option that is not known' : message, error);
  }
}

function parseRedisUrl(given: string | undefined, fromEnvironment: string | undefined): string {
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

function parseKeyPrefix(given: string): string {
  if (/^[\w.:-]{1,64}$/.test(given)) return given;
  throw usageError('--key-prefix must be letters, digits and . _ : - (at most 64)');
}

function parseTimeout(given: string): number {
  const timeout = Number(given);
  try {
    integer(1, MAX_DELAY)(timeout, '--timeout');
  } catch (error) {
    throw usageError((error as Error).message, error);
  }
  return timeout;
}

function usageError(message: string, cause?: unknown): CommandError {
  return new CommandError(`${message} (holdfast --help lists the commands and options)`, {
    exitCode: 2,
    cause,
  });
}
