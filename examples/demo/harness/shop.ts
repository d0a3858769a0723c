import { setTimeout } from 'node:timers/promises';
import { DESK } from '../gateway/routes.ts';
import type { OrderRequest } from '../order-service/order-saga.ts';
import { Phase } from './report.ts';
import { type OutsideRequest, ProblemError, type Visitor } from './visitor.ts';

const ORDERS_PER_SECOND = 20;
/** Milliseconds for which an order is asked for again. */
const MAX_WAIT = 30_000;

/** The customers and clerks: they come through the gateway, and remember what they were told. */
export class Shop {
  readonly visitor: Visitor;
  readonly phases: Phase[] = [];
  phase = new Phase('');
  readonly accepted = new Map<string, OrderRequest>();
  /** The reason for each. */
  readonly rejected = new Map<string, string>();
  readonly askedAgain = new Set<string>();
  readonly unanswered = new Set<string>();
  /** How many of each item were brought. */
  readonly delivered = new Map<string, number>();
  readonly #narrate: (text: string) => void;

  constructor(visitor: Visitor, narrate: (text: string) => void) {
    this.visitor = visitor;
    this.#narrate = narrate;
  }

  async register(id: string): Promise<void> {
    const body = { id, email: `${id}@example.com`, name: id };
    await this.visitor.call({ method: 'POST', path: '/api/v1/users', body });
  }

  /** Brings items to the stock. */
  async deliver(item: string, quantity: number): Promise<void> {
    const body = { deliveryId: `first-${item}`, item, quantity };
    await this.visitor.call(byClerk({ method: 'POST', path: '/api/v1/inventory/deliveries', body }));
    this.delivered.set(item, quantity);
  }

  /** Places orders at a steady pace, and waits until each has its response. */
  async during(title: string, duration: number): Promise<void> {
    this.phase = new Phase(title);
    this.phases.push(this.phase);
    const pending: Promise<void>[] = [];
    const begun = performance.now();
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const elapsed = performance.now() - begun;
        while (pending.length < (Math.min(elapsed, duration) * ORDERS_PER_SECOND) / 1000) {
          pending.push(this.placeOrder(`${title.replace(' ', '-')}-${pending.length}`));
        }
        if (elapsed < duration) return;
        clearInterval(timer);
        resolve();
      }, 10);
    });
    await Promise.all(pending);
  }

  /** Places the order again and again until it is accepted or rejected. */
  async placeOrder(orderId: string, item = 'lamp'): Promise<void> {
    const order = { ...usualOrder(orderId), item };
    const counted = this.phase;
    const begun = performance.now();
    const elapsed = () => performance.now() - begun;
    while (elapsed() < MAX_WAIT) {
      try {
        const { status } = await this.visitor.call<{ status?: 'processing' }>(orderRequest(order));
        if (status !== 'processing') {
          this.accepted.set(orderId, order);
          counted.succeeded++;
          counted.latencies.push(elapsed());
          return;
        }
      } catch (error) {
        if (error instanceof ProblemError && error.status === 424) {
          this.rejected.set(orderId, error.problem.detail);
          counted.rejected++;
          counted.rejections.push(elapsed());
          return;
        }
        // Nobody knows what became of it, as after a timeout. By its id it may be asked for again.
        this.#narrate(`  ${orderId}: ${error}. It is asked for again.`);
      }
      this.askedAgain.add(orderId);
      await setTimeout(200);
    }
    this.unanswered.add(orderId);
  }
}

/** The order that the customers place if nothing else is said. */
export function usualOrder(orderId: string): OrderRequest {
  return { orderId, userId: 'ada', item: 'lamp', quantity: 1, amount: 9.5 };
}

/** The request of a customer for an order. */
export function orderRequest(order: OrderRequest): OutsideRequest {
  return { user: order.userId, method: 'POST', path: '/api/v1/orders', body: order };
}

/** Has a clerk make the request. */
export function byClerk(request: OutsideRequest): OutsideRequest {
  return { user: 'clerk', scopes: [DESK], ...request };
}
