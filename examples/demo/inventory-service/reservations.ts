import { KeyRevokedError } from '../../../src/index.ts';
import type { ReservationData } from '../events.ts';
import type { ServiceDatabase, ServiceTransaction } from '../service-database.ts';
import type { InventoryTables } from './inventory-tables.ts';
import { PostgresReservationRepository } from './postgres-reservation-repository.ts';

/**
 * Reserves and releases. The order is the key of both, which may come by request and by event, more
 * than once, and in any order: once released, nothing is reserved for the order any more.
 */
export class Reservations {
  readonly #database: ServiceDatabase<InventoryTables>;

  constructor(database: ServiceDatabase<InventoryTables>) {
    this.#database = database;
  }

  /**
   * Gives the reservation that there is, or makes it.
   *
   * @throws KeyRevokedError if it was released
   */
  reserve(reservation: ReservationData): Promise<ReservationData> {
    const { inbox, outbox } = this.#database;
    const { orderId, quantity } = reservation;
    return inbox.once(keyOf(orderId), async (tx) => {
      const data = { orderId, quantity };
      await new PostgresReservationRepository(tx.raw).add(data);
      await outbox.publish({ eventType: 'inventory.reserved', aggregateId: orderId, data }, tx);
      return data;
    });
  }

  /** Reserves, unless there is no need any more. */
  async reserveIfWanted(reservation: ReservationData): Promise<void> {
    try {
      await this.reserve(reservation);
    } catch (error) {
      if (!(error instanceof KeyRevokedError)) throw error;
    }
  }

  /** Gives whether anything was reserved. If not, a reservation that is still under way is rejected. */
  async release(orderId: string, tx: ServiceTransaction<InventoryTables>): Promise<boolean> {
    await this.#database.inbox.revoke(keyOf(orderId), tx);
    return new PostgresReservationRepository(tx.raw).delete(orderId);
  }
}

function keyOf(orderId: string): string {
  return `reserve ${orderId}`;
}
