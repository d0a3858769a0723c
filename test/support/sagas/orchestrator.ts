/**
 * A process with an orchestrator, which dies by SIGKILL at one of the points that it passes: before and after each
 * write, after each claim, and before each call, when it is sent, and when its response is there.
 */
import { subscribe } from 'node:diagnostics_channel';
import { flushCompileCache } from 'node:module';
import { setTimeout } from 'node:timers/promises';
import { SagaOrchestrator } from '../../../src/saga/saga-orchestrator.ts';
import type { SagaStore } from '../../../src/saga/saga-store.ts';
import { defineOrderSaga, type Order } from './order-saga.ts';
import { createClient, type Origins, openStore, type SagaPlace } from './places.ts';

export interface OrchestratorOptions {
  readonly place: SagaPlace;
  readonly origins: Origins;
  /** Of the saga. */
  readonly version: number;
  /** Milliseconds. */
  readonly lease: number;
  readonly concurrency: number;
  /** The point at which it dies, from 1 on. Default: it lives. */
  readonly deathAt?: number;
}

/** Tells it to start orders. */
export interface StartMessage {
  readonly orders: readonly Order[];
  /** When, in milliseconds since 1970. */
  readonly at: number;
}

/** Its message when the sagas of its orders have ended. */
export interface Report {
  /** The points that it has passed. */
  readonly points: number;
  /** The sagas that it has lost to another process. */
  readonly lost: number;
}

const options = JSON.parse(process.argv[2]!) as OrchestratorOptions;
const { lease, concurrency } = options;
let points = 0;
let lost = 0;

for (const channel of ['client:sendHeaders', 'request:bodySent', 'request:trailers']) {
  subscribe(`undici:${channel}`, pass);
}
const { store } = openStore(options.place);
watch(store);
const saga = defineOrderSaga(options.version);
const client = createClient(options.origins);
const orchestrator = new SagaOrchestrator({ store, sagas: [saga], client, lease, concurrency });
orchestrator.on('lose', () => lost++);

process.on('disconnect', () => process.exit());
process.on('message', async ({ orders, at }: StartMessage) => {
  await setTimeout(Math.max(0, at - Date.now()));
  const handles = await Promise.all(
    orders.map((order) => orchestrator.start(saga, order, { sagaId: order.orderId })),
  );
  process.send!('started');
  await Promise.allSettled(handles.map((handle) => handle.result()));
  process.send!({ points, lost } satisfies Report);
});
// It does not live to do so at its end: the next one starts in half of the time.
flushCompileCache();
process.send!('ready');

function pass(): void {
  points++;
  if (points === options.deathAt) process.kill(process.pid, 'SIGKILL');
}

function watch(store: SagaStore): void {
  const { create, write, claim } = store;
  const between = async <Result>(run: () => Promise<Result>): Promise<Result> => {
    pass();
    const result = await run();
    pass();
    return result;
  };
  store.create = (saga) => between(() => create.call(store, saga));
  store.write = (change) => between(() => write.call(store, change));
  store.claim = async (...args) => {
    const claimed = await claim.apply(store, args);
    if (claimed.length > 0) pass();
    return claimed;
  };
}
