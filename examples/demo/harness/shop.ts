import { setTimeout } from 'node:timers/promises';
import {
  type ServiceCall,
  ServiceClient,
  type ServiceDiscovery,
  ServiceResponseError,
} from '../../../src/index.ts';
import type { Problem } from '../problem.ts';
import { Phase } from './report.ts';

const ORDERS_PER_SECOND = 30;
/** Milliseconds for which an order is asked for again. */
const MAX_WAIT = 30_000;

/** The customers: they place orders, and remember what they were told. */
export class Shop {
  readonly client: ServiceClient;
  readonly phases: Phase[] = [];
  phase = new Phase('');
  readonly accepted = new Set<string>();
  readonly rejected = new Set<string>();
  readonly askedAgain = new Set<string>();
  readonly unanswered = new Set<string>();
  readonly #narrate: (text: string) => void;

  constructor(discovery: ServiceDiscovery, narrate: (text: string) => void) {
    this.client = new ServiceClient({ discovery, callerName: 'shop' });
    this.#narrate = narrate;
  }

  async register(id: string): Promise<void> {
    const body = { id, email: `${id}@example.com`, name: id };
    await this.client.call({ service: 'user-service', method: 'POST', path: '/users', body });
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
  async placeOrder(orderId: string): Promise<void> {
    const counted = this.phase;
    const begun = performance.now();
    const elapsed = () => performance.now() - begun;
    while (elapsed() < MAX_WAIT) {
      try {
        await this.client.call(orderCall({ orderId, userId: 'ada', quantity: 1, amount: 9.5 }));
        this.accepted.add(orderId);
        counted.succeeded++;
        counted.latencies.push(elapsed());
        return;
      } catch (error) {
        if (error instanceof ServiceResponseError && error.status === 424) {
          this.rejected.add(orderId);
          counted.rejected++;
          counted.rejections.push(elapsed());
          return;
        }
        // Nobody knows what became of it, as after a timeout. Under its key it may be asked for again.
        this.#narrate(`  ${orderId}: ${error}. It is asked for again.`);
        this.askedAgain.add(orderId);
        await setTimeout(200);
      }
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

export function orderCall(order: {
  orderId: string;
  userId: string;
  quantity: number;
  amount: number;
}): ServiceCall {
  return {
    service: 'order-service',
    method: 'POST',
    path: '/orders',
    body: order,
    idempotencyKey: order.orderId,
    timeout: 5_000,
  };
}
