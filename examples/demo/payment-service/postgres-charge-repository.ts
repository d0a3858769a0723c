import type { Kysely } from 'kysely';
import type { Charge, ChargeRepository } from './charge-repository.ts';
import type { PaymentTables } from './payment-tables.ts';

export class PostgresChargeRepository implements ChargeRepository {
  readonly #db: Kysely<PaymentTables>;

  constructor(db: Kysely<PaymentTables>) {
    this.#db = db;
  }

  async add(charge: Charge): Promise<void> {
    await this.#db.insertInto('charges').values(charge).execute();
  }

  refund(orderId: string): Promise<Charge | undefined> {
    return this.#db
      .updateTable('charges')
      .set({ status: 'refunded' })
      .where('orderId', '=', orderId)
      .where('status', '=', 'succeeded')
      .returningAll()
      .executeTakeFirst();
  }
}
