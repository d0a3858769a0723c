import { ConcurrencyError } from '../../../src/index.ts';
import type { Executor, PostgresEventStore, PostgresOutbox } from '../../../src/postgres/index.ts';
import type { Events } from '../events.ts';
import { apply, decide, type Order, type OrderFact, type OrderFacts, unknownOrder } from './order.ts';
import type { OrderRepository } from './order-repository.ts';

type PublicType = keyof OrderFacts & keyof Events;

/** The facts that other services are told of. */
const PUBLIC: ReadonlySet<string> = new Set<PublicType>([
  'order.created',
  'order.cancelled',
  'order.shipped',
]);

/** Keeps the stream of each order in an event store, and publishes a part of it. */
export class PostgresOrderRepository implements OrderRepository<Executor> {
  readonly #store: PostgresEventStore<OrderFacts>;
  readonly #outbox: PostgresOutbox<Events>;

  constructor(store: PostgresEventStore<OrderFacts>, outbox: PostgresOutbox<Events>) {
    this.#store = store;
    this.#outbox = outbox;
  }

  async get(id: string, tx?: Executor): Promise<Order> {
    return (await this.#load(id, tx)).order;
  }

  async record(fact: OrderFact, tx: Executor): Promise<Order> {
    for (;;) {
      const { order, version } = await this.#load(fact.aggregateId, tx);
      const facts = decide(order, fact);
      if (facts.length === 0) return order;
      try {
        await this.#store.append(order.id, facts, { expectedVersion: version, tx });
      } catch (error) {
        // What was decided is out of date. From now on the transaction has the lock of the stream.
        if (error instanceof ConcurrencyError) continue;
        throw error;
      }
      await this.#outbox.publish(facts.filter(isPublic), tx);
      return facts.reduce(apply, order);
    }
  }

  /** Makes the order from its stream. */
  async #load(id: string, tx?: Executor): Promise<{ order: Order; version: number }> {
    let order = unknownOrder(id);
    let version = 0;
    for await (const { event, streamVersion } of this.#store.read(id, { tx })) {
      order = apply(order, event);
      version = streamVersion;
    }
    return { order, version };
  }
}

function isPublic(fact: OrderFact): fact is Extract<OrderFact, { eventType: PublicType }> {
  return PUBLIC.has(fact.eventType);
}
