import type { Kysely } from 'kysely';
import type { InventoryTables } from './inventory-tables.ts';
import type { StockRepository } from './stock-repository.ts';

export class PostgresStockRepository implements StockRepository {
  readonly #db: Kysely<InventoryTables>;

  constructor(db: Kysely<InventoryTables>) {
    this.#db = db;
  }

  async add(item: string, quantity: number): Promise<void> {
    await this.#db
      .insertInto('stock')
      .values({ item, available: quantity })
      .onConflict((conflict) =>
        conflict.column('item').doUpdateSet((row) => ({
          available: row('stock.available', '+', quantity),
        })),
      )
      .execute();
  }

  /** One statement checks and takes: of two orders at once the second one sees what the first has left. */
  async take(item: string, quantity: number): Promise<boolean> {
    const { numUpdatedRows } = await this.#db
      .updateTable('stock')
      .set((row) => ({ available: row('available', '-', quantity) }))
      .where('item', '=', item)
      .where('available', '>=', quantity)
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  }
}
