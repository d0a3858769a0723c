import type { PaymentData } from '../events.ts';
import { undoesRejected } from '../guard.ts';
import { amount, email, exactly, id } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase, type ServiceTransaction } from '../service-database.ts';
import { Charges } from './charges.ts';
import { type PaymentTables, paymentMigrations } from './payment-tables.ts';

type Tx = ServiceTransaction<PaymentTables>;

const body = exactly({ orderId: id, email, amount });
const refundBody = exactly({ orderId: id });

export async function startPaymentService(context: ServiceContext): Promise<void> {
  const { app, bus, closeAtEnd } = context;
  const opened = await openDatabase<PaymentTables>(context, paymentMigrations);
  const { database, inbox } = opened;
  const charges = new Charges(opened);

  app.post<{ Body: Omit<PaymentData, 'status'> }>('/charges', { schema: { body } }, ({ body }) =>
    charges.charge(body),
  );

  app.post<{ Body: { orderId: string } }>('/refunds', { schema: { body: refundBody } }, async ({ body }) => ({
    // A charge that the bank has declined has nothing to give back.
    refunded: !undoesRejected(402) && (await database.transaction((tx) => charges.refund(body.orderId, tx))),
  }));

  const options = { group: 'payment-service', inbox };
  const refund = ({ data }: { data: { orderId: string } }, { tx }: { tx: Tx }) =>
    charges.refund(data.orderId, tx);
  closeAtEnd(await bus.subscribe('order.cancelled', refund, options));
}
