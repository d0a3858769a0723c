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
  --key-prefix <prefix>  What the names of all keys begin with. Default: holdfast.
  --watch                Goes on, and shows what changes, until it is interrupted with Ctrl-C.
  --json                 For programs: one array; with --watch, one line for each change.
  --timeout <ms>         How long an answer of Redis may take. Default: 5000.

Options:
  -h, --help             Prints this.
  -v, --version          Prints the version of Holdfast.

Exit code: 0 if all went well, 1 if it failed, 2 if the command was not understood.
`;

export interface ServicesCommand {
  readonly command: 'services';
  /** Empty for all. */
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
 * Nothing of what was typed is repeated in a message unless it is sure to be no password.
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
  if (command === undefined) throw misunderstood('a command is missing: services');
  if (command !== 'services') {
    throw misunderstood(
      `there is no command ${/^[\w-]+$/.test(command) ? `'${command}'` : 'of that name'}: services`,
    );
  }
  for (const [index, name] of names.entries()) {
    if (isName(name)) continue;
    throw misunderstood(
      `the name of a service is letters, digits and . _ : - (at most 128), unlike name ${index + 1}; ` +
        'where Redis is goes after --redis',
    );
  }
  return {
    command,
    names: [...new Set(names)],
    redis: redisOf(values.redis, env.REDIS_URL),
    keyPrefix: keyPrefixOf(values['key-prefix']),
    watch: values.watch,
    json: values.json,
    timeout: timeoutOf(values.timeout),
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    // Only the first sentence is about what was typed, and of that only the names of options.
    const [message] = (error as Error).message.split(/\.\s/, 1) as [string];
    throw misunderstood(/[@:]/.test(message) ? 'there is an option that is not known' : message, error);
  }
}

function redisOf(given: string | undefined, fromEnvironment: string | undefined): string {
  const url = given ?? (fromEnvironment || undefined);
  const name = given === undefined ? 'REDIS_URL' : '--redis';
  if (url === undefined) throw misunderstood('where is Redis? Say it with --redis <url>, or with REDIS_URL');
  const wellFormed = /^rediss?:\/\/./.test(url) && URL.canParse(url);
  if (!wellFormed || !/^\/?\d*$/.test(new URL(url).pathname)) {
    throw misunderstood(
      `${name} must be a URL such as redis://127.0.0.1:6379 or redis://:password@host:6379/0, ` +
        'or rediss:// for TLS; what is special in a password must be percent-encoded',
    );
  }
  return url;
}

function keyPrefixOf(given: string): string {
  if (/^[\w.:-]{1,64}$/.test(given)) return given;
  throw misunderstood('--key-prefix must be letters, digits and . _ : - (at most 64)');
}

function timeoutOf(given: string): number {
  const timeout = Number(given);
  try {
    integer(1, MAX_DELAY)(timeout, '--timeout');
  } catch (error) {
    throw misunderstood((error as Error).message, error);
  }
  return timeout;
}

function misunderstood(message: string, cause?: unknown): CommandError {
  return new CommandError(`${message} (holdfast --help tells what there is)`, { exitCode: 2, cause });
}
