import type { RedisConnection } from '../redis/redis-connection.ts';
import { ServiceRegistry } from '../redis/service-registry.ts';
import type { CommandIo } from './command-io.ts';
import type { Output } from './output.ts';
import { printableJson } from './printable.ts';
import { redactPassword } from './redact.ts';
import { readServices, toJsonService } from './service-report.ts';
import { formatServices } from './service-table.ts';
import { ServiceWatch, type WatchView } from './service-watch.ts';
import type { ServicesCommand } from './services-arguments.ts';
import { createJsonLinesView, createLinesView, createScreenView } from './watch-views.ts';
import { describePlace, withRedis } from './with-redis.ts';

/**
 * Lists services, or watches them.
 *
 * @throws CommandError if Redis is away, takes too long, or replies with an error; or for a URL
 * that cannot be used.
 */
export async function runServicesCommand(
  command: ServicesCommand,
  output: Output,
  io: CommandIo,
): Promise<void> {
  await withRedis(command, async (connection) => {
    const registry = new ServiceRegistry(connection, command.keyPrefix);
    if (command.watch) await watch(command, connection, registry, output, io);
    else await list(command, connection, registry, output);
  });
}

async function list(
  command: ServicesCommand,
  connection: RedisConnection,
  registry: ServiceRegistry,
  output: Output,
): Promise<void> {
  const { names, json } = command;
  const listed = names.length > 0 ? names : await registry.services();
  const reports = await readServices(registry, listed);
  if (json) output.write(`${printableJson(reports.map(toJsonService), 2)}\n`);
  else output.writeLines(formatServices(reports, describePlace(command, connection)));
}

async function watch(
  command: ServicesCommand,
  connection: RedisConnection,
  registry: ServiceRegistry,
  output: Output,
  { env, interruption }: CommandIo,
): Promise<void> {
  const ending = AbortSignal.any([interruption(), output.closed]);
  ending.addEventListener('abort', () => void connection.close(), { once: true });
  const watching = new ServiceWatch(connection, registry, {
    names: command.names,
    view: createView(command, output, describePlace(command, connection), env),
    describe: (error) => redactPassword(error.message, command.redis),
  });
  await watching.run(ending);
}

function createView(
  { json }: ServicesCommand,
  output: Output,
  place: string,
  env: CommandIo['env'],
): WatchView {
  if (json) return createJsonLinesView(output);
  return output.stream.isTTY && env.TERM !== 'dumb'
    ? createScreenView(output, place)
    : createLinesView(output, place);
}
