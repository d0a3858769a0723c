import pg from 'pg';
import { fromPg, PostgresEventStore } from '../../../src/postgres/index.ts';
import { apply, type Order, type OrderFacts, unknownOrder } from '../order-service/order.ts';
import type { Databases } from './databases.ts';

/** Tells what the databases of the services say. */
export interface Books {
  readonly orders: ReadonlyMap<string, Order>;
  /** The orders that have shipped, one entry for each time. */
  readonly shipments: readonly string[];
  /** The orders that have stock. */
  readonly reserved: ReadonlySet<string>;
  /** The status of each charge, by order. No order can have two. */
  readonly charges: ReadonlyMap<string, string>;
  /** The texts of the mails that went out. */
  readonly mails: readonly string[];
}

/** Reads the books as an auditor would: no service may do so with the database of another. */
export async function readBooks(databases: Databases): Promise<Books> {
  const [history, reservations, charges, mails] = await Promise.all([
    readHistory(databases.urlOf('order-service')),
    read(databases.urlOf('inventory-service'), 'select order_id from reservations'),
    read(databases.urlOf('payment-service'), 'select order_id, status from charges'),
    read(databases.urlOf('notification-service'), 'select text from mails'),
  ]);
  return {
    ...history,
    reserved: new Set(reservations.map(({ order_id }) => order_id!)),
    charges: new Map(charges.map(({ order_id, status }) => [order_id!, status!])),
    mails: mails.map(({ text }) => text!),
  };
}

function readHistory(url: string): Promise<Pick<Books, 'orders' | 'shipments'>> {
  return withPool(url, async (pool) => {
    const orders = new Map<string, Order>();
    const shipments: string[] = [];
    const store = new PostgresEventStore<OrderFacts>({ database: fromPg(pool) });
    for await (const { event, streamId } of store.readAll()) {
      orders.set(streamId, apply(orders.get(streamId) ?? unknownOrder(streamId), event));
      if (event.eventType === 'order.shipped') shipments.push(streamId);
    }
    return { orders, shipments };
  });
}

function read(url: string, sql: string): Promise<Record<string, string | undefined>[]> {
  return withPool(url, async (pool) => (await pool.query(sql)).rows);
}

async function withPool<T>(url: string, use: (pool: pg.Pool) => Promise<T>): Promise<T> {
  const pool = new pg.Pool({ connectionString: url, max: 2 });
  try {
    return await use(pool);
  } finally {
    await pool.end();
  }
}
