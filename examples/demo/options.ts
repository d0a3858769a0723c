import { parseArgs } from 'node:util';

const USAGE = `Usage: npm run demo                                      all in one process
       npm run demo -- --redis redis://127.0.0.1:6379   each instance in its own, over Redis`;

/** The URL of the Redis to run on, if one is given. Anything else on the command line ends the process. */
export function redisOption(): string | undefined {
  try {
    const { redis } = parseArgs({ options: { redis: { type: 'string' } } }).values;
    if (redis === undefined || (/^rediss?:\/\//.test(redis) && URL.canParse(redis))) return redis;
    throw new TypeError(`'${redis}' is not the URL of a Redis`);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}
