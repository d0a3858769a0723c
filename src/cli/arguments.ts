import { type EventsCommand, parseEventsCommand } from './events-arguments.ts';
import { type GatewayCommand, parseGatewayCommand } from './gateway-arguments.ts';
import { type Environment, parseOptions, unknownCommand } from './options.ts';
import { parseSagasCommand, type SagasCommand } from './sagas-arguments.ts';
import { parseServicesCommand, type ServicesCommand } from './services-arguments.ts';

export const USAGE = `Usage: holdfast <command> [options]

Commands:
  services [name...]     Lists services and their instances, as they are registered in Redis;
                         all services, or those that are named.
  events lag             Lists what each group has not handled, by partition, and who owns it.
  events pending         Lists the events that have failed and will be handled again, and those
                         that wait for a process which knows their version.
  events dead            Lists the events that groups have given up, the oldest first.
  events show <id>       Shows an event, how far each group is with it, and its errors.
  events redrive <id>    Takes an event from the dead letters, and delivers it to its group again.
  events redrive --all   Does so with all dead letters of a group.
  events groups          Lists the groups and how many of their subscriptions are alive.
  events remove-group <group>
                         Forgets a group that has no subscriptions, with its dead letters.
  events reset-source    Gives a database that was restored from a backup, or copied, a new id:
                         else the bus takes the events of its outbox for known ones.
  sagas list             Lists sagas, the oldest first.
  sagas show <id>        Shows a saga, and what has happened to it.
  sagas retry <id>       Lets a stuck saga go on where it is stuck.
  sagas skip <id> <step> Lets a stuck saga go on without the step at which it is stuck, or without
                         its compensation: somebody has done by hand what is needed.
  sagas cancel <id>      Cancels a saga that has not reached its pivot: it is compensated.
  gateway                Starts an API gateway, and reloads its file whenever it changes.
  gateway --check        Says whether the file is allowed, and starts nothing.

Options of services, events and sagas:
  --redis <url>          Where Redis is: redis://[[user]:password@]host[:port][/database], or
                         rediss:// for TLS. Default: REDIS_URL of the environment, which keeps
                         a password out of the list of processes.
  --key-prefix <prefix>  The beginning of the names of all keys. Default: holdfast.
  --json                 For programs: one array; with --watch, one line for each change.
  --timeout <ms>         How long a command to Redis, or to the database, may take.
                         Default: 5000.

Options of services:
  --watch                Goes on, and shows each change, until it is interrupted with Ctrl-C.

Options of events:
  --group <group>        Of lag, pending, dead and redrive: only this group. redrive needs it
                         if the event is in the dead letters of several groups.
  --postgres <url>       Of reset-source: where the database is. Default: DATABASE_URL of the
                         environment.

Options of sagas:
  --postgres <url>       Where the database is, for sagas in PostgreSQL; --redis for those in Redis.
                         Default: REDIS_URL or DATABASE_URL of the environment, if one of them is set.
  --status <status>      Of list: only running, compensating, completed, compensated or stuck ones.
  --name <name>          Of list: only those of this definition.
  --unclaimed            Of list: only those that have been due for five minutes.
  --reason <text>        Of skip: why; it is kept with the saga.

Options of gateway:
  --config <file>        The configuration, as YAML or JSON: see docs/gateway.md.
  --host <host>          Where it listens. Default: that of the file, or 127.0.0.1.
  --port <port>          Default: that of the file, or 8080.
  --json                 Writes its log as lines of JSON.

Options:
  -h, --help             Prints this.
  -v, --version          Prints the version of Holdfast.

Exit code: 0 if all went well, 1 if it failed, 2 if the command was not understood.
`;

export type Command =
  | { readonly command: 'help' | 'version' }
  | ServicesCommand
  | EventsCommand
  | SagasCommand
  | GatewayCommand;

/**
 * Parses a command line. A message repeats no argument that may be a password.
 *
 * @throws CommandError
 */
export function parseCommand(args: readonly string[], env: Environment): Command {
  const { values, positionals } = parseOptions(args);
  if (values.help) return { command: 'help' };
  if (values.version) return { command: 'version' };
  const [command, ...rest] = positionals;
  switch (command) {
    case 'services':
      return parseServicesCommand(rest, values, env);
    case 'events':
      return parseEventsCommand(rest, values, env);
    case 'sagas':
      return parseSagasCommand(rest, values, env);
    case 'gateway':
      return parseGatewayCommand(rest, values);
    default:
      throw unknownCommand('command', command, ['services', 'events', 'sagas', 'gateway']);
  }
}
