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
  /** How many of each item can still be sold. */
  readonly stock: ReadonlyMap<string, number>;
  /** The charge of each order, of which none can have two. */
  readonly charges: ReadonlyMap<string, { readonly status: string; readonly amount: number }>;
  /** The texts of the mails that went out. */
  readonly mails: readonly string[];
}

/** Reads the books as an auditor would: no service may do so with the database of another. */
export async function readBooks(databases: Databases): Promise<Books> {
  const [history, reservations, stock, charges, mails] = await Promise.all([
    readHistory(databases.urlOf('order-service')),
    read(databases.urlOf('inventory-service'), 'select order_id from reservations'),
    read(databases.urlOf('inventory-service'), 'select item, available from stock'),
    read(databases.urlOf('payment-service'), 'select order_id, status, amount from charges'),
    read(databases.urlOf('notification-service'), 'select text from mails'),
  ]);
  return {
    ...history,
    reserved: new Set(reservations.map(({ order_id }) => order_id)),
    stock: new Map(stock.map(({ item, available }) => [item, available])),
    charges: new Map(charges.map(({ order_id, status, amount }) => [order_id, { status, amount }])),
    mails: mails.map(({ text }) => text),
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

// biome-ignore lint/suspicious/noExplicitAny: as pg does, since the columns follow from the statement
function read(url: string, sql: string): Promise<any[]> {
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
