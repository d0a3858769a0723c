import { isName } from '../discovery/service-instance.ts';
import {
  checkOptions,
  type Environment,
  type OptionName,
  type OptionValues,
  type PostgresPlace,
  REDIS_OPTIONS,
  type RedisPlace,
  readPostgresPlace,
  readRedisPlace,
  unknownCommand,
  usageError,
} from './options.ts';

/** Names what to do with the events in Redis. */
export type EventsAction =
  | { readonly action: 'lag' | 'pending' | 'dead'; readonly group: string | undefined }
  | { readonly action: 'show'; readonly eventId: string }
  | { readonly action: 'redrive'; readonly eventId: string; readonly group: string | undefined }
  | { readonly action: 'redrive-all'; readonly group: string }
  | { readonly action: 'groups' }
  | { readonly action: 'remove-group'; readonly group: string };

export type RedisEventsCommand = EventsAction &
  RedisPlace & { readonly command: 'events'; readonly json: boolean };

export interface ResetSourceCommand extends PostgresPlace {
  readonly command: 'events';
  readonly action: 'reset-source';
  readonly json: boolean;
}

export type EventsCommand = RedisEventsCommand | ResetSourceCommand;

const SUBCOMMANDS = ['lag', 'pending', 'dead', 'show', 'redrive', 'groups', 'remove-group', 'reset-source'];

export function parseEventsCommand(
  [subcommand, ...args]: readonly string[],
  values: OptionValues,
  env: Environment,
): EventsCommand {
  const { json = false } = values;
  if (subcommand === 'reset-source') {
    check(subcommand, args, 0, values, ['postgres', 'timeout', 'json']);
    return { command: 'events', action: subcommand, ...readPostgresPlace(values, env), json };
  }
  const action = parseAction(subcommand, args, values);
  return { command: 'events', ...action, ...readRedisPlace(values, env), json };
}

function parseAction(
  subcommand: string | undefined,
  args: readonly string[],
  values: OptionValues,
): EventsAction {
  switch (subcommand) {
    case 'lag':
    case 'pending':
    case 'dead':
      check(subcommand, args, 0, values, [...REDIS_OPTIONS, 'group']);
      return { action: subcommand, group: readGroup(values.group) };
    case 'groups':
      check(subcommand, args, 0, values, REDIS_OPTIONS);
      return { action: subcommand };
    case 'show':
      check(subcommand, args, 1, values, REDIS_OPTIONS);
      return { action: subcommand, eventId: readEventId(args[0]!) };
    case 'remove-group':
      check(subcommand, args, 1, values, REDIS_OPTIONS);
      return { action: subcommand, group: readGroup(args[0])! };
    case 'redrive':
      return parseRedrive(args, values);
    default:
      throw unknownCommand('command of events', subcommand, SUBCOMMANDS);
  }
}

function parseRedrive(args: readonly string[], values: OptionValues): EventsAction {
  check('redrive', args, values.all ? 0 : 1, values, [...REDIS_OPTIONS, 'group', 'all']);
  const group = readGroup(values.group);
  if (!values.all) return { action: 'redrive', eventId: readEventId(args[0]!), group };
  if (group === undefined) throw usageError('events redrive --all needs --group <group>');
  return { action: 'redrive-all', group };
}

const ARGUMENTS: Readonly<Record<string, string>> = {
  show: 'the id of an event',
  redrive: 'the id of an event, or --all',
  'remove-group': 'the name of a group',
};

/** Checks how many arguments there are, and the options. */
function check(
  subcommand: string,
  args: readonly string[],
  count: 0 | 1,
  values: OptionValues,
  options: readonly OptionName[],
): void {
  checkOptions(`events ${subcommand}`, values, options);
  if (args.length === count) return;
  throw usageError(
    count === 0
      ? `events ${subcommand} takes no argument${values.all ? ' beside --all' : ''}`
      : `events ${subcommand} takes one argument: ${ARGUMENTS[subcommand]}`,
  );
}

function readGroup(given: string | undefined): string | undefined {
  if (given === undefined || isName(given)) return given;
  throw usageError('the name of a group is letters, digits and . _ : - (at most 128)');
}

function readEventId(given: string): string {
  if (given.length > 0 && given.length <= 256) return given;
  throw usageError('the id of an event has 1 to 256 characters');
}
