import pg from 'pg';
import { launchPostgres } from '../../test/support/local-postgres.ts';

const SETTINGS = ['full_page_writes=on', 'shared_buffers=256MB'];

/** A Postgres of the benchmark's own. */
export interface Databases {
  /** Creates a database; gives its URL. */
  create(name: string): Promise<string>;
  stop(): Promise<void>;
}

/** @param fsync whether it writes to disk at each commit, as it does by default */
export async function startDatabases(fsync = true): Promise<Databases> {
  const server = await launchPostgres([...SETTINGS, `fsync=${fsync ? 'on' : 'off'}`]);
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  return {
    create: async (name) => {
      await client.query(`create database bench_${name}`);
      const url = new URL(server.url);
      url.pathname = `/bench_${name}`;
      return url.href;
    },
    stop: async () => {
      await client.end();
      await server.stop();
    },
  };
}
