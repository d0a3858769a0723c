import type { Order, OrderFact } from './order.ts';

/** Keeps orders by what has happened to them. */
export interface OrderRepository<Tx> {
  /** Gives an order; one of which nothing is known, if there is none. */
  get(id: string, tx?: Tx): Promise<Order>;
  /** Records a fact, and what follows from it, in a transaction; gives the order after it. */
  record(fact: OrderFact, tx: Tx): Promise<Order>;
}
