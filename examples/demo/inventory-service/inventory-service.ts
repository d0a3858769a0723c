import type { ReservationData } from '../events.ts';
import { exactly, id, quantity } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase, type ServiceTransaction } from '../service-database.ts';
import { type InventoryTables, inventoryMigrations } from './inventory-tables.ts';
import { type Delivery, Reservations } from './reservations.ts';

type Tx = ServiceTransaction<InventoryTables>;

const body = exactly({ orderId: id, item: id, quantity });
const delivery = exactly({
  deliveryId: id,
  item: id,
  quantity: { type: 'integer', minimum: 1, maximum: 1_000_000 },
});
const params = exactly({ orderId: id });

export async function startInventoryService(context: ServiceContext): Promise<void> {
  const { app, bus, closeAtEnd } = context;
  const opened = await openDatabase<InventoryTables>(context, inventoryMigrations);
  const { database, inbox } = opened;
  const reservations = new Reservations(opened);

  app.post<{ Body: ReservationData }>('/reservations', { schema: { body } }, ({ body }) =>
    reservations.reserve(body),
  );
  app.delete<{ Params: { orderId: string } }>(
    '/reservations/:orderId',
    { schema: { params } },
    async ({ params }) => ({
      released: await database.transaction((tx) => reservations.release(params.orderId, tx)),
    }),
  );

  app.post<{ Body: Delivery }>('/deliveries', { schema: { body: delivery } }, ({ body }) =>
    reservations.deliver(body),
  );

  const group = 'inventory-service';
  closeAtEnd(
    // It needs no inbox: an order is reserved once, whichever way and however often it is asked for.
    await bus.subscribe('inventory.reserve', (event) => reservations.reserveIfWanted(event.data), { group }),
  );
  const release = ({ data }: { data: { orderId: string } }, { tx }: { tx: Tx }) =>
    reservations.release(data.orderId, tx);
  closeAtEnd(await bus.subscribe('order.cancelled', release, { group, inbox }));
}
