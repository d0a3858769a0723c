import { SAGA_STATUSES, type SagaStatus } from '../saga/saga-entry.ts';
import { isName, isSagaId, NAME_FORM, SAGA_ID_FORM } from '../saga/saga-names.ts';
import {
  checkOptions,
  type Environment,
  type OptionName,
  type OptionValues,
  type PostgresPlace,
  type RedisPlace,
  readPostgresPlace,
  readRedisPlace,
  unknownCommand,
  usageError,
} from './options.ts';

/** Names what to do with the sagas of a store. */
export type SagasAction =
  | {
      readonly action: 'list';
      readonly status: SagaStatus | undefined;
      readonly name: string | undefined;
      readonly unclaimed: boolean;
    }
  | { readonly action: 'show' | 'retry' | 'cancel'; readonly sagaId: string }
  | { readonly action: 'skip'; readonly sagaId: string; readonly step: string; readonly reason: string };

/** The place of the store. */
export type SagasPlace = RedisPlace | PostgresPlace;

export type SagasCommand = SagasAction & {
  readonly command: 'sagas';
  readonly store: SagasPlace;
  readonly json: boolean;
};

const SUBCOMMANDS = ['list', 'show', 'retry', 'skip', 'cancel'];
const STORE_OPTIONS: readonly OptionName[] = ['redis', 'key-prefix', 'postgres', 'timeout', 'json'];

export function parseSagasCommand(
  [subcommand, ...args]: readonly string[],
  values: OptionValues,
  env: Environment,
): SagasCommand {
  const action = parseAction(subcommand, args, values);
  return { command: 'sagas', ...action, store: readStore(values, env), json: values.json ?? false };
}

function parseAction(
  subcommand: string | undefined,
  args: readonly string[],
  values: OptionValues,
): SagasAction {
  switch (subcommand) {
    case 'list':
      check(subcommand, values, ['status', 'name', 'unclaimed']);
      if (args.length > 0) throw usageError('sagas list takes no argument');
      return {
        action: subcommand,
        status: readStatus(values.status),
        name: readName(values.name, '--name'),
        unclaimed: values.unclaimed ?? false,
      };
    case 'show':
    case 'retry':
    case 'cancel':
      check(subcommand, values);
      if (args.length !== 1) throw usageError(`sagas ${subcommand} takes one argument: the id of a saga`);
      return { action: subcommand, sagaId: readSagaId(args[0]!) };
    case 'skip':
      check(subcommand, values, ['reason']);
      return parseSkip(args, values.reason);
    default:
      throw unknownCommand('command of sagas', subcommand, SUBCOMMANDS);
  }
}

function parseSkip(args: readonly string[], reason: string | undefined): SagasAction {
  if (args.length !== 2) throw usageError('sagas skip takes two arguments: the id of a saga, and the step');
  if (!reason) throw usageError('sagas skip needs --reason <text>: it is kept with the saga');
  const step = readName(args[1], 'the name of a step')!;
  return { action: 'skip', sagaId: readSagaId(args[0]!), step, reason };
}

function check(subcommand: string, values: OptionValues, more: readonly OptionName[] = []): void {
  checkOptions(`sagas ${subcommand}`, values, [...STORE_OPTIONS, ...more]);
}

/** Reads where the store is: the environment counts if no option says it. */
function readStore(values: OptionValues, env: Environment): SagasPlace {
  const { redis, postgres } = values;
  const inRedis = redis !== undefined || (postgres === undefined && Boolean(env.REDIS_URL));
  const inPostgres = postgres !== undefined || (redis === undefined && Boolean(env.DATABASE_URL));
  if (inRedis === inPostgres) {
    throw usageError(
      inRedis
        ? 'the sagas are in one store: say which with --redis <url> or with --postgres <url>'
        : 'where are the sagas? Say it with --redis <url> or --postgres <url>, or with REDIS_URL or DATABASE_URL',
    );
  }
  if (inRedis) return readRedisPlace(values, env);
  if (values['key-prefix'] !== undefined) throw usageError('--key-prefix is for sagas in Redis');
  return readPostgresPlace(values, env);
}

function readStatus(given: string | undefined): SagaStatus | undefined {
  const status = SAGA_STATUSES.find((known) => known === given);
  if (given === undefined || status !== undefined) return status;
  throw usageError(`--status is one of ${SAGA_STATUSES.join(', ')}`);
}

function readName(given: string | undefined, what: string): string | undefined {
  if (given === undefined || isName(given)) return given;
  throw usageError(`${what} is ${NAME_FORM}`);
}

function readSagaId(given: string): string {
  if (isSagaId(given)) return given;
  throw usageError(`the id of a saga is ${SAGA_ID_FORM}`);
}
