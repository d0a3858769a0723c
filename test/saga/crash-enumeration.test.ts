import { afterEach, describe, expect, it } from 'vitest';
import { defineSaga } from '../../src/saga/define-saga.ts';
import { InMemorySagaStore } from '../../src/saga/in-memory-saga-store.ts';
import { World } from './simulated-world.ts';
import { VirtualTime } from './virtual-time.ts';

const SAGA_ID = 'order-o1';
const time = new VirtualTime();
afterEach(() => time.uninstall());

/** The order saga of the demo, with services that only count. @param create how the order is created */
function defineOrderSaga(create: '/accepts' | '/rejects') {
  const post = (path: string) => () => ({ service: 'service', method: 'POST', path });
  const undo = { compensate: { call: post('/accepts') } };
  return defineSaga('order-processing', { version: 1, timeout: 60_000 })
    .step('validate_user', { call: post('/accepts'), ...undo })
    .step('reserve_items', { call: post('/accepts'), ...undo })
    .step('charge_payment', { call: post('/accepts'), ...undo })
    .step('create_order', { call: post(create), ...undo })
    .pivot()
    .step('send_order_confirmation', { call: post('/accepts') });
}

/** Runs an order whose process dies at a point; another one takes over. Gives how many points there were. */
async function runOrder(create: '/accepts' | '/rejects', deathAt: number): Promise<number> {
  const store = new InMemorySagaStore();
  const saga = defineOrderSaga(create);
  const world = new World(deathAt, store, [saga], { call: 0, store: 0 });
  world.deathAt = deathAt;
  const first = world.startProcess();
  void first.orchestrator.start(saga, { total: 10 }, { sagaId: SAGA_ID });
  await time.runUntil(() => !first.alive, 3_000);
  const { points } = world;

  if (!first.alive) {
    const second = world.startProcess();
    // Who has started it does not know whether it is written, and starts it again.
    void second.orchestrator.start(saga, { total: 10 }, { sagaId: SAGA_ID });
  }
  let status: string | undefined;
  const ended = await time.runUntil(() => {
    void store.get(SAGA_ID).then((stored) => {
      status = stored?.status;
    });
    return status === 'completed' || status === 'compensated';
  }, 60_000);
  expect(ended, `${status} after the death at ${deathAt}`).toBe(true);

  const { effects, present } = world.services;
  for (const [key, times] of effects) expect(times, key).toBe(1);
  const keys = saga.plan.steps.map(({ name }) => `${SAGA_ID}:${name}:invoke`);
  if (create === '/rejects') expect(status).toBe('compensated');
  expect([...present]).toEqual(status === 'completed' ? keys : []);
  world.end();
  time.reset();
  return points;
}

describe.each([
  ['completes', '/accepts', 5],
  ['is compensated', '/rejects', 4],
] as const)('a saga that %s', (_end, create, calls) => {
  it('ends whole if its process dies before or after any of its writes and calls', async () => {
    time.install();
    const points = await runOrder(create, 0);
    // Two sides of each call and each write: of the start, and of each outcome with what follows from it.
    expect(points).toBeGreaterThanOrEqual(2 * (calls + calls + 1));
    for (let deathAt = 1; deathAt <= points; deathAt++) await runOrder(create, deathAt);
  });
});
