import type { EventBus } from '../../../src/index.ts';
import type { Events } from '../events.ts';
import { sagaIdOf } from '../order-service/order-saga.ts';
import type { Books } from './books.ts';
import type { Shop } from './shop.ts';

const GROUPS = [
  'order-event-handlers',
  'order-service',
  'payment-service',
  'inventory-service',
  'notification-service',
];

/** Holds the books of the services against what the shop was told; gives what does not fit. */
export function findFaults(shop: Shop, books: Books): string[] {
  const faults = [...shop.unanswered].map((orderId) => `${orderId} got no response`);
  for (const orderId of shop.accepted.keys()) faults.push(...faultsOfAccepted(orderId, books));
  for (const orderId of shop.rejected.keys()) faults.push(...faultsOfRejected(orderId, books));
  faults.push(...faultsOfSums(shop, books));
  const shipped = new Set(books.shipments);
  if (shipped.size < books.shipments.length) faults.push('an order was shipped twice');
  if (shipped.size > shop.accepted.size) faults.push('an order was shipped that nobody has placed');
  if (new Set(books.mails).size < books.mails.length) faults.push('a mail went out twice');
  for (const { title, rejected: count } of shop.phases) {
    if (count > 0 && !['no payments', 'recovery'].includes(title))
      faults.push(`${count} orders failed in '${title}'`);
  }
  return faults;
}

/** Money and stock add up: what was taken is what the accepted orders cost, and no more. */
function faultsOfSums({ accepted, delivered }: Shop, { charges, stock }: Books): string[] {
  const faults: string[] = [];
  const orders = [...accepted.values()];
  for (const [item, quantity] of delivered) {
    const sold = sum(orders.filter((order) => order.item === item).map((order) => order.quantity));
    const left = stock.get(item);
    if (left !== quantity - sold) faults.push(`of ${quantity} '${item}' ${sold} are sold, and ${left} left`);
  }
  const paid = sum([...charges.values()].map(({ status, amount }) => (status === 'succeeded' ? amount : 0)));
  const cost = sum(orders.map(({ amount }) => amount));
  if (paid !== cost) faults.push(`${paid} was paid for orders that cost ${cost}`);
  return faults;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function faultsOfAccepted(orderId: string, { orders, charges, reserved, mails }: Books): string[] {
  const order = orders.get(orderId);
  if (order?.details === undefined) return [`${orderId} was lost`];
  const faults: string[] = [];
  if (charges.get(orderId)?.status !== 'succeeded') faults.push(`${orderId} was not charged`);
  if (!reserved.has(orderId)) faults.push(`${orderId} has no stock reserved`);
  if (order.end !== 'shipped') faults.push(`${orderId} was not shipped`);
  if (!mails.includes(trackingNotice(orderId))) faults.push(`nobody was told that ${orderId} was shipped`);
  return faults;
}

function faultsOfRejected(orderId: string, { orders, charges, reserved }: Books): string[] {
  const faults: string[] = [];
  if (orders.get(orderId)?.details !== undefined) faults.push(`${orderId} was rejected and is stored`);
  if (charges.get(orderId)?.status === 'succeeded') faults.push(`${orderId} was rejected and charged`);
  if (reserved.has(orderId)) faults.push(`${orderId} was rejected and keeps its stock`);
  return faults;
}

/** The events of each order that is accepted. */
const EVENTS_OF_ORDER = [
  'inventory.reserved',
  'payment.processed',
  'order.created',
  'inventory.reserve',
  'shipping.create_label',
  'order.shipped',
  'notification.send',
] as const;

/** Lists the events of the orders, and of their sagas, that the bus should have, and has not. */
export async function findMissingEvents(shop: Shop, bus: EventBus<Events>): Promise<string[]> {
  const published = new Set<string>();
  for await (const { eventType, aggregateId } of bus.replay()) published.add(`${eventType} ${aggregateId}`);
  const accepted = [...shop.accepted.keys()];
  const rejected = [...shop.rejected.keys()];
  const expected = [
    ...accepted.flatMap((orderId) => EVENTS_OF_ORDER.map((eventType) => `${eventType} ${orderId}`)),
    ...[...accepted, ...rejected].map((orderId) => `saga.started ${sagaIdOf(orderId)}`),
    ...accepted.map((orderId) => `saga.completed ${sagaIdOf(orderId)}`),
    ...rejected.map((orderId) => `saga.compensated ${sagaIdOf(orderId)}`),
  ];
  return expected.filter((event) => !published.has(event)).map((event) => `${event} was not published`);
}

/** Lists the events that a service could not handle. */
export async function findDeadLetters(bus: EventBus<Events>): Promise<string[]> {
  const found: string[] = [];
  for (const group of GROUPS) {
    for await (const { event, errors } of bus.deadLetters({ group })) {
      found.push(
        `${group} could not handle ${event.eventType} ${event.aggregateId}: ${errors.at(-1)?.message}`,
      );
    }
  }
  return found;
}

function trackingNotice(orderId: string): string {
  return `Order ${orderId} is on its way: T-${orderId}`;
}
