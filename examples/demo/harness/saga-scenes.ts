import { setTimeout } from 'node:timers/promises';
import { sagaIdOf } from '../order-service/order-saga.ts';
import type { Instance } from '../service.ts';
import type { KilledOrchestrator } from './killed-orchestrator.ts';
import { Phase } from './report.ts';
import { tellSaga } from './saga-story.ts';
import { orderCall, type Shop, usualOrder } from './shop.ts';
import type { Stage } from './stage.ts';

/** The scenes of the demo in which an order is half done, and nobody knows how far it is. */
export class SagaScenes {
  readonly #shop: Shop;
  readonly #stage: Stage;
  readonly #payments: readonly Instance[];
  readonly #narrate: (text: string) => void;

  constructor(shop: Shop, stage: Stage, payments: readonly Instance[], narrate: (text: string) => void) {
    this.#shop = shop;
    this.#stage = stage;
    this.#payments = payments;
    this.#narrate = narrate;
    // These orders are in no table.
    shop.phase = new Phase('sagas');
  }

  /** Has a payment respond after the saga has given it up, twice: once it asks again, once it undoes. */
  async delayPayments(): Promise<void> {
    const late = await this.#duringCharge(3_000, () => this.#shop.placeOrder('late'));
    await late.end;
    await this.tell('late');

    const order = orderCall(usualOrder('given-up'));
    const givenUp = await this.#duringCharge(2_000, () => this.#shop.problemOf(order));
    const path = '/orders/given-up/cancel';
    await this.#shop.client.call({ service: 'order-service', method: 'POST', path });
    this.#shop.rejected.add('given-up');
    this.#narrate(`   Its customer cancels the next one meanwhile: ${(await givenUp.end).detail}.`);
    await this.tell('given-up');
    this.#narrate('   The charge of it arrives after its refund, and is rejected.');
  }

  /** Kills the process that runs a saga, while its payment is under way. */
  async killOrchestrator(orchestrator: KilledOrchestrator): Promise<void> {
    await this.#duringCharge(500, () => orchestrator.begin(usualOrder('half-way')));
    await orchestrator.kill();
    await this.#shop.placeOrder('half-way');
    await this.tell('half-way');
  }

  async tell(orderId: string): Promise<void> {
    this.#narrate(`   ${sagaIdOf(orderId)}: ${await tellSaga(orderId, this.#stage.databases)}`);
  }

  /**
   * Begins an order, and waits until payment-service has its charge, which it delays, and no request after
   * it. Gives the end of what was begun, in an object since it is not waited for.
   */
  async #duringCharge<T>(delay: number, begin: () => Promise<T>): Promise<{ end: Promise<T> }> {
    for (const payment of this.#payments) await payment.set({ delay });
    const before = await this.#received();
    const end = begin();
    while ((await this.#received()) === before) await setTimeout(10);
    for (const payment of this.#payments) await payment.set({ delay: 0 });
    return { end };
  }

  async #received(): Promise<number> {
    const counts = await Promise.all(this.#payments.map((payment) => payment.received()));
    return counts.reduce((sum, count) => sum + count);
  }
}
