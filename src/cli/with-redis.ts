import { HoldfastError } from '../errors.ts';
import { checkRedisSource, RedisConnection } from '../redis/redis-connection.ts';
import { CommandError } from './command-error.ts';
import type { RedisPlace } from './options.ts';
import { redactPassword } from './redact.ts';

/**
 * Connects to Redis, runs a command, and ends the connection.
 *
 * @throws CommandError if Redis is away, takes too long, or replies with an error; or for a URL
 * that cannot be used.
 */
export async function withRedis(
  { redis, timeout }: RedisPlace,
  run: (connection: RedisConnection) => Promise<void>,
): Promise<void> {
  checkUrl(redis);
  const connection = new RedisConnection(redis, timeout);
  try {
    await run(connection);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new CommandError(redactPassword(error.message, redis), { cause: error });
  } finally {
    await connection.close();
  }
}

export function describePlace({ keyPrefix }: RedisPlace, { address }: RedisConnection): string {
  return `with the prefix '${keyPrefix}' in Redis at ${address}`;
}

function checkUrl(url: string): void {
  try {
    checkRedisSource(url, 'the URL of Redis');
  } catch (error) {
    throw new CommandError((error as Error).message, { exitCode: 2, cause: error });
  }
}
