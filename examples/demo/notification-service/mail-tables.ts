import type { Generated, Migration } from 'kysely';

export interface MailTables {
  mails: { id: Generated<number>; recipient: string; text: string };
}

export const mailMigrations: Record<string, Migration> = {
  '001-mails': {
    async up(db) {
      await db.schema
        .createTable('mails')
        .addColumn('id', 'serial', (column) => column.primaryKey())
        .addColumn('recipient', 'text', (column) => column.notNull())
        .addColumn('text', 'text', (column) => column.notNull())
        .execute();
    },
  },
};
