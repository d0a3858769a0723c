import {
  CamelCasePlugin,
  Kysely,
  type Transaction as KyselyTransaction,
  type Migration,
  Migrator,
  PostgresDialect,
} from 'kysely';
import pg from 'pg';
import {
  type Database,
  fromKysely,
  fromPg,
  migrate,
  PostgresInbox,
  PostgresOutbox,
  type Transaction,
} from '../../src/postgres/index.ts';
import type { Events } from './events.ts';
import type { ServiceContext } from './service.ts';

/**
 * Milliseconds for which what was done under a key is remembered, 30 days: for longer than a saga is kept,
 * which may ask again for what it has asked for.
 */
export const KEY_RETENTION = 2_592_000_000;

/** Connections of one instance: ten instances have 50, of the 100 that are usual. */
const MAX_CONNECTIONS = 5;

/** The database of one service, which no other service can see. */
export interface ServiceDatabase<Tables> {
  /** For reads. */
  readonly db: Kysely<Tables>;
  /** For transactions: `tx.raw` is that of kysely. */
  readonly database: Database<KyselyTransaction<Tables>>;
  /** Publishes events in the transaction that they tell of. */
  readonly outbox: PostgresOutbox<Events>;
  /** Handles an event, or a request with a key, once. */
  readonly inbox: PostgresInbox<KyselyTransaction<Tables>>;
}

/** A transaction of a service: `raw` is that of kysely. */
export type ServiceTransaction<Tables> = Transaction<KyselyTransaction<Tables>>;

/** Connects to the database of a service, with the tables of Holdfast up to date. */
export async function openPool(databaseUrl: string): Promise<pg.Pool> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: MAX_CONNECTIONS });
  // Without listeners, a connection that breaks, idle or in a transaction, would end the process. A
  // statement on it rejects, and the pool makes a new one.
  pool.on('error', () => {});
  pool.on('connect', (connection) => connection.on('error', () => {}));
  await migrate(fromPg(pool));
  return pool;
}

/** Brings the tables of a service up to date, and begins to relay its outbox. */
export async function openDatabase<Tables>(
  { pool, bus, lease, closeAtEnd }: ServiceContext,
  migrations: Record<string, Migration>,
): Promise<ServiceDatabase<Tables>> {
  const db = await openTables<Tables>(pool, migrations);
  const database = fromKysely(db);
  const outbox = new PostgresOutbox<Events>({ database, bus, lease });
  outbox.start();
  closeAtEnd(outbox);
  const inbox = new PostgresInbox({ database, lockTimeout: 5_000, retention: KEY_RETENTION });
  return { db, database, outbox, inbox };
}

/** Brings the tables up to date. Any number of instances can do so at once: one migrates, the others wait. */
export async function openTables<Tables>(
  pool: pg.Pool,
  migrations: Record<string, Migration>,
): Promise<Kysely<Tables>> {
  const db = new Kysely<Tables>({
    dialect: new PostgresDialect({ pool }),
    plugins: [new CamelCasePlugin()],
  });
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
  return db;
}
