import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import {
  constantBackoff,
  currentRequestContext,
  type DomainEvent,
  defineSaga,
  InMemoryEventBus,
  InMemorySagaStore,
  type NewEvent,
  runWithRequestContext,
  SagaOrchestrator,
  type SagaOrchestratorOptions,
  ServiceClient,
  type StandardSchema,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';

interface Order {
  readonly id: string;
  readonly total: number;
}

const ORDER: Order = { id: 'o1', total: 10 };
/** The fields of a new saga in a store, besides its id and its entries. */
const NEW = { name: 'order', version: 1, context: {}, input: '{}', cancellable: true, events: [], lease: 0 };
const SOON = { maxAttempts: 2, backoff: constantBackoff(10) };

beforeEach(() => {
  vi.useFakeTimers();
});

function create(options: Partial<SagaOrchestratorOptions>): SagaOrchestrator {
  const orchestrator = new SagaOrchestrator({
    store: new InMemorySagaStore(),
    sagas: [],
    closeTimeout: 0,
    ...options,
  });
  onTestFinished(() => orchestrator.close());
  return orchestrator;
}

function createBus(): InMemoryEventBus {
  const bus = new InMemoryEventBus({ source: 'test' });
  onTestFinished(() => bus.close());
  return bus;
}

/** Gives how a promise is settled, once some time has passed. */
async function settledAfter<T>(milliseconds: number, promise: Promise<T>): Promise<T | Error> {
  const settled = promise.catch((error: Error) => error);
  await vi.advanceTimersByTimeAsync(milliseconds);
  return await settled;
}

function fail(): never {
  throw new Error('no');
}

const order = defineSaga<Order>('order', { version: 1 });

it('a saga runs its steps in their order, and gives their results', async () => {
  const saga = order
    .step('price', { run: ({ input }) => input.total * 2 })
    .step('charge', { run: async ({ results }) => ({ charged: results.price }) })
    .pivot()
    .step('mail', { run: ({ results }) => `charged ${results.charge.charged}` });
  const orchestrator = create({ sagas: [saga] });
  const log: string[] = [];
  orchestrator.on('step', ({ step }) => log.push(step));
  const handle = await orchestrator.start(saga, ORDER);
  expect(await handle.result()).toEqual({ price: 20, charge: { charged: 20 }, mail: 'charged 20' });
  expect(log).toEqual(['price', 'charge', 'mail']);
  expect(await handle.status()).toBe('completed');
});

it('a step that fails for good is undone with the steps before it, the latest first', async () => {
  const log: string[] = [];
  const saga = order
    .step('a', { run: () => 'A', compensate: { run: ({ result }) => log.push(`undo a ${result}`) } })
    .step('b', { run: () => 'B' })
    .step('c', {
      run: (_step, { attempt }) => {
        log.push(`c ${attempt}`);
        throw new Error('no');
      },
      retry: SOON,
      compensate: { run: ({ result }) => log.push(`undo c ${result}`) },
    });
  const orchestrator = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
  expect(await settledAfter(1_000, handle.result())).toMatchObject({
    code: 'ERR_SAGA_FAILED',
    sagaId: 's1',
    status: 'compensated',
    step: 'c',
    cause: { message: 'no' },
  });
  expect(log).toEqual(['c 1', 'c 2', 'undo c undefined', 'undo a A']);
});

it('steps side by side are undone one at a time, the latest to complete first', async () => {
  const log: string[] = [];
  const stepOf = (name: string, wait: number) => ({
    run: () => new Promise<string>((resolve) => void setTimeout(resolve, wait, name)),
    compensate: {
      run: async () => {
        log.push(`undo ${name}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
        log.push(`undone ${name}`);
      },
    },
  });
  const saga = order
    .parallel({ slow: stepOf('slow', 30), fast: stepOf('fast', 10), middle: stepOf('middle', 20) })
    .step('fails', { run: fail, retry: { maxAttempts: 1 } });
  const orchestrator = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, ORDER);
  await settledAfter(1_000, handle.result());
  expect(log).toEqual(['slow', 'middle', 'fast'].flatMap((name) => [`undo ${name}`, `undone ${name}`]));
});

it('a second start with the same id gives the same saga, or a conflict if it is meant to be another', async () => {
  let runs = 0;
  const saga = order.step('a', { run: () => ++runs });
  const other = defineSaga<Order>('other', { version: 1 }).step('a', { run: () => 1 });
  const orchestrator = create({ sagas: [saga, other] });
  const options = { sagaId: 'order-o1' };
  const [one, two] = await Promise.all([
    orchestrator.start(saga, ORDER, options),
    orchestrator.start(saga, { total: 10, id: 'o1' }, options),
  ]);
  expect(await Promise.all([one.result(), two.result()])).toEqual([{ a: 1 }, { a: 1 }]);
  const conflict = { code: 'ERR_SAGA_CONFLICT', sagaId: 'order-o1' };
  await expect(orchestrator.start(saga, { ...ORDER, total: 11 }, options)).rejects.toMatchObject(conflict);
  await expect(orchestrator.start(other, ORDER, options)).rejects.toMatchObject(conflict);
});

describe('a cancellation', () => {
  const hang = ({ signal }: { signal: AbortSignal }) =>
    new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')));
    });

  it('ends what is under way, and has the saga compensated', async () => {
    const log: string[] = [];
    const saga = order
      .step('a', { run: () => 1, compensate: { run: () => log.push('undo a') } })
      .step('b', { run: (_step, context) => hang(context), compensate: { run: () => log.push('undo b') } });
    const orchestrator = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(10);
    expect(await orchestrator.cancel('s1')).toBe(true);
    expect(await settledAfter(100, handle.result())).toMatchObject({
      status: 'compensated',
      step: undefined,
      cause: { message: 'the saga was cancelled' },
    });
    expect(log).toEqual(['undo b', 'undo a']);
    expect(await orchestrator.cancel('s1')).toBe(false);
  });

  it('is false from the pivot on, and while the saga is compensated', async () => {
    const pivoted = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { run: () => new Promise((resolve) => setTimeout(resolve, 100)) });
    const failing = defineSaga('failing', { version: 1 }).step('a', {
      run: fail,
      retry: { maxAttempts: 1 },
      compensate: { run: () => new Promise((resolve) => setTimeout(resolve, 100)) },
    });
    const orchestrator = create({ sagas: [pivoted, failing] });
    await orchestrator.start(pivoted, ORDER, { sagaId: 's1' });
    await orchestrator.start(failing, null, { sagaId: 's2' });
    await vi.advanceTimersByTimeAsync(50);
    expect(await orchestrator.cancel('s1')).toBe(false);
    expect(await orchestrator.cancel('s2')).toBe(false);
    await expect(orchestrator.cancel('s3')).rejects.toMatchObject({ code: 'ERR_SAGA_NOT_FOUND' });
  });

  it('waits for a step that does not obey, so that it is not undone before it has happened', async () => {
    const log: string[] = [];
    const saga = order.step('a', {
      run: async () => {
        await new Promise((resolve) => setTimeout(resolve, 500));
        log.push('a');
      },
      compensate: { run: () => log.push('undo a') },
    });
    const orchestrator = create({ sagas: [saga] });
    await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(10);
    expect(await orchestrator.cancel('s1')).toBe(true);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(log).toEqual(['a', 'undo a']);
  });
});

it('a saga that has not reached its pivot in time is compensated; one that has goes on', async () => {
  const wait = { run: () => new Promise((resolve) => setTimeout(resolve, 700)) };
  const late = defineSaga('late', { version: 1, timeout: 1_000 }).step('a', wait).step('b', wait);
  const pivoted = defineSaga('pivoted', { version: 1, timeout: 1_000 })
    .step('a', wait)
    .pivot()
    .step('b', wait);
  const orchestrator = create({ sagas: [late, pivoted] });
  const one = await orchestrator.start(late, null);
  const two = await orchestrator.start(pivoted, null);
  expect(await settledAfter(2_000, one.result())).toMatchObject({
    status: 'compensated',
    cause: { code: 'ERR_TIMEOUT' },
  });
  expect(await two.status()).toBe('completed');
});

describe('a stuck saga', () => {
  it('is listed with its step and its reason, and goes on after a retry', async () => {
    let broken = true;
    const saga = order
      .step('a', {
        run: () => 1,
        compensate: {
          run: () => {
            if (broken) throw new Error('postgres://root:secret@host rejected Bearer abc.def');
          },
          retry: SOON,
        },
      })
      .step('b', { run: fail, retry: SOON });
    const orchestrator = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    expect(await settledAfter(500, handle.result())).toMatchObject({ status: 'stuck', step: 'a' });
    const listed = [];
    for await (const { sagaId, step, reason } of orchestrator.list({ status: 'stuck' })) {
      listed.push([sagaId, step, reason?.message]);
    }
    expect(listed).toEqual([['s1', 'a', 'postgres://***@host rejected Bearer ***']]);

    broken = false;
    expect(await orchestrator.retry('s1')).toBe(true);
    expect(await settledAfter(500, handle.result())).toMatchObject({ status: 'compensated', step: 'b' });
    expect(await orchestrator.retry('s1')).toBe(false);
  });

  it('goes on without the step that an operator skips', async () => {
    const store = new InMemorySagaStore();
    const saga = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { run: fail, retry: SOON })
      .step('c', { run: () => 3 });
    const orchestrator = create({ store, sagas: [saga] });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    expect(await settledAfter(500, handle.result())).toMatchObject({ status: 'stuck', step: 'b' });
    expect(await orchestrator.skip('s1', 'a', { reason: 'wrong' })).toBe(false);
    expect(await orchestrator.skip('s1', 'b', { reason: 'done by hand' })).toBe(true);
    const results = { a: 1, b: undefined, c: 3 };
    expect(await settledAfter(500, handle.result())).toStrictEqual(results);
    // The same from a process without the definition.
    const later = await create({ store }).get('s1');
    expect(await settledAfter(500, later!.result())).toStrictEqual(results);
  });

  it('is what becomes of a saga whose step gives too much; an operator may give the result', async () => {
    const saga = order
      .step('a', { run: () => 'x'.repeat(300_000) })
      .step('b', { run: ({ results }) => results.a.length });
    const orchestrator = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    expect(await settledAfter(100, handle.result())).toMatchObject({ status: 'stuck', step: 'a' });
    expect(await orchestrator.complete('s1', 'a', 'short')).toBe(true);
    expect(await settledAfter(500, handle.result())).toEqual({ a: 'short', b: 5 });
  });

  it('goes on after its time is over, once an operator lets it', async () => {
    const saga = defineSaga('timed', { version: 1, timeout: 1_000 })
      .step('a', { run: () => 'x'.repeat(300_000) })
      .step('b', { run: () => new Promise((resolve) => setTimeout(resolve, 2_000, 'B')) });
    const orchestrator = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
    expect(await settledAfter(5_000, handle.result())).toMatchObject({ status: 'stuck', step: 'a' });
    expect(await orchestrator.complete('s1', 'a', 'short')).toBe(true);
    expect(await settledAfter(5_000, handle.result())).toEqual({ a: 'short', b: 'B' });
  });

  it('takes no cancellation while its definition has not a step of its journal, and does once that is back', async () => {
    const store = new InMemorySagaStore();
    const undo = vi.fn();
    const first = order.step('a', { run: () => 1, compensate: { run: undo } });
    const full = first.step('b', { run: fail, retry: { maxAttempts: 9, backoff: constantBackoff(60_000) } });
    const former = create({ store, sagas: [full] });
    await former.start(full, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(1_000);
    await former.close();
    const changed = create({ store, sagas: [first] });
    const handle = (await changed.get('s1'))!;
    expect(await settledAfter(61_000, handle.result())).toMatchObject({ status: 'stuck', step: undefined });
    expect(await changed.cancel('s1')).toBe(false);
    expect(await changed.retry('s1')).toBe(true);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await changed.cancel('s1')).toBe(false);
    await changed.close();
    const again = create({ store, sagas: [full] });
    expect(await again.retry('s1')).toBe(true);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await again.cancel('s1')).toBe(true);
    const restored = (await again.get('s1'))!;
    expect(await settledAfter(2_000, restored.result())).toMatchObject({ status: 'compensated' });
    expect(undo).toHaveBeenCalledOnce();
  });

  it('is compensated if it is cancelled before its pivot', async () => {
    const log: unknown[] = [];
    const saga = defineSaga('timed', { version: 1, timeout: 1_000 }).step('a', {
      run: () => 'x'.repeat(300_000),
      compensate: { run: ({ result }) => log.push(result) },
    });
    const orchestrator = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
    expect(await settledAfter(5_000, handle.result())).toMatchObject({ status: 'stuck', step: 'a' });
    expect(await orchestrator.cancel('s1')).toBe(true);
    expect(await settledAfter(1_000, handle.result())).toMatchObject({
      status: 'compensated',
      cause: { message: 'the saga was cancelled' },
    });
    expect(log).toEqual([undefined]);
    expect(await orchestrator.cancel('s1')).toBe(false);
  });

  it('takes no result for a step that waits for nothing and at which it is not stuck', async () => {
    const store = new InMemorySagaStore();
    const saga = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { run: fail, retry: SOON })
      .waitFor('c', { event: 'c.done', sagaId: () => undefined });
    const orchestrator = create({ store, sagas: [saga], bus: createBus() });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    expect(await orchestrator.complete('s1', 'b', 2)).toBe(false);
    await vi.advanceTimersByTimeAsync(500);
    expect(await handle.status()).toBe('stuck');
    expect(await orchestrator.complete('s1', 'a', 2)).toBe(false);
    expect(await orchestrator.fail('s1', 'b', 'no')).toBe(false);
    const unknown = new RangeError("the saga 'order' has no step 'd', but 'a', 'b', 'c'");
    await expect(orchestrator.complete('s1', 'd', 2)).rejects.toThrow(unknown);
    await expect(orchestrator.fail('s1', 'd', 'no')).rejects.toThrow(unknown);
    await expect(orchestrator.complete('s2', 'a')).rejects.toMatchObject({ code: 'ERR_SAGA_NOT_FOUND' });
    await expect(orchestrator.fail('s2', 'a', 'no')).rejects.toMatchObject({ code: 'ERR_SAGA_NOT_FOUND' });
    expect(await orchestrator.complete('s1', 'c', 3)).toBe(true);
    expect(await orchestrator.complete('s1', 'b', 2)).toBe(true);
    expect(await settledAfter(500, handle.result())).toEqual({ a: 1, b: 2, c: 3 });
    expect(await orchestrator.complete('s1', 'c', 3)).toBe(false);
  });

  it('takes no result for a step at whose compensation it is stuck, with or without its definition', async () => {
    const store = new InMemorySagaStore();
    const undo = { run: vi.fn(fail), retry: SOON };
    const saga = order.step('a', { run: () => 1, compensate: undo }).step('review', {
      run: () => 1,
      completedBy: { event: 'review.done', sagaId: () => undefined, timeout: 10 },
      compensate: undo,
    });
    const orchestrator = create({ store, sagas: [saga], bus: createBus() });
    const operator = create({ store });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    for (const step of ['review', 'a']) {
      expect(await settledAfter(3_000, handle.result())).toMatchObject({ status: 'stuck', step });
      expect(await orchestrator.complete('s1', step, 2)).toBe(false);
      expect(await operator.complete('s1', step, 2)).toBe(false);
      expect(await operator.skip('s1', step, { reason: 'done by hand' })).toBe(true);
    }
    expect(await settledAfter(3_000, handle.result())).toMatchObject({ status: 'compensated' });
    expect(undo.run).toHaveBeenCalledTimes(2 * SOON.maxAttempts);
  });

  it('takes a result also in a process that does not have its definition, only for a step that it has begun', async () => {
    const store = new InMemorySagaStore();
    const { promise, resolve } = deferred<void>();
    const saga = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { run: fail, retry: SOON })
      .step('review', {
        run: () => promise,
        completedBy: { event: 'review.done', sagaId: () => undefined },
      })
      .waitFor('parcel', { event: 'parcel.sent', sagaId: () => undefined });
    const runner = create({ store, sagas: [saga], bus: createBus() });
    const operator = create({ store });
    const handle = await runner.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(500);
    expect(await handle.status()).toBe('stuck');
    for (const step of ['a', 'parcel', 'unknown']) {
      expect(await operator.complete('s1', step, 1)).toBe(false);
      expect(await operator.fail('s1', step, 'no')).toBe(false);
    }
    expect(await operator.fail('s1', 'b', 'no')).toBe(false);
    expect(await operator.complete('s1', 'b', 2)).toBe(true);
    await vi.advanceTimersByTimeAsync(2_000);
    // It has been asked for, and may come before it is waited for.
    expect(await operator.complete('s1', 'review', 3)).toBe(true);
    resolve();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await operator.complete('s1', 'review', 4)).toBe(false);
    expect(await operator.complete('s1', 'parcel', 5)).toBe(true);
    expect(await settledAfter(2_000, handle.result())).toEqual({ a: 1, b: 2, review: 3, parcel: 5 });
    await expect(operator.complete('s2', 'a', 1)).rejects.toMatchObject({ code: 'ERR_SAGA_NOT_FOUND' });
    await expect(operator.fail('s2', 'a', 1)).rejects.toMatchObject({ code: 'ERR_SAGA_NOT_FOUND' });
  });

  it('is what becomes of a saga whose journal is not of its definition, and delays no other', async () => {
    const store = new InMemorySagaStore();
    const saga = order.step('a', { run: () => 1 });
    const entries = [{ type: 'invoke', step: 'unknown', attempt: 1, delay: 0 } as const];
    await store.create({ ...NEW, sagaId: 's1', entries });
    await store.create({ ...NEW, sagaId: 's2', input: '{', entries: [] });
    const orchestrator = create({ store, sagas: [saga] });
    const handle = await orchestrator.start(saga, ORDER);
    expect(await settledAfter(500, handle.result())).toEqual({ a: 1 });
    const listed = [];
    for await (const { sagaId, reason } of orchestrator.list({ status: 'stuck' }))
      listed.push([sagaId, reason?.message]);
    expect(listed).toEqual([
      ['s1', "the journal has a step 'unknown', which the definition has not"],
      ['s2', expect.stringContaining('JSON')],
    ]);
  });
});

describe('an event', () => {
  it('completes the step that waits for it, also if it came early', async () => {
    const bus = createBus();
    const saga = order
      .step('a', { run: () => new Promise((resolve) => setTimeout(resolve, 1_000)) })
      .waitFor('parcel', {
        event: 'order.shipped',
        correlate: (event, { input }) => event.aggregateId === input.id,
        result: z.object({ parcel: z.string() }),
      });
    const orchestrator = create({ sagas: [saga], bus });
    const handle = await orchestrator.start(saga, ORDER);
    const other = await orchestrator.start(saga, { ...ORDER, id: 'o2' });
    await bus.publish({ eventType: 'order.shipped', aggregateId: 'o1', data: { parcel: 'p1' } });
    expect(await settledAfter(2_000, handle.result())).toMatchObject({ parcel: { parcel: 'p1' } });
    expect(await other.status()).toBe('running');
    await bus.publish({ eventType: 'order.shipped', aggregateId: 'o2', data: { parcel: 'p2' } });
    expect(await settledAfter(2_000, other.result())).toMatchObject({ parcel: { parcel: 'p2' } });
  });

  it('reaches its saga although it cannot be told whether it is that of another', async () => {
    const bus = createBus();
    const correlated = order.waitFor('parcel', {
      event: 'order.shipped',
      correlate: (event, { input }) => (input.id === 'o1' ? fail() : event.aggregateId === input.id),
    });
    const named = defineSaga('named', { version: 1 })
      .waitFor('broken', { event: 'order.shipped', sagaId: fail })
      .waitFor('parcel', { event: 'order.shipped', sagaId: () => 's3' });
    const orchestrator = create({ sagas: [correlated, named], bus });
    const errors: unknown[] = [];
    orchestrator.on('error', ({ error }) => errors.push(error));
    await orchestrator.start(correlated, ORDER, { sagaId: 's1' });
    const handle = await orchestrator.start(correlated, { ...ORDER, id: 'o2' }, { sagaId: 's2' });
    const other = await orchestrator.start(named, null, { sagaId: 's3' });
    await bus.publish({ eventType: 'order.shipped', aggregateId: 'o2', data: 'p2' });
    expect(await settledAfter(1_000, handle.result())).toEqual({ parcel: 'p2' });
    expect(errors).toEqual([new Error('no'), new Error('no')]);
    expect(await orchestrator.complete('s3', 'broken')).toBe(true);
    expect(await settledAfter(1_000, other.result())).toMatchObject({ parcel: 'p2' });
  });

  it.each([[null], [5], [''], ['a\0b'], ['x'.repeat(129)]])(
    'is of no saga if it says that its saga is %j, which no store is asked for',
    async (named) => {
      const bus = createBus();
      const store = new InMemorySagaStore();
      const saga = order.waitFor('parcel', {
        event: 'order.shipped',
        sagaId: ({ data }) => (data as { sagaId: string }).sagaId,
      });
      const orchestrator = create({ store, sagas: [saga], bus });
      const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
      const summaries = vi.spyOn(store, 'summaries');
      for (const sagaId of [named, 's1']) {
        await bus.publish({ eventType: 'order.shipped', aggregateId: 'o1', data: { sagaId } });
      }
      expect(await settledAfter(1_000, handle.result())).toEqual({ parcel: { sagaId: 's1' } });
      expect(summaries.mock.calls.flat(2)).not.toContain(named);
    },
  );

  it('that is too large to be kept leaves the saga stuck, also before the pivot', async () => {
    const bus = createBus();
    const undo = vi.fn();
    const saga = order
      .step('a', { run: () => 1, compensate: { run: undo } })
      .waitFor('parcel', { event: 'order.shipped', sagaId: ({ aggregateId }) => aggregateId });
    const orchestrator = create({ sagas: [saga], bus });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    await bus.publish({ eventType: 'order.shipped', aggregateId: 's1', data: 'x'.repeat(300_000) });
    expect(await settledAfter(1_000, handle.result())).toMatchObject({ status: 'stuck', step: 'parcel' });
    expect(await orchestrator.complete('s1', 'parcel', 'smaller')).toBe(true);
    expect(await settledAfter(1_000, handle.result())).toEqual({ a: 1, parcel: 'smaller' });
    expect(undo).not.toHaveBeenCalled();
  });

  it('that is changed while a saga is asked whether it is its own is the same for all others', async () => {
    const bus = createBus();
    const change = (event: DomainEvent) => {
      (event.data as { n: number }).n += 1;
      return true;
    };
    const saga = order
      .waitFor('parcel', { event: 'order.shipped', correlate: change })
      .waitFor('note', { event: 'order.shipped', correlate: change });
    const orchestrator = create({ sagas: [saga], bus });
    const handles = await Promise.all([orchestrator.start(saga, ORDER), orchestrator.start(saga, ORDER)]);
    await bus.publish({ eventType: 'order.shipped', aggregateId: 'o1', data: { n: 1 } });
    const results = await settledAfter(1_000, Promise.all(handles.map((handle) => handle.result())));
    const kept = { parcel: { n: 1 }, note: { n: 1 } };
    expect(results).toEqual([kept, kept]);
  });

  it('that does not come in time fails the step', async () => {
    const wait = { event: 'order.shipped', sagaId: () => undefined, timeout: 60_000 };
    const saga = order.waitFor('parcel', wait);
    const orchestrator = create({ sagas: [saga], bus: createBus() });
    const handle = await orchestrator.start(saga, ORDER);
    const failure = settledAfter(62_000, handle.result());
    expect(await failure).toMatchObject({
      status: 'compensated',
      step: 'parcel',
      cause: { name: 'TimeoutError' },
    });
  });

  it('completes or fails a step that somebody else carries out', async () => {
    const bus = createBus();
    const tokens: string[] = [];
    const saga = order.step('review', {
      run: (_step, { token }) => tokens.push(token),
      completedBy: {
        event: 'saga.step.completed',
        failedBy: 'saga.step.failed',
        correlate: (event, { token }) => event.aggregateId === token,
      },
    });
    const orchestrator = create({ sagas: [saga], bus });
    const handles = await Promise.all(
      ['s1', 's2', 's3'].map((sagaId) => orchestrator.start(saga, ORDER, { sagaId })),
    );
    await vi.advanceTimersByTimeAsync(100);
    await bus.publish({ eventType: 'saga.step.completed', aggregateId: tokens[0]!, data: { by: 'Ada' } });
    await bus.publish({ eventType: 'saga.step.failed', aggregateId: tokens[1]!, data: { reason: 'rude' } });
    expect(await orchestrator.complete('s3', 'review', 'by hand')).toBe(true);
    const results = await settledAfter(2_000, Promise.allSettled(handles.map((handle) => handle.result())));
    expect(results).toMatchObject([
      { value: { review: { by: 'Ada' } } },
      {
        reason: {
          status: 'compensated',
          step: 'review',
          cause: { message: expect.stringMatching(/: rude$/) },
        },
      },
      { value: { review: 'by hand' } },
    ]);
  });

  describe('that completes a step whose responses are lost', () => {
    const LOST = { maxAttempts: 2, backoff: constantBackoff(1_000) };
    /** A step that asks for a payment, of which only an event tells. */
    function askForPayment(ask: () => unknown, failedBy?: string) {
      const run = async () => {
        await ask();
        throw new Error('the response was lost');
      };
      const event = { event: 'order.paid', failedBy, sagaId: ({ aggregateId }: DomainEvent) => aggregateId };
      return { run, completedBy: event, retry: LOST };
    }
    const paid = { eventType: 'order.paid', aggregateId: 's1', data: 'p1' };

    it.each([
      ['during an attempt', 0, 1],
      ['between two attempts', 500, 1],
      ['during the last attempt', 1_000, 2],
    ])('counts if it comes %s', async (_when, at, attempts) => {
      const bus = createBus();
      const ask = vi.fn(() => new Promise((resolve) => setTimeout(resolve, 100)));
      const undo = vi.fn();
      const saga = order
        .step('pay', { ...askForPayment(ask), compensate: { run: undo } })
        .pivot()
        .step('pack', { run: ({ results }) => results.pay });
      const orchestrator = create({ sagas: [saga], bus });
      const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
      await vi.advanceTimersByTimeAsync(at + 50 * attempts);
      await bus.publish(paid);
      expect(await settledAfter(400, handle.result())).toEqual({ pay: 'p1', pack: 'p1' });
      expect(ask).toHaveBeenCalledTimes(attempts);
      expect(undo).not.toHaveBeenCalled();
    });

    it('counts after the pivot too, and also if it comes before the step', async () => {
      const bus = createBus();
      const ask = vi.fn();
      const saga = order
        .step('a', { run: () => new Promise((resolve) => setTimeout(resolve, 1_000)) })
        .pivot()
        .step('pay', askForPayment(ask));
      const orchestrator = create({ sagas: [saga], bus });
      const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
      await bus.publish(paid);
      expect(await settledAfter(1_500, handle.result())).toMatchObject({ pay: 'p1' });
      expect(ask).toHaveBeenCalledOnce();
    });

    it('counts for the owner that takes over', async () => {
      const bus = createBus();
      const store = new InMemorySagaStore();
      const ask = vi.fn(() => new Promise(() => {}));
      const saga = order.step('pay', askForPayment(ask));
      const first = create({ store, sagas: [saga], bus });
      await first.start(saga, ORDER, { sagaId: 's1' });
      await vi.advanceTimersByTimeAsync(100);
      await bus.publish(paid);
      await vi.advanceTimersByTimeAsync(100);
      await settledAfter(1_000, first.close());
      const handle = (await create({ store, sagas: [saga], bus }).get('s1'))!;
      expect(await settledAfter(12_000, handle.result())).toEqual({ pay: 'p1' });
      expect(ask).toHaveBeenCalledOnce();
    });

    it('fails it without another attempt if it says so', async () => {
      const bus = createBus();
      const ask = vi.fn();
      const saga = order.step('pay', askForPayment(ask, 'payment.declined'));
      const orchestrator = create({ sagas: [saga], bus });
      const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
      await vi.advanceTimersByTimeAsync(500);
      await bus.publish({ ...paid, eventType: 'payment.declined', data: 'no money' });
      expect(await settledAfter(400, handle.result())).toMatchObject({
        status: 'compensated',
        cause: { message: expect.stringMatching(/: no money$/) },
      });
      expect(ask).toHaveBeenCalledOnce();
    });
  });

  it('that comes early is kept, also while the saga is stuck before its step', async () => {
    const bus = createBus();
    let broken = true;
    const saga = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('pack', { run: () => (broken ? fail() : 'packed'), retry: SOON })
      .waitFor('parcel', { event: 'order.shipped', sagaId: ({ aggregateId }) => aggregateId });
    const orchestrator = create({ sagas: [saga], bus });
    const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    expect(await settledAfter(500, handle.result())).toMatchObject({ status: 'stuck', step: 'pack' });
    await bus.publish({ eventType: 'order.shipped', aggregateId: 's1', data: 'p1' });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await handle.status()).toBe('stuck');
    broken = false;
    await orchestrator.retry('s1');
    expect(await settledAfter(1_000, handle.result())).toEqual({ a: 1, pack: 'packed', parcel: 'p1' });
  });

  it('of a step is published once, and events tell what becomes of the saga', async () => {
    const bus = createBus();
    const seen: string[] = [];
    await bus.subscribe('saga.*', ({ eventType, aggregateId }) => seen.push(`${aggregateId} ${eventType}`), {
      broadcast: true,
    });
    const mails: string[] = [];
    await bus.subscribe('mail.sent', ({ eventId, aggregateId }) => mails.push(`${aggregateId} ${eventId}`), {
      broadcast: true,
    });
    const saga = order.step('mail', {
      publish: ({ input }) => ({ eventType: 'mail.sent', aggregateId: input.id, data: {} }),
    });
    const failing = defineSaga('failing', { version: 1 }).step('a', { run: fail, retry: SOON });
    const orchestrator = create({ sagas: [saga, failing], bus });
    await orchestrator.start(saga, ORDER, { sagaId: 's1' });
    await orchestrator.start(failing, null, { sagaId: 's2' });
    await vi.advanceTimersByTimeAsync(3_000);
    expect(seen.filter((text) => text.startsWith('s1'))).toEqual(['s1 saga.started', 's1 saga.completed']);
    expect(seen.filter((text) => text.startsWith('s2'))).toEqual([
      's2 saga.started',
      's2 saga.compensating',
      's2 saga.compensated',
    ]);
    expect(mails).toEqual([expect.stringMatching(/^o1 [\da-f]{8}-[\da-f]{4}-8/)]);
  });
});

it('an orchestrator that closes publishes the events of its last writes, also while others are being published', async () => {
  const bus = createBus();
  const { promise: stored, resolve: store } = deferred<void>();
  const publish = bus.publish.bind(bus) as (events: NewEvent[]) => Promise<DomainEvent[]>;
  const published: string[] = [];
  vi.spyOn(bus, 'publish').mockImplementation((async (events: NewEvent[]) => {
    await stored;
    const complete = await publish(events);
    published.push(...complete.map(({ eventType }) => eventType));
    return complete;
  }) as never);
  const { promise: worked, resolve: work } = deferred<void>();
  const saga = order.step('a', { run: () => worked });
  const orchestrator = create({ sagas: [saga], bus, closeTimeout: 1_000 });
  const handle = await orchestrator.start(saga, ORDER);
  await vi.advanceTimersByTimeAsync(100);
  work();
  await handle.result();
  const closing = orchestrator.close();
  store();
  await settledAfter(100, closing);
  expect(published).toEqual(['saga.started', 'saga.completed']);
});

describe('a schema', () => {
  const schemaOf = (validate: () => unknown) =>
    ({ '~standard': { version: 1, vendor: 'test', validate } }) as unknown as StandardSchema;
  const never = schemaOf(() => new Promise(() => {}));

  it('that never decides is given up after the timeout of its step', async () => {
    const undo = vi.fn();
    const saga = order.step('a', {
      run: () => 1,
      result: never,
      timeout: 1_000,
      compensate: { run: undo },
    });
    const handle = await create({ sagas: [saga] }).start(saga, ORDER);
    expect(await settledAfter(1_100, handle.result())).toMatchObject({
      status: 'compensated',
      cause: { message: 'the schema of the result did not decide within 1000 ms' },
    });
    expect(undo).toHaveBeenCalledOnce();
  });

  it('that never decides on the data of an event fails the step that waits for it', async () => {
    const bus = createBus();
    const saga = order.waitFor('parcel', { event: 'order.shipped', sagaId: () => 's1', result: never });
    const handle = await create({ sagas: [saga], bus }).start(saga, ORDER, { sagaId: 's1' });
    await bus.publish({ eventType: 'order.shipped', aggregateId: 'o1', data: 'p1' });
    expect(await settledAfter(11_000, handle.result())).toMatchObject({
      status: 'compensated',
      cause: { code: 'ERR_TIMEOUT' },
    });
  });

  it.each([[5], [null], [undefined], [{}]])('that gives %j fails its step', async (given) => {
    const saga = order.step('a', { run: () => 1, result: schemaOf(() => given) });
    const handle = await create({ sagas: [saga] }).start(saga, ORDER);
    expect(await settledAfter(1_000, handle.result())).toMatchObject({ status: 'compensated', step: 'a' });
  });
});

describe('an error that throws when it is looked at', () => {
  class HttpError extends Error {
    get response() {
      throw new Error('the body was not read');
    }
  }
  const throwing = new Proxy({}, { getPrototypeOf: fail });
  const { proxy: revoked, revoke } = Proxy.revocable({}, {});
  revoke();

  it.each([
    ['a getter that throws', new HttpError('502'), '502'],
    ['a Proxy that throws', throwing, 'an object'],
    ['a revoked Proxy', revoked, 'an object'],
  ])('fails its step, or compensation, as any other does: %s', async (_name, error, message) => {
    const broken = { run: () => Promise.reject(error), retry: SOON };
    const throwIt = () => {
      throw error;
    };
    const sagas = [
      defineSaga('called', { version: 1 }).step('a', { call: throwIt }),
      defineSaga('published', { version: 1 }).step('a', { publish: throwIt }),
      defineSaga('run', { version: 1 }).step('a', broken),
      defineSaga('undone', { version: 1 })
        .step('a', { run: () => 1, compensate: broken })
        .step('b', { run: fail }),
    ];
    const client = new ServiceClient({ discovery: new StaticServiceDiscovery({}) });
    onTestFinished(() => client.close());
    const orchestrator = create({ sagas, bus: createBus(), client });
    for (const saga of sagas) {
      const handle = await orchestrator.start(saga as typeof order, ORDER);
      const status = saga.name === 'undone' ? 'stuck' : 'compensated';
      expect(await settledAfter(5_000, handle.result())).toMatchObject({
        status,
        step: 'a',
        cause: { message },
      });
    }
  });
});

it('a result that its schema does not allow has the saga compensated', async () => {
  const saga = order.step('a', { run: () => ({ n: 'five' }) as never, result: z.object({ n: z.number() }) });
  const orchestrator = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, ORDER);
  expect(await settledAfter(100, handle.result())).toMatchObject({
    status: 'compensated',
    cause: { name: 'TypeError' },
  });
});

it('options that are not allowed are rejected by name', async () => {
  const saga = order.step('a', { run: () => 1 });
  const orchestrator = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, ORDER);
  await expect(handle.result({ signal: 5 as never })).rejects.toThrow(
    "result() option 'signal' must be an AbortSignal; got 5",
  );
  await expect(handle.result({ sginal: undefined } as never)).rejects.toThrow(
    "result() has no option 'sginal'",
  );
  const list = () => orchestrator.list({ name: 'a\n' }).next();
  await expect(list).rejects.toThrow("list() option 'name' must be letters, digits, _ and - (at most 64)");
});

it('a second start of a saga whose input cannot be read here says so', async () => {
  const store = new InMemorySagaStore();
  const saga = order.step('a', { run: () => 1 });
  await create({ store, sagas: [saga] }).start(saga, ORDER, { sagaId: 's1' });
  const wrongKey = new Error('wrong key');
  const parse = (text: string) => {
    if (text.startsWith('{')) throw wrongKey;
    return JSON.parse(text.slice(1));
  };
  const serialize = { stringify: (value: unknown) => `E${JSON.stringify(value)}`, parse };
  const orchestrator = create({ store, sagas: [saga], serialize });
  await expect(orchestrator.start(saga, ORDER, { sagaId: 's1' })).rejects.toMatchObject({
    code: 'ERR_SAGA_UNREADABLE',
    cause: wrongKey,
  });
});

it.each([
  ['a zero character', 'a\0b'],
  ['half of a surrogate pair', 'a\ud800b'],
])('a text of serialize with %s is rejected, whatever the store', async (_, text) => {
  const stringify = (value: unknown) => (value === 'odd' ? text : JSON.stringify(value));
  const saga = defineSaga<string>('odd', { version: 1 }).waitFor('a', { event: 'a', sagaId: () => 's1' });
  const serialize = { stringify, parse: JSON.parse };
  const orchestrator = create({ sagas: [saga], bus: createBus(), serialize });
  const kept = (name: string) =>
    new TypeError(
      `'serialize' made a text of ${name} with a zero character, or half of a surrogate pair, which not every store keeps`,
    );
  await expect(orchestrator.start(saga, 'odd')).rejects.toThrow(kept('the input'));
  const handle = await orchestrator.start(saga, '😀', { sagaId: 's1' });
  await expect(orchestrator.complete('s1', 'a', 'odd')).rejects.toThrow(kept('the result'));
  expect(await orchestrator.complete('s1', 'a', '😀')).toBe(true);
  expect(await settledAfter(1_000, handle.result())).toEqual({ a: '😀' });
});

it('steps run in the context of the request that has started the saga, without its deadline', async () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const context = { requestId: 'r1', traceparent, deadline: performance.now() + 5 };
  const read = vi.fn();
  const traced = defineSaga('traced', { version: 1 }).step('a', {
    run: () => void read(currentRequestContext()),
  });
  const orchestrator = create({ sagas: [traced] });
  const handle = await runWithRequestContext(context, () => orchestrator.start(traced, null));
  await handle.result();
  expect(read).toHaveBeenCalledWith({
    requestId: 'r1',
    traceparent,
    tracestate: undefined,
    deadline: Infinity,
  });
});

describe('several processes', () => {
  it('hand over: what a closed one has not begun goes on elsewhere at once', async () => {
    const store = new InMemorySagaStore();
    const { promise, resolve: finish } = deferred<void>();
    const started: string[] = [];
    const saga = order.step('a', { run: () => promise }).step('b', { run: () => void started.push('b') });
    const first = create({ store, sagas: [saga], closeTimeout: 5_000 });
    const handle = await first.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(10);
    const waiting = handle.result().catch((error) => error.code);
    const closing = first.close();
    await vi.advanceTimersByTimeAsync(100);
    finish();
    await closing;
    expect(started).toEqual([]);
    expect(await waiting).toBe('ERR_CLOSED');
    const second = create({ store, sagas: [saga] });
    const taken = (await second.get('s1'))!;
    expect(await settledAfter(500, taken.result())).toEqual({ a: undefined, b: undefined });
    expect(started).toEqual(['b']);
    await expect(first.start(saga, ORDER)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('hand over also a saga that is just being started when its process closes', async () => {
    const store = new InMemorySagaStore();
    const { promise: written, resolve: write } = deferred<void>();
    const createAtOnce = store.create.bind(store);
    vi.spyOn(store, 'create').mockImplementation((saga) => written.then(() => createAtOnce(saga)));
    const saga = order.step('a', { run: () => 'A' });
    const first = create({ store, sagas: [saga] });
    const starting = first.start(saga, ORDER, { sagaId: 's1' });
    const closed = vi.fn();
    const closing = first.close().then(closed);
    await vi.advanceTimersByTimeAsync(10);
    expect(closed).not.toHaveBeenCalled();
    write();
    await settledAfter(10, closing);
    await starting;
    const step = vi.fn();
    first.on('step', step);
    const second = create({ store, sagas: [saga] });
    expect(await settledAfter(100, (await second.get('s1'))!.result())).toEqual({ a: 'A' });
    expect(step).not.toHaveBeenCalled();
  });

  it('take over at once what a closed one had to abort, as another attempt', async () => {
    const store = new InMemorySagaStore();
    const attempts: [number, boolean][] = [];
    const saga = order.step('a', {
      run: (_step, { attempt, signal }) => {
        attempts.push([attempt, signal.aborted]);
        if (attempt === 2) return 'done';
        return new Promise<string>((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(new Error('aborted')));
        });
      },
    });
    const first = create({ store, sagas: [saga], closeTimeout: 100 });
    await first.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(10);
    const closing = first.close();
    await vi.advanceTimersByTimeAsync(100);
    await closing;
    const second = create({ store, sagas: [saga] });
    const handle = (await second.get('s1'))!;
    expect(await settledAfter(500, handle.result())).toEqual({ a: 'done' });
    expect(attempts).toEqual([
      [1, false],
      [2, false],
    ]);
  });

  it('are closed when what they had to abort is given back, also while the store is slow', async () => {
    const store = new InMemorySagaStore();
    const saga = order.step('a', { run: () => new Promise(() => {}) });
    const first = create({ store, sagas: [saga], closeTimeout: 100 });
    await first.start(saga, ORDER, { sagaId: 's1' });
    const { promise: ready, resolve: write } = deferred<void>();
    const writeAtOnce = store.write.bind(store);
    vi.spyOn(store, 'write').mockImplementation((change) => ready.then(() => writeAtOnce(change)));
    const closed = vi.fn();
    const closing = first.close().then(closed);
    await vi.advanceTimersByTimeAsync(200);
    expect(closed).not.toHaveBeenCalled();
    write();
    await settledAfter(10, closing);
    expect(await store.claim([{ name: 'order', version: 1 }], 1, 10_000)).toHaveLength(1);
  });

  it('are closed in time while the store does not respond, and run nothing of what it gives later', async () => {
    const store = new InMemorySagaStore();
    const { promise: back, resolve: respond } = deferred<void>();
    const ran: string[] = [];
    const saga = order.step('a', {
      run: ({ sagaId }, { signal }) => {
        ran.push(sagaId);
        return new Promise((_resolve, reject) => signal.addEventListener('abort', reject));
      },
    });
    const first = create({ store, sagas: [saga], closeTimeout: 1_000 });
    await first.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(10);
    await store.create({ ...NEW, sagaId: 's2', entries: [] });
    for (const name of ['create', 'write', 'claim', 'renew', 'removeEnded'] as const) {
      const method = store[name].bind(store) as (...args: unknown[]) => Promise<unknown>;
      vi.spyOn(store, name).mockImplementation(((...args: unknown[]) =>
        back.then(() => method(...args))) as never);
    }
    const starting = first.start(saga, ORDER, { sagaId: 's3' });
    // It looks for sagas that are due, too.
    await vi.advanceTimersByTimeAsync(1_000);
    const lost = vi.fn();
    first.on('lose', ({ sagaId }) => lost(sagaId));
    const closed = vi.fn();
    const closing = first.close().then(closed);
    await vi.advanceTimersByTimeAsync(5_900);
    expect(closed).not.toHaveBeenCalled();
    await settledAfter(200, closing);
    expect(closed).toHaveBeenCalledOnce();
    expect(lost).toHaveBeenCalledWith('s1');
    expect(vi.getTimerCount()).toBe(0);
    respond();
    await starting;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(ran).toEqual(['s1']);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('run only the versions that they have; a saga of another is listed as unclaimed', async () => {
    const store = new InMemorySagaStore();
    const one = order.step('a', { run: () => 1 });
    const two = defineSaga<Order>('order', { version: 2 }).step('a', { run: () => 2 });
    await store.create({ ...NEW, sagaId: 's1', entries: [] });
    const orchestrator = create({ store, sagas: [two] });
    await vi.advanceTimersByTimeAsync(299_000);
    const listed = async () => {
      const ids: string[] = [];
      for await (const { sagaId } of orchestrator.list({ unclaimed: true })) ids.push(sagaId);
      return ids;
    };
    expect(await listed()).toEqual([]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await listed()).toEqual(['s1']);
    create({ store, sagas: [one, two] });
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await listed()).toEqual([]);
    expect(await (await orchestrator.get('s1'))!.status()).toBe('completed');
  });

  it('run a saga once that is started while another looks for what is due', async () => {
    const store = new InMemorySagaStore();
    const runs = new Map<string, number>();
    const saga = order.step('a', {
      run: async ({ sagaId }) => {
        runs.set(sagaId, (runs.get(sagaId) ?? 0) + 1);
        await new Promise((resolve) => setTimeout(resolve, 20));
      },
    });
    const first = create({ store, sagas: [saga] });
    const second = create({ store, sagas: [saga] });
    const handles = [];
    for (let n = 0; n < 200; n++) {
      handles.push(await (n % 2 === 0 ? first : second).start(saga, ORDER, { sagaId: `s${n}` }));
      await vi.advanceTimersByTimeAsync(1);
    }
    await settledAfter(5_000, Promise.all(handles.map((handle) => handle.result())));
    expect([...runs.values()]).toEqual(Array.from({ length: 200 }, () => 1));
  });

  it('operate on the sagas of others: a result is waited for anew once a stuck saga goes on', async () => {
    const store = new InMemorySagaStore();
    let broken = true;
    const saga = order
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { run: () => (broken ? fail() : 2), retry: SOON });
    const runner = create({ store, sagas: [saga] });
    await runner.start(saga, ORDER, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(500);
    const operator = create({ store });
    broken = false;
    expect(await operator.retry('s1')).toBe(true);
    const handle = (await operator.get('s1'))!;
    expect(await settledAfter(2_000, handle.result())).toEqual({ a: 1, b: 2 });
  });

  it('run no more sagas at once than they may', async () => {
    let running = 0;
    let most = 0;
    const saga = order.step('a', {
      run: async () => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 100));
        running--;
      },
    });
    const orchestrator = create({ sagas: [saga], concurrency: 5 });
    const handles = await Promise.all(Array.from({ length: 23 }, () => orchestrator.start(saga, ORDER)));
    await settledAfter(5_000, Promise.all(handles.map((handle) => handle.result())));
    expect(most).toBe(5);
  });
});

it('a store that is away for a while costs no attempt, and a write whose response was lost counts once', async () => {
  const store = new InMemorySagaStore();
  const write = store.write.bind(store);
  let failures = 6;
  vi.spyOn(store, 'write').mockImplementation(async (change) => {
    if (failures === 0) return await write(change);
    // It may have written before the connection was lost.
    if (--failures % 2 === 0) await write(change);
    throw new Error('the connection was lost');
  });
  const attempts: number[] = [];
  const saga = order
    .step('a', { run: (_step, { attempt }) => attempts.push(attempt) })
    .step('b', { run: (_step, { attempt }) => attempts.push(attempt) });
  const orchestrator = create({ store, sagas: [saga] });
  const errors: unknown[] = [];
  orchestrator.on('error', ({ error }) => errors.push(error));
  const handle = await orchestrator.start(saga, ORDER, { sagaId: 's1' });
  expect(await settledAfter(5_000, handle.result())).toEqual({ a: 1, b: 2 });
  expect(attempts).toEqual([1, 1]);
  expect(errors).toHaveLength(6);
  const entries = (await store.get('s1'))!.entries.map(({ entry }) => entry.type);
  expect(entries).toEqual(['invoke', 'complete', 'invoke', 'complete', 'end']);
});

it('a process that stood still for longer than its lease begins nothing that it had intended', async () => {
  const store = new InMemorySagaStore();
  const write = store.write.bind(store);
  const now = performance.now.bind(performance);
  vi.spyOn(store, 'write').mockImplementationOnce(async (change) => {
    const result = await write(change);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 11_000);
    return result;
  });
  const attempts: number[] = [];
  const saga = order
    .step('a', { run: () => 1 })
    .step('b', { run: (_step, { attempt }) => attempts.push(attempt) });
  const orchestrator = create({ store, sagas: [saga] });
  const lost = vi.fn();
  orchestrator.on('lose', lost);
  const handle = await orchestrator.start(saga, ORDER);
  expect(await settledAfter(15_000, handle.result())).toEqual({ a: 1, b: 1 });
  expect(lost).toHaveBeenCalledOnce();
  expect(attempts).toEqual([2]);
});

describe('a process that stands still for longer than its lease', () => {
  /** Moves the clock on by more than a lease, as after a stall: no timer has run by then. */
  function stall(): void {
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 11_000);
  }

  it.each([
    ['begins no other step before the store has confirmed that it has the saga', false],
    ['begins nothing more once another process has claimed the saga', true],
  ])('%s', async (_title, isClaimed) => {
    const store = new InMemorySagaStore();
    const log: string[] = [];
    const saga = order.parallel({
      a: {
        run: () => {
          log.push('a');
          stall();
          if (isClaimed) void store.claim([{ name: 'order', version: 1 }], 1, 10_000);
        },
      },
      b: { run: () => void log.push('b') },
    });
    const orchestrator = create({ store, sagas: [saga] });
    orchestrator.on('step', ({ step }) => log.push(`${step} is written`));
    orchestrator.on('lose', () => log.push('lost'));
    await orchestrator.start(saga, ORDER);
    await vi.advanceTimersByTimeAsync(100);
    expect(log).toEqual(isClaimed ? ['a', 'lost'] : ['a', 'a is written', 'b', 'b is written']);
  });

  it('sends nothing that it has described meanwhile', async () => {
    const store = new InMemorySagaStore();
    const bus = createBus();
    const publish = vi.spyOn(bus, 'publish');
    const isMail = ([event]: [unknown, ...unknown[]]) => (event as NewEvent).eventType === 'mail.send';
    let described = 0;
    const saga = order.step('mail', {
      publish: ({ input }) => {
        if (++described === 1) stall();
        return { eventType: 'mail.send', aggregateId: input.id, data: {} };
      },
    });
    const orchestrator = create({ store, sagas: [saga], bus });
    const handle = await orchestrator.start(saga, ORDER);
    expect(await settledAfter(15_000, handle.result())).toEqual({ mail: undefined });
    expect([described, publish.mock.calls.filter(isMail).length]).toEqual([2, 1]);
  });
});

it('a saga that waits for long is not held, and goes on when its time has come', async () => {
  const store = new InMemorySagaStore();
  const saga = order.step('a', {
    run: (_step, { attempt }) => (attempt === 1 ? fail() : attempt),
    retry: { maxAttempts: 2, backoff: constantBackoff(60_000) },
  });
  const orchestrator = create({ store, sagas: [saga] });
  const renew = vi.spyOn(store, 'renew');
  const handle = await orchestrator.start(saga, ORDER);
  await vi.advanceTimersByTimeAsync(50_000);
  expect(renew).not.toHaveBeenCalled();
  expect(await settledAfter(12_000, handle.result())).toEqual({ a: 2 });
});

it('however many wait for results, five queries a second ask for them', async () => {
  const store = new InMemorySagaStore();
  const saga = order.step('a', { run: () => new Promise((resolve) => setTimeout(resolve, 3_000)) });
  const runner = create({ store, sagas: [saga], concurrency: 5_000 });
  const watcher = create({ store });
  await Promise.all(Array.from({ length: 5_000 }, (_, n) => runner.start(saga, ORDER, { sagaId: `s${n}` })));
  const summaries = vi.spyOn(store, 'summaries');
  const handles = await Promise.all(Array.from({ length: 5_000 }, (_, n) => watcher.get(`s${n}`)));
  summaries.mockClear();
  const results = Promise.all(handles.map((handle) => handle!.result()));
  await vi.advanceTimersByTimeAsync(2_000);
  expect(summaries.mock.calls.length).toBeLessThanOrEqual(11);
  expect(await settledAfter(4_000, results)).toHaveLength(5_000);
  expect(summaries.mock.calls.length).toBeLessThanOrEqual(31);
});

it('a caller that waits for a result may give up; the saga goes on', async () => {
  const saga = order.step('a', { run: () => new Promise((resolve) => setTimeout(resolve, 100, 'A')) });
  const orchestrator = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, ORDER);
  const controller = new AbortController();
  const result = handle.result({ signal: controller.signal });
  controller.abort(new Error('enough'));
  await expect(result).rejects.toThrow('enough');
  expect(await settledAfter(200, handle.result())).toEqual({ a: 'A' });
});

it('what a saga cannot keep, or a step that is missing, is rejected at once', async () => {
  const saga = order.step('a', { run: () => 1 });
  const orchestrator = create({ sagas: [saga] });
  await expect(orchestrator.start(saga, new Date() as never)).rejects.toThrow(TypeError);
  await expect(orchestrator.start(saga, 'x'.repeat(300_000) as never)).rejects.toThrow(RangeError);
  const other = order.step('b', { run: () => 1 });
  await expect(orchestrator.start(other, ORDER)).rejects.toThrow("is not among the 'sagas'");
  for (const none of [undefined, null, 'order', { name: 'order' }, Promise.resolve(saga)]) {
    const starting = orchestrator.start(none as never, ORDER);
    await expect(starting).rejects.toThrow(TypeError);
    await expect(starting).rejects.toThrow(
      /the saga of start\(\) .*(what defineSaga\(\) gives; got|promise)/i,
    );
  }
  expect(() => create({ sagas: [order] })).toThrow("the saga 'order' needs a step");
  expect(() => create({ sagas: [saga, other] })).toThrow("has two of 'order, version 1'");
  const calling = order.step('b', { call: () => ({ service: 's', path: '/' }) });
  expect(() => create({ sagas: [calling] })).toThrow("needs the option 'client'");
  const waiting = order.waitFor('b', { event: 'a.b', sagaId: () => undefined });
  expect(() => create({ sagas: [waiting] })).toThrow("needs the option 'bus'");
});
