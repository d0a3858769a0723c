import type { Migration } from 'kysely';
import type { Charge } from './charge-repository.ts';

export interface PaymentTables {
  charges: Charge;
}

export const paymentMigrations: Record<string, Migration> = {
  '001-charges': {
    async up(db) {
      await db.schema
        .createTable('charges')
        // No order can be charged twice, whatever goes wrong above.
        .addColumn('order_id', 'text', (column) => column.primaryKey())
        .addColumn('email', 'text', (column) => column.notNull())
        .addColumn('amount', 'double precision', (column) => column.notNull())
        .addColumn('status', 'text', (column) => column.notNull())
        .execute();
    },
  },
};
