import { KeyRevokedError } from '../../../src/index.ts';
import { RejectedError } from '../errors.ts';
import type { ReservationData } from '../events.ts';
import type { ServiceDatabase, ServiceTransaction } from '../service-database.ts';
import type { InventoryTables } from './inventory-tables.ts';
import { PostgresReservationRepository } from './postgres-reservation-repository.ts';
import { PostgresStockRepository } from './postgres-stock-repository.ts';

export interface Delivery {
  readonly deliveryId: string;
  readonly item: string;
  readonly quantity: number;
}

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
   * @throws RejectedError if there is not enough of the item
   * @throws KeyRevokedError if it was released
   */
  reserve(reservation: ReservationData): Promise<ReservationData> {
    const { inbox, outbox } = this.#database;
    const { orderId, item, quantity } = reservation;
    return inbox.once(keyOf(orderId), async (tx) => {
      if (!(await new PostgresStockRepository(tx.raw).take(item, quantity)))
        throw new RejectedError(`there are not ${quantity} of '${item}' left`);
      const data = { orderId, item, quantity };
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

  /** Adds to the stock what a supplier brings, once for each delivery. */
  deliver({ deliveryId, item, quantity }: Delivery): Promise<Delivery> {
    return this.#database.inbox.once(`delivery ${deliveryId}`, async (tx) => {
      await new PostgresStockRepository(tx.raw).add(item, quantity);
      return { deliveryId, item, quantity };
    });
  }

  /** Gives whether anything was reserved. If not, a reservation that is still under way is rejected. */
  async release(orderId: string, tx: ServiceTransaction<InventoryTables>): Promise<boolean> {
    await this.#database.inbox.revoke(keyOf(orderId), tx);
    const released = await new PostgresReservationRepository(tx.raw).delete(orderId);
    if (released === undefined) return false;
    await new PostgresStockRepository(tx.raw).add(released.item, released.quantity);
    return true;
  }
}

function keyOf(orderId: string): string {
  return `reserve ${orderId}`;
}
