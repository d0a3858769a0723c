import type { Kysely, Migration } from 'kysely';
import type { EventOf } from '../../../src/index.ts';
import type { Executor } from '../../../src/postgres/index.ts';
import type { OrderFacts } from './order.ts';

export interface ListedOrder {
  readonly orderId: string;
  readonly userId: string;
  readonly amount: number;
  readonly status: 'created' | 'cancelled' | 'shipped';
}

export interface OrderTables {
  orderList: ListedOrder;
}

export const orderMigrations: Record<string, Migration> = {
  '001-order-list': {
    async up(db) {
      await db.schema
        .createTable('order_list')
        .addColumn('order_id', 'text', (column) => column.primaryKey())
        .addColumn('user_id', 'text', (column) => column.notNull())
        .addColumn('amount', 'double precision', (column) => column.notNull())
        .addColumn('status', 'text', (column) => column.notNull())
        .execute();
      await db.schema.createIndex('order_list_user').on('order_list').column('user_id').execute();
    },
  },
};

/**
 * Brings the list of orders up to date with one event: the read model of a PostgresProjection, for
 * what the streams cannot tell fast, such as all orders of a user. It can be made anew from them.
 */
export async function applyToList(event: EventOf<OrderFacts>, tx: Executor): Promise<void> {
  switch (event.eventType) {
    case 'order.created': {
      const { orderId, userId, amount } = event.data;
      await tx.query(
        `insert into order_list (order_id, user_id, amount, status) values ($1, $2, $3, 'created')`,
        [orderId, userId, amount],
      );
      break;
    }
    case 'order.cancelled':
    case 'order.shipped': {
      const status = event.eventType === 'order.shipped' ? 'shipped' : 'cancelled';
      await tx.query('update order_list set status = $2 where order_id = $1', [event.data.orderId, status]);
      break;
    }
  }
}

export async function emptyList(tx: Executor): Promise<void> {
  await tx.query('delete from order_list');
}

export function listOrders(db: Kysely<OrderTables>, userId: string): Promise<ListedOrder[]> {
  return db.selectFrom('orderList').selectAll().where('userId', '=', userId).limit(100).execute();
}
