import { randomBytes } from 'node:crypto';
import pg from 'pg';

/** A database for each service, on one server. */
export interface Databases {
  /** The URL of the database of a service. */
  urlOf(service: string): string;
  /** Drops them all. */
  drop(): Promise<void>;
}

/** @throws saying why, if there is no server at the URL. */
export async function createDatabases(serverUrl: string, services: readonly string[]): Promise<Databases> {
  const run = `holdfast_demo_${randomBytes(6).toString('hex')}`;
  const nameOf = (service: string) => `${run}_${service.replaceAll('-', '_')}`;
  const drop = () =>
    administer(
      serverUrl,
      services.map((service) => `drop database if exists ${nameOf(service)} with (force)`),
    );
  try {
    await administer(
      serverUrl,
      services.map((service) => `create database ${nameOf(service)}`),
    );
  } catch (error) {
    // Some may have been made. What is wrong is told by the first error.
    await drop().catch(() => {});
    throw error;
  }
  return {
    urlOf(service) {
      const url = new URL(serverUrl);
      url.pathname = `/${nameOf(service)}`;
      return url.href;
    },
    drop,
  };
}

async function administer(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
