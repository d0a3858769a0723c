import type { Migration } from 'kysely';
import type { User } from './user-repository.ts';

export interface UserTables {
  users: User;
}

/** Forward only: what has run somewhere is never changed, the next change is a new one. */
export const userMigrations: Record<string, Migration> = {
  '001-users': {
    async up(db) {
      await db.schema
        .createTable('users')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('email', 'text', (column) => column.notNull())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('active', 'boolean', (column) => column.notNull().defaultTo(true))
        .addColumn('version', 'integer', (column) => column.notNull().defaultTo(1))
        .execute();
    },
  },
};
