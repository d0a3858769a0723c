import { PaymentDeclinedError } from '../errors.ts';
import type { PaymentData } from '../events.ts';
import type { ServiceDatabase, ServiceTransaction } from '../service-database.ts';
import type { PaymentTables } from './payment-tables.ts';
import { PostgresChargeRepository } from './postgres-charge-repository.ts';

/** The bank declines what is more. */
const LIMIT = 1_000;

/**
 * Charges and refunds. The order is the key of both: it is charged once, however often that is asked
 * for, and once refunded never again.
 */
export class Charges {
  readonly #database: ServiceDatabase<PaymentTables>;

  constructor(database: ServiceDatabase<PaymentTables>) {
    this.#database = database;
  }

  /**
   * Gives the charge that there is, or makes it.
   *
   * @throws PaymentDeclinedError if the bank has declined it, which is kept and told as well
   * @throws KeyRevokedError if the order was refunded
   */
  async charge({ orderId, email, amount }: Omit<PaymentData, 'status'>): Promise<PaymentData> {
    const { inbox, outbox } = this.#database;
    const made = await inbox.once(keyOf(orderId), async (tx) => {
      const status = amount > LIMIT ? 'failed' : 'succeeded';
      const charge: PaymentData = { orderId, email, amount, status };
      await new PostgresChargeRepository(tx.raw).add(charge);
      await outbox.publish({ eventType: 'payment.processed', aggregateId: orderId, data: charge }, tx);
      return charge;
    });
    if (made.status === 'failed') throw new PaymentDeclinedError('the payment was declined');
    return made;
  }

  /**
   * Gives back what was paid; gives whether there was anything. A charge under way is waited for; a later
   * one is rejected.
   */
  async refund(orderId: string, tx: ServiceTransaction<PaymentTables>): Promise<boolean> {
    const { inbox, outbox } = this.#database;
    await inbox.revoke(keyOf(orderId), tx);
    const charge = await new PostgresChargeRepository(tx.raw).refund(orderId);
    if (charge === undefined) return false;
    const data = { orderId, amount: charge.amount };
    await outbox.publish({ eventType: 'payment.refunded', aggregateId: orderId, data }, tx);
    return true;
  }
}

function keyOf(orderId: string): string {
  return `charge ${orderId}`;
}
