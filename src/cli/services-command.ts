import { unescape as decode } from 'node:querystring';
import { HoldfastError } from '../errors.ts';
import { checkRedisSource, RedisConnection } from '../redis/redis-connection.ts';
import { ServiceRegistry } from '../redis/service-registry.ts';
import type { ServicesCommand } from './arguments.ts';
import { CommandError } from './command-error.ts';
import type { CommandIo } from './command-io.ts';
import type { Output } from './output.ts';
import { printableJson } from './printable.ts';
import { readServices, toJsonService } from './service-report.ts';
import { formatServices } from './service-table.ts';
import { ServiceWatch, type WatchView } from './service-watch.ts';
import { createJsonLinesView, createLinesView, createScreenView } from './watch-views.ts';

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
  checkUrl(command.redis);
  const connection = new RedisConnection(command.redis, command.timeout);
  const registry = new ServiceRegistry(connection, command.keyPrefix);
  try {
    if (command.watch) await watch(command, connection, registry, output, io);
    else await list(command, connection, registry, output);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new CommandError(redactPassword(error.message, command.redis), { cause: error });
  } finally {
    await connection.close();
  }
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

function describePlace({ keyPrefix }: ServicesCommand, { address }: RedisConnection): string {
  return `with the prefix '${keyPrefix}' in Redis at ${address}`;
}

function checkUrl(url: string): void {
  try {
    checkRedisSource(url, 'the URL of Redis');
  } catch (error) {
    throw new CommandError((error as Error).message, { exitCode: 2, cause: error });
  }
}

/** Replaces the password, since Redis may repeat in an error what it was sent. */
function redactPassword(text: string, url: string): string {
  const { password, searchParams } = new URL(url);
  const secrets = [password, decode(password), searchParams.get('password') ?? ''].filter(Boolean);
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
}
