import { parseArgs } from 'node:util';

const USAGE = `Usage: npm run demo                                         all in one process, with a PostgreSQL of its own
       npm run demo -- --redis redis://127.0.0.1:6379      each instance in its own, over Redis
       npm run demo -- --postgres postgres://127.0.0.1/db  with your PostgreSQL, in databases that are dropped at the end`;

export interface Options {
  /** The URL of the Redis to run on; in one process without it. */
  readonly redis: string | undefined;
  /** The URL of the PostgreSQL to run on; one of the demo's own without it. */
  readonly postgres: string | undefined;
}

/** Reads the command line. Anything that is not known there ends the process. */
export function readOptions(args = process.argv.slice(2)): Options {
  try {
    const options = { redis: { type: 'string' }, postgres: { type: 'string' } } as const;
    const { redis, postgres } = parseArgs({ args, options }).values;
    checkUrl(redis, /^rediss?:\/\//, 'a Redis');
    checkUrl(postgres, /^postgres(ql)?:\/\//, 'a PostgreSQL');
    return { redis, postgres };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

function checkUrl(url: string | undefined, form: RegExp, what: string): void {
  if (url === undefined || (form.test(url) && URL.canParse(url))) return;
  throw new TypeError(`'${url}' is not the URL of ${what}`);
}
