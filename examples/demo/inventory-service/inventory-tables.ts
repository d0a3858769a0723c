import { type Migration, sql } from 'kysely';
import type { ReservationData } from '../events.ts';

export interface InventoryTables {
  reservations: ReservationData;
  stock: { item: string; available: number };
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
  '002-stock': {
    async up(db) {
      await db.schema
        .createTable('stock')
        .addColumn('item', 'text', (column) => column.primaryKey())
        // No item can be sold that is not there, whatever goes wrong above.
        .addColumn('available', 'integer', (column) => column.notNull().check(sql`available >= 0`))
        .execute();
      await db.schema
        .alterTable('reservations')
        .addColumn('item', 'text', (column) => column.notNull().defaultTo('unknown'))
        .execute();
    },
  },
};
