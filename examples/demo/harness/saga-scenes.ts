import { type EventEmitter, once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import type { Switches } from '../misbehaviour.ts';
import { sagaIdOf } from '../order-service/order-saga.ts';
import type { Instance, News } from '../service.ts';
import { readBooks } from './books.ts';
import type { KilledOrchestrator } from './killed-orchestrator.ts';
import { Phase } from './report.ts';
import { tellSaga } from './saga-story.ts';
import { byClerk, type Shop, usualOrder } from './shop.ts';
import type { Stage } from './stage.ts';

/** Milliseconds within which an instance tells what a scene waits for. */
const NEWS_TIMEOUT = 30_000;

/** The instances of payment-service, and an emitter of the kind of each news. */
interface PaymentService {
  readonly payments: readonly Instance[];
  readonly heard: EventEmitter;
}

/** The scenes of the demo in which orders meet, or are half done and nobody knows how far. */
export class SagaScenes {
  readonly #shop: Shop;
  readonly #stage: Stage;
  readonly #service: PaymentService;
  readonly #narrate: (text: string) => void;

  constructor(shop: Shop, stage: Stage, service: PaymentService, narrate: (text: string) => void) {
    this.#shop = shop;
    this.#stage = stage;
    this.#service = service;
    this.#narrate = narrate;
    // These orders are in no table.
    shop.phase = new Phase('sagas');
  }

  /** Has more orders come at once than there are items. */
  async sellOut(): Promise<void> {
    await this.#shop.deliver('vase', 5);
    const orderIds = Array.from({ length: 12 }, (_, index) => `vase-${index}`);
    await Promise.all(orderIds.map((orderId) => this.#shop.placeOrder(orderId, 'vase')));
    const { accepted, rejected } = this.#shop;
    const sold = orderIds.filter((orderId) => accepted.has(orderId)).length;
    const reasons = orderIds.flatMap((orderId) => rejected.get(orderId) ?? []);
    const { stock } = await readBooks(this.#stage.databases);
    this.#narrate(`   ${sold} got one, ${reasons.length} did not, and ${stock.get('vase')} are left.`);
    this.#narrate(`   The others are told: ${reasons[0]}.`);
  }

  /** Has a payment take longer than the saga waits for it: it asks again. */
  async delayPayment(): Promise<void> {
    const replayed = this.#hear('replay');
    const late = await this.#holdCharge('in-handling', () => this.#shop.placeOrder('late'));
    const before = await this.#received();
    while ((await this.#received()) === before) await setTimeout(10);
    await this.#release();
    await replayed;
    this.#narrate('   Asked again, it gives the response of the first time: it has charged once.');
    await late.end;
    await this.tell('late');
  }

  /** Has a payment arrive after the order was cancelled, and undone. */
  async overtakePayment(): Promise<void> {
    const [unseen, revoked] = [this.#hear('undone-unseen'), this.#hear('revoked')];
    const givenUp = await this.#holdCharge('on-its-way', () => this.#shop.placeOrder('given-up'));
    await this.#shop.visitor.call(byClerk({ method: 'POST', path: '/api/v1/orders/given-up/cancel' }));
    await givenUp.end;
    await unseen;
    this.#narrate('   A clerk cancels the next one meanwhile. The refund overtakes the charge.');
    await this.tell('given-up');
    await this.#release();
    await revoked;
    this.#narrate('   Now the charge arrives. It was undone before it came, and is rejected.');
  }

  /** Kills the process that runs a saga, while its payment is under way. */
  async killOrchestrator(orchestrator: KilledOrchestrator): Promise<void> {
    const replayed = this.#hear('replay');
    await this.#holdCharge('in-handling', () => orchestrator.begin(usualOrder('half-way')));
    await orchestrator.kill();
    await this.#release();
    await this.#shop.placeOrder('half-way');
    await replayed;
    this.#narrate(
      '   The other one asks again for the payment, and gets the response that the first has missed.',
    );
    await this.tell('half-way');
  }

  async tell(orderId: string): Promise<void> {
    this.#narrate(`   ${sagaIdOf(orderId)}: ${await tellSaga(orderId, this.#stage.databases)}`);
  }

  /**
   * Begins an order, and waits until its charge is held. Gives the end of what was begun, in an object since
   * it is not waited for.
   */
  async #holdCharge<T>(hold: Switches['hold'], begin: () => Promise<T>): Promise<{ end: Promise<T> }> {
    const held = this.#hear('held');
    await this.#set({ hold });
    const end = begin();
    await held;
    return { end };
  }

  #release(): Promise<void> {
    return this.#set({ hold: 'nowhere' });
  }

  async #received(): Promise<number> {
    const counts = await Promise.all(this.#service.payments.map((payment) => payment.received()));
    return counts.reduce((sum, count) => sum + count);
  }

  async #set(switches: Partial<Switches>): Promise<void> {
    await Promise.all(this.#service.payments.map((payment) => payment.set(switches)));
  }

  /** Waits until the next news of a kind; rejects if there are none in time. */
  #hear(kind: News['kind']): Promise<unknown> {
    const news = once(this.#service.heard, kind, { signal: AbortSignal.timeout(NEWS_TIMEOUT) });
    // It is awaited later, perhaps after something else has failed.
    news.catch(() => {});
    return news;
  }
}
