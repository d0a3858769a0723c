import { DatabaseError, KeyRevokedError } from 'holdfast';
import { fromPg, migrate, type PgPool, PostgresInbox } from 'holdfast/postgres';

export async function chargeOnce(pool: PgPool, key: string): Promise<string | undefined> {
  const database = fromPg(pool);
  await migrate(database);
  const inbox = new PostgresInbox({ database });
  try {
    return await inbox.once(key, async (tx) => {
      const { rows } = await tx.query('insert into charges (key) values ($1) returning id', [key]);
      return String(rows[0].id);
    });
  } catch (error) {
    if (error instanceof KeyRevokedError || (error instanceof DatabaseError && error.retryable))
      return undefined;
    throw error;
  }
}

// @ts-expect-error the options are typed, not any
new PostgresInbox({ database: 'postgres://127.0.0.1' });
