import type { PaymentData } from '../events.ts';
import { amount, email, exactly, id } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase, type ServiceTransaction } from '../service-database.ts';
import { type PaymentTables, paymentMigrations } from './payment-tables.ts';
import { PostgresChargeRepository } from './postgres-charge-repository.ts';

/** The bank declines what is more. */
const LIMIT = 1_000;

type Tx = ServiceTransaction<PaymentTables>;

const body = exactly({ orderId: id, email, amount });

export async function startPaymentService(context: ServiceContext): Promise<void> {
  const { app, bus, closeAtEnd } = context;
  const { outbox, inbox } = await openDatabase<PaymentTables>(context, paymentMigrations);
  const keyOf = (orderId: string) => `charge ${orderId}`;

  // Whoever repeats the request gets the charge that there is.
  app.post<{ Body: Omit<PaymentData, 'status'> }>('/charges', { schema: { body } }, ({ body }) =>
    inbox.once(keyOf(body.orderId), async (tx) => {
      const { orderId, email, amount } = body;
      const status = amount > LIMIT ? 'failed' : 'succeeded';
      const charge: PaymentData = { orderId, email, amount, status };
      await new PostgresChargeRepository(tx.raw).add(charge);
      await outbox.publish({ eventType: 'payment.processed', aggregateId: orderId, data: charge }, tx);
      return charge;
    }),
  );

  const options = { group: 'payment-service', inbox };
  const handle = ({ data }: { data: { orderId: string } }, { tx }: { tx: Tx }) => refund(data.orderId, tx);
  closeAtEnd(await bus.subscribe('order.cancelled', handle, options));
  closeAtEnd(await bus.subscribe('order.rejected', handle, options));

  /** Gives back what was paid for an order that is off. */
  async function refund(orderId: string, tx: Tx): Promise<void> {
    // A charge under way is waited for, and one that comes later is rejected.
    await inbox.revoke(keyOf(orderId), tx);
    const charge = await new PostgresChargeRepository(tx.raw).refund(orderId);
    if (charge === undefined) return;
    const data = { orderId, amount: charge.amount };
    await outbox.publish({ eventType: 'payment.refunded', aggregateId: orderId, data }, tx);
  }
}
