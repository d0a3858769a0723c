import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { ServiceClient } from '../client/service-client.ts';
import { StaticServiceDiscovery } from '../discovery/static-service-discovery.ts';
import { HoldfastError } from '../errors.ts';
import type { DiscoveryFileOptions, ServerFileOptions } from '../gateway/config/file-options.ts';
import { GatewayFile } from '../gateway/config/gateway-file.ts';
import { createGateway, type GatewayServer } from '../gateway/create-gateway.ts';
import type { RedisRateLimiter } from '../redis/redis-rate-limiter.ts';
import { CommandError } from './command-error.ts';
import type { CommandIo } from './command-io.ts';
import { createAccessLog } from './gateway-access-log.ts';
import type { GatewayCommand } from './gateway-arguments.ts';
import { GatewayBreakers } from './gateway-breakers.ts';
import { createDiscovery, lookUp } from './gateway-discovery.ts';
import { GatewayLog } from './gateway-log.ts';
import { load } from './load.ts';
import type { Output } from './output.ts';

const DEFAULT_PORT = 8080;

/**
 * Checks the file of a gateway; or starts one, and runs it until the process is told to end.
 *
 * @throws CommandError if the file is not allowed, or the gateway cannot be started
 */
export async function runGatewayCommand(
  command: GatewayCommand,
  output: Output,
  io: CommandIo,
): Promise<void> {
  try {
    const file = await GatewayFile.open(command.config, io.env);
    const { discovery } = file.options;
    if (discovery === undefined) throw new CommandError(`${file.path} needs the option 'discovery'`);
    if (command.check) await check(file, output);
    else await serve(command, file, discovery, { ...io, output });
  } catch (error) {
    const isSystemError = error instanceof Error && 'syscall' in error;
    if (!(error instanceof HoldfastError || isSystemError)) throw error;
    throw new CommandError(error.message, { cause: error });
  }
}

/** Checks a file as its start would, but for what it needs of others: the discovery, and a free port. */
async function check(file: GatewayFile, output: Output): Promise<void> {
  const { host, port, accessLog, ...server } = await readServer(file);
  const discovery = new StaticServiceDiscovery({});
  const gateway = await createGateway({ discovery, ...server, ...file.config });
  await gateway.close();
  const { length } = file.config.routes;
  output.write(`${file.path} is allowed: ${length} route${length === 1 ? '' : 's'}\n`);
}

async function serve(
  command: GatewayCommand,
  file: GatewayFile,
  discoveryOptions: DiscoveryFileOptions,
  { stderr, termination: onTermination, output }: CommandIo & { output: Output },
): Promise<void> {
  const log = new GatewayLog(stderr, command.json);
  const termination = onTermination();
  const discovery = await createDiscovery(discoveryOptions, log);
  const client = new ServiceClient({ discovery });
  const rateLimitStore = await createRateLimitStore(file, log);
  try {
    const { host, port = DEFAULT_PORT, accessLog, ...server } = await readServer(file);
    const gateway = await createGateway({
      client,
      rateLimitStore,
      ...server,
      ...(accessLog && { accessLog: createAccessLog(output, command.json) }),
      ...file.config,
    });
    try {
      const breakers = new GatewayBreakers(client, log);
      breakers.follow(file.config.routes);
      lookUp(
        discovery,
        file.config.routes.map(({ service }) => service),
      );
      const url = await gateway.listen({ port: command.port ?? port, host: command.host ?? host });
      log.info(`the gateway listens at ${url}`);
      follow(file, gateway, breakers, log);
      if (!termination.aborted) await new Promise((done) => termination.addEventListener('abort', done));
      log.info('the gateway ends: requests in flight are completed');
    } finally {
      file.close();
      await gateway.close();
    }
  } finally {
    await client.close();
    await rateLimitStore?.close();
    await discovery.close();
  }
}

function follow(file: GatewayFile, gateway: GatewayServer, breakers: GatewayBreakers, log: GatewayLog): void {
  file.on('failure', ({ error }) => log.warn(`${error.message}\nthe old configuration stays`));
  file.on('reload', ({ ignored }) => {
    log.info(`${file.path} was reloaded`);
    if (ignored.length > 0) log.warn(`changes of ${ignored.join(', ')} need a restart`);
  });
  file.follow({
    async reload(changes) {
      await gateway.reload(changes);
      breakers.follow(changes.routes!);
    },
  });
}

async function createRateLimitStore(
  file: GatewayFile,
  log: GatewayLog,
): Promise<RedisRateLimiter | undefined> {
  const options = file.options.rateLimitStore?.redis;
  if (options === undefined) return undefined;
  const { url, ...redis } = options;
  const { RedisRateLimiter } = await load(
    'counting in Redis',
    'ioredis',
    () => import('../redis/redis-rate-limiter.ts'),
  );
  const limiter = new RedisRateLimiter({ redis: url, ...redis });
  limiter.on('unavailable', ({ error }) => {
    log.warn(`rate limits are counted in this process alone: ${error?.message ?? 'Redis is too slow'}`);
  });
  limiter.on('available', () => log.info('rate limits are counted in Redis again'));
  return limiter;
}

type Server = Omit<ServerFileOptions, 'tls'> & { tls?: { key: Buffer; cert: Buffer } | undefined };

async function readServer({ path, options: { server = {} } }: GatewayFile): Promise<Server> {
  const { tls, ...rest } = server;
  if (tls === undefined) return rest;
  const read = (name: string) => readFile(resolve(dirname(path), name));
  const [key, cert] = await Promise.all([read(tls.keyFile), read(tls.certFile)]);
  try {
    createSecureContext({ key, cert });
  } catch (cause) {
    const message = `${tls.keyFile} and ${tls.certFile} are no key and its certificate: ${(cause as Error).message}`;
    throw new CommandError(message, { cause });
  }
  return { ...rest, tls: { key, cert } };
}
