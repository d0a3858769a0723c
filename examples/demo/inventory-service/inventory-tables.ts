import type { Migration } from 'kysely';
import type { ReservationData } from '../events.ts';

export interface InventoryTables {
  reservations: ReservationData;
}

export const inventoryMigrations: Record<string, Migration> = {
  '001-reservations': {
    async up(db) {
      await db.schema
        .createTable('reservations')
        .addColumn('order_id', 'text', (column) => column.primaryKey())
        .addColumn('quantity', 'integer', (column) => column.notNull())
        .execute();
    },
  },
};
