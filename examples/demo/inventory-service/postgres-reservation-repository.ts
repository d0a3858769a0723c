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

  delete(orderId: string): Promise<ReservationData | undefined> {
    return this.#db
      .deleteFrom('reservations')
      .where('orderId', '=', orderId)
      .returningAll()
      .executeTakeFirst();
  }
}
