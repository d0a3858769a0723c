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
  await explainRedisErrors(redis, async () => {
    const connection = new RedisConnection(redis, timeout);
    try {
      await run(connection);
    } finally {
      await connection.close();
    }
  });
}

/**
 * Runs what uses a Redis, and throws its errors as those of a command, without the password.
 *
 * @throws CommandError
 */
export async function explainRedisErrors(url: string, run: () => Promise<void>): Promise<void> {
  checkUrl(url);
  try {
    await run();
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    throw new CommandError(redactPassword(error.message, url), { cause: error });
  }
}

export function describePlace(
  { keyPrefix }: RedisPlace,
  { address }: Pick<RedisConnection, 'address'>,
): string {
  return `with the prefix '${keyPrefix}' in Redis at ${address}`;
}

function checkUrl(url: string): void {
  try {
    checkRedisSource(url, 'the URL of Redis');
  } catch (error) {
    throw new CommandError((error as Error).message, { exitCode: 2, cause: error });
  }
}
