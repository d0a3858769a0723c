import { DatabaseError } from '../errors.ts';
import { hasMethods } from '../internal/validate.ts';
import { LockClass } from './advisory-locks.ts';
import type { Database, Executor } from './database.ts';
import { MIGRATIONS } from './migrations/index.ts';
import type { Migration } from './migrations/migration.ts';

/**
 * Creates the schema `holdfast` in a database, or brings it up to date. It does nothing where there is
 * nothing to do, and then needs no right but to read. Any number of processes can call it at once: one
 * of them migrates, the others wait. A migration that fails leaves no trace.
 *
 * @throws DatabaseError if a newer version of Holdfast has migrated the database
 */
export async function migrate(database: Database): Promise<void> {
  hasMethods('query', 'transaction')(database, 'the argument of migrate');
  let version = await readVersion(database);
  while (version < MIGRATIONS.length) version = await migrateOnce(database);
  if (version > MIGRATIONS.length) {
    throw new DatabaseError(
      `the schema holdfast is at version ${version}, and this version of Holdfast knows ${MIGRATIONS.length}: ` +
        'a newer one has migrated this database, so update this service as well',
    );
  }
}

/** Runs the next migration, unless another process has done so by now; gives the version that is reached. */
function migrateOnce(database: Database): Promise<number> {
  return database.transaction(async (tx) => {
    // Otherwise, where the service has another default, the version would be read as of before the wait.
    await tx.query('set transaction isolation level read committed');
    await tx.query('select pg_advisory_xact_lock($1, 0)', [LockClass.migration]);
    const version = await readVersion(tx);
    const migration = MIGRATIONS[version];
    if (migration === undefined) return version;
    if (version === 0) await createSchema(tx);
    await run(tx, migration);
    return migration.version;
  });
}

async function run(tx: Executor, { version, name, statements }: Migration): Promise<void> {
  for (const statement of statements) await tx.query(statement);
  await tx.query('insert into holdfast.migrations (version, name) values ($1, $2)', [version, name]);
}

async function createSchema(tx: Executor): Promise<void> {
  // An administrator may have made the schema for a service that has no right to: `if not exists` fails then.
  const { rows } = await tx.query(`select from pg_catalog.pg_namespace where nspname = 'holdfast'`);
  if (rows.length === 0) await tx.query('create schema holdfast');
  await tx.query(
    `create table holdfast.migrations (
       version int primary key,
       name text not null,
       applied_at timestamptz not null default now()
     )`,
  );
}

/** Gives the version of the schema; 0 before the first migration. */
async function readVersion(executor: Executor): Promise<number> {
  // Unlike to_regclass, which may say what a cache knew before the wait for the lock.
  const found = await executor.query(
    `select from pg_catalog.pg_tables where schemaname = 'holdfast' and tablename = 'migrations'`,
  );
  if (found.rows.length === 0) return 0;
  const { rows } = await executor.query('select max(version) as version from holdfast.migrations');
  return rows[0].version;
}
