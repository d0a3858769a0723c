import { setTimeout } from 'node:timers/promises';
import {
  type ServiceCall,
  ServiceClient,
  type ServiceDiscovery,
  ServiceResponseError,
} from '../../../src/index.ts';
import type { OrderRequest } from '../order-service/order-saga.ts';
import type { Problem } from '../problem.ts';
import { Phase } from './report.ts';

const ORDERS_PER_SECOND = 20;
/** Milliseconds for which an order is asked for again. */
const MAX_WAIT = 30_000;

/** The customers: they place orders, and remember what they were told. */
export class Shop {
  readonly client: ServiceClient;
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

  constructor(discovery: ServiceDiscovery, narrate: (text: string) => void) {
    this.client = new ServiceClient({ discovery, callerName: 'shop' });
    this.#narrate = narrate;
  }

  async register(id: string): Promise<void> {
    const body = { id, email: `${id}@example.com`, name: id };
    await this.client.call({ service: 'user-service', method: 'POST', path: '/users', body });
  }

  /** Brings items to the stock. */
  async deliver(item: string, quantity: number): Promise<void> {
    const body = { deliveryId: `first-${item}`, item, quantity };
    await this.client.call({ service: 'inventory-service', method: 'POST', path: '/deliveries', body });
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
        const { status } = await this.client.call<{ status?: 'processing' }>(orderCall(order));
        if (status !== 'processing') {
          this.accepted.set(orderId, order);
          counted.succeeded++;
          counted.latencies.push(elapsed());
          return;
        }
      } catch (error) {
        if (error instanceof ServiceResponseError && error.status === 424) {
          this.rejected.set(orderId, (error.body as Problem).detail);
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

  /** Makes a call that must not succeed; gives the problem that it is told. */
  async problemOf(call: ServiceCall): Promise<Problem> {
    try {
      await this.client.call(call);
    } catch (error) {
      if (error instanceof ServiceResponseError) return error.body as Problem;
      throw error;
    }
    throw new Error(`${call.method} ${call.path} of ${call.service} should have been rejected`);
  }
}

/** The order that the customers place if nothing else is said. */
export function usualOrder(orderId: string): OrderRequest {
  return { orderId, userId: 'ada', item: 'lamp', quantity: 1, amount: 9.5 };
}

export function orderCall(order: OrderRequest): ServiceCall {
  return {
    service: 'order-service',
    method: 'POST',
    path: '/orders',
    body: order,
    timeout: 5_000,
  };
}
