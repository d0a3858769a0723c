import type pg from 'pg';
import { expect, onTestFinished } from 'vitest';
import { SagaOrchestrator, type SagaStore } from '../../../src/index.ts';
import type { Death } from '../events/deaths.ts';
import { prepareDatabase } from '../events/processes.ts';
import { freePort } from '../free-port.ts';
import { defineOrderSaga, type Order } from './order-saga.ts';
import { createClient, LEASE, type Origins, openStore, type SagaPlace } from './places.ts';
import { ServiceProcess } from './processes.ts';

export interface ShopOptions {
  /** The URL of a database of one's own, for the services. */
  readonly postgres: string;
  readonly place: SagaPlace;
  /** Milliseconds that each request takes at least. Default 0. */
  readonly delay?: number;
}

/** An order, and the version of the saga that it is started with. */
export interface PlacedOrder {
  readonly order: Order;
  readonly version: number;
}

type End = 'completed' | 'compensated';

const STOCKED = 1_000_000;

/** Services, each in a process of its own, with one database, and the place where the sagas of their orders are. */
export class Shop {
  readonly place: SagaPlace;
  readonly store: SagaStore;
  readonly origins: Origins;
  readonly #pool: pg.Pool;
  readonly #options: ShopOptions;
  /** #orders holds all orders of the shop. */
  readonly #orders: Order[] = [];

  private constructor(options: ShopOptions, pool: pg.Pool, origins: Origins) {
    this.place = options.place;
    this.origins = origins;
    this.#options = options;
    this.#pool = pool;
    const { store, close } = openStore(options.place);
    this.store = store;
    onTestFinished(close);
  }

  static async open(options: ShopOptions): Promise<Shop> {
    const { pool } = await prepareDatabase(
      options.postgres,
      'effects (id bigserial primary key, order_id text, effect text)',
    );
    await pool.query('create table requests (key text)');
    await pool.query('create table balances (name text primary key, amount int)');
    await pool.query(
      `insert into balances select unnest(array['stock', 'account', 'orders', 'mails']), ${STOCKED}`,
    );
    const [shop, payment] = [await freePort(), await freePort()];
    const opened = new Shop(options, pool, {
      'stock-service': [originOf(shop)],
      'order-service': [originOf(shop)],
      'payment-service': [originOf(payment)],
    });
    await Promise.all([opened.launchService(shop), opened.launchService(payment)]);
    return opened;
  }

  /** Creates orders of which each third one is rejected, or all, or none. Their names are new. */
  createOrders(name: string, count: number, rejected?: boolean): Order[] {
    const orders = Array.from({ length: count }, (_, n) => ({
      orderId: `${name}-${n}`,
      quantity: 1 + (n % 5),
      total: 10 + n,
      rejected: rejected ?? n % 3 === 2,
    }));
    this.#orders.push(...orders);
    return orders;
  }

  /** Launches a service, which may die at a statement. */
  launchService(port: number, death?: Death): Promise<ServiceProcess> {
    const { postgres, delay = 0 } = this.#options;
    return ServiceProcess.launch({ postgres, port, delay, ...(death && { death }) });
  }

  /** Opens an orchestrator in the process of the test. */
  openOrchestrator(
    sagas: readonly ReturnType<typeof defineOrderSaga>[],
    { origins = this.origins, lease = LEASE } = {},
  ): SagaOrchestrator {
    const client = createClient(origins);
    const orchestrator = new SagaOrchestrator({ store: this.store, sagas, client, lease });
    onTestFinished(async () => {
      await orchestrator.close();
      await client.close();
    });
    return orchestrator;
  }

  /** Takes over what others have left: whoever does not know whether an order was started starts it again. */
  async finish(placed: readonly PlacedOrder[]): Promise<void> {
    const definitions = new Map(placed.map(({ version }) => [version, defineOrderSaga(version)]));
    const orchestrator = this.openOrchestrator([...definitions.values()]);
    await Promise.all(
      placed.map(async ({ order, version }) => {
        const definition = definitions.get(version)!;
        const handle = await orchestrator.start(definition, order, { sagaId: order.orderId });
        await handle.result().catch(() => {});
      }),
    );
  }

  /**
   * Expects that each order has ended whole, that its effects and their undoings add up, and that none happened twice.
   * Gives how many orders have ended how.
   */
  async expectWhole(): Promise<Record<End, number>> {
    const effects = await this.#readEffects();
    const ends = { completed: 0, compensated: 0 };
    const left = { stock: STOCKED, account: STOCKED, orders: STOCKED, mails: STOCKED };
    for (const { orderId, quantity, total, rejected } of this.#orders) {
      const end = await this.#expectEnded(orderId);
      ends[end]++;
      expectEffects(orderId, end, effects.get(orderId) ?? new Map());
      if (rejected) expect(end, orderId).toBe('compensated');
      if (end === 'compensated') continue;
      left.stock -= quantity;
      left.account -= total;
      left.orders -= 1;
      left.mails -= 1;
    }
    const { rows } = await this.#pool.query('select name, amount from balances');
    expect(Object.fromEntries(rows.map(({ name, amount }) => [name, amount]))).toEqual(left);
    return ends;
  }

  /** Expects that no step was asked for twice. Gives how many were. */
  async expectAskedOnce(): Promise<number> {
    const { rows } = await this.#pool.query('select key, count(*)::int from requests group by key');
    expect(rows.filter(({ count }) => count > 1)).toEqual([]);
    return rows.length;
  }

  /** Gives the lengths of the journals of orders. */
  async readLengths(orders: readonly Order[]): Promise<number[]> {
    const sagas = await Promise.all(orders.map(({ orderId }) => this.store.get(orderId)));
    return sagas.map((saga) => saga!.entries.length);
  }

  async #expectEnded(orderId: string): Promise<End> {
    const saga = (await this.store.get(orderId))!;
    const types = saga.entries.map(({ entry }) => entry.type);
    expect(types.indexOf('end'), `the end of ${orderId} in ${types}`).toBe(types.length - 1);
    expect(['completed', 'compensated'], orderId).toContain(saga.status);
    return saga.status as End;
  }

  /** Gives how often each effect has happened, by order. */
  async #readEffects(): Promise<Map<string, Map<string, number>>> {
    const { rows } = await this.#pool.query(
      'select order_id, effect, count(*)::int from effects group by order_id, effect',
    );
    const effects = new Map<string, Map<string, number>>();
    for (const { order_id: orderId, effect, count } of rows) {
      effects.set(orderId, (effects.get(orderId) ?? new Map()).set(effect, count));
    }
    return effects;
  }
}

export function originOf(port: number): string {
  return `http://127.0.0.1:${port}`;
}

function expectEffects(orderId: string, end: End, effects: ReadonlyMap<string, number>): void {
  const told = `the effects of ${orderId}, which is ${end}`;
  if (end === 'completed') {
    const each = { reserve: 1, charge: 1, create: 1, confirm: 1 };
    expect(Object.fromEntries(effects), told).toEqual(each);
    return;
  }
  for (const count of effects.values()) expect(count, told).toBe(1);
  expect(effects.get('release'), told).toBe(effects.get('reserve'));
  expect(effects.get('refund'), told).toBe(effects.get('charge'));
  expect(effects.get('cancel'), told).toBe(effects.get('create'));
  expect(effects.has('confirm'), told).toBe(false);
}
