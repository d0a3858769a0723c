import type { Kysely } from 'kysely';
import type { ReservationData } from '../events.ts';
import type { InventoryTables } from './inventory-tables.ts';
import type { ReservationRepository } from './reservation-repository.ts';

export class PostgresReservationRepository implements ReservationRepository {
  readonly #db: Kysely<InventoryTables>;

  constructor(db: Kysely<InventoryTables>) {
    this.#db = db;
  }

  async add(reservation: ReservationData): Promise<void> {
    await this.#db.insertInto('reservations').values(reservation).execute();
  }

  async delete(orderId: string): Promise<boolean> {
    const { numDeletedRows } = await this.#db
      .deleteFrom('reservations')
      .where('orderId', '=', orderId)
      .executeTakeFirst();
    return numDeletedRows > 0n;
  }
}
