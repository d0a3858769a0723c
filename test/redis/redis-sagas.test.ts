import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { constantBackoff, InMemoryEventBus } from '../../src/index.ts';
import { defineSaga } from '../../src/saga/define-saga.ts';
import type { SagaOrchestratorOptions } from '../../src/saga/orchestrator-options.ts';
import { SagaOrchestrator } from '../../src/saga/saga-orchestrator.ts';
import { redisUrl, startRedis, startRelay, uniquePrefix } from '../support/redis.ts';
import { range } from './event-buses.ts';
import { openStore } from './saga-storage.ts';

interface Order {
  readonly n: number;
}

describe('sagas on Redis', () => {
  const start = (options: Partial<SagaOrchestratorOptions>) => {
    const orchestrator = new SagaOrchestrator({ store: openStore(), sagas: [], closeTimeout: 0, ...options });
    onTestFinished(() => orchestrator.close());
    return orchestrator;
  };
  const createOrders = () => {
    const charged = new Map<number, number>();
    const saga = defineSaga<Order>('order', { version: 1 })
      .step('charge', {
        run: ({ input: { n } }) => void charged.set(n, (charged.get(n) ?? 0) + 1),
        compensate: { run: ({ input: { n } }) => void charged.set(n, charged.get(n)! - 1) },
      })
      .step('pack', {
        run: ({ input: { n } }) => {
          if (n % 5 === 0) throw new Error('out of stock');
          return n;
        },
        retry: { maxAttempts: 2, backoff: constantBackoff(1) },
      });
    return { saga, charged };
  };

  it('end completed or compensated, and tell so by events, with two orchestrators', async () => {
    const keyPrefix = uniquePrefix();
    const { saga, charged } = createOrders();
    const bus = new InMemoryEventBus({ source: 'test' });
    onTestFinished(() => bus.close());
    const told = new Map<string, string[]>();
    await bus.subscribe(
      'saga.*',
      ({ eventType, aggregateId }) => {
        told.set(aggregateId, [...(told.get(aggregateId) ?? []), eventType]);
      },
      { group: 'g' },
    );
    const orchestrators = range(2).map(() => {
      return start({ store: openStore({ keyPrefix }), sagas: [saga], bus, concurrency: 10 });
    });
    const handles = await Promise.all(
      range(60).map((n) => orchestrators[n % 2]!.start(saga, { n }, { sagaId: `o${n}` })),
    );
    const results = await Promise.allSettled(handles.map((handle) => handle.result()));
    for (const n of range(60)) {
      const fails = n % 5 === 0;
      expect(results[n]).toMatchObject({ status: fails ? 'rejected' : 'fulfilled' });
      expect(charged.get(n)).toBe(fails ? 0 : 1);
    }
    await vi.waitUntil(() => [...told.values()].flat().length === 60 * 2 + 12);
    expect(told.get('o1')).toEqual(['saga.started', 'saga.completed']);
    expect(told.get('o5')).toEqual(['saga.started', 'saga.compensating', 'saga.compensated']);
  });

  it('run no step twice although the response to each of their writes is lost once', async () => {
    const store = openStore();
    const write = store.write.bind(store);
    const written = new Set<string>();
    vi.spyOn(store, 'write').mockImplementation(async (change) => {
      const result = await write(change);
      const key = `${change.lease.sagaId} ${change.length}`;
      if (written.has(key)) return result;
      written.add(key);
      throw new Error('the response is lost');
    });
    const { saga, charged } = createOrders();
    const orchestrator = start({ store, sagas: [saga] });
    const handles = await Promise.all(range(10).map((n) => orchestrator.start(saga, { n })));
    await Promise.allSettled(handles.map((handle) => handle.result()));
    for (const n of range(10)) expect(charged.get(n)).toBe(n % 5 === 0 ? 0 : 1);
  });

  it('go on where they were when the connection was cut', async () => {
    const { port } = await startRedis();
    const relay = await startRelay(port);
    const log: string[] = [];
    const saga = defineSaga<Order>('order', { version: 1 })
      .step('first', {
        run: async () => {
          log.push('first');
          await relay.cut();
          setTimeout(() => void relay.open(), 100);
        },
      })
      .step('second', { run: () => void log.push('second') });
    const store = openStore({ redis: relay.url, commandTimeout: 500 });
    const handle = await start({ store, sagas: [saga] }).start(saga, { n: 1 });
    await handle.result();
    expect(log).toEqual(['first', 'second']);
  });

  it('go on by the store of an orchestrator that was closed, which it shares with another one', async () => {
    const store = openStore();
    const { saga } = createOrders();
    const orchestrators = range(2).map(() => start({ store, sagas: [saga] }));
    await orchestrators[0]!.close();
    const handle = await orchestrators[1]!.start(saga, { n: 1 }, { sagaId: 's1' });
    await expect(handle.result()).resolves.toMatchObject({ pack: 1 });
  });

  it('are taken over from a process that has died', async () => {
    const keyPrefix = uniquePrefix();
    const log: string[] = [];
    const define = (name: string, hangs: boolean) =>
      defineSaga<Order>('order', { version: 1 })
        .step('first', { run: () => void log.push(`first by ${name}`) })
        .step('second', {
          run: async (_, { signal }) => {
            log.push(`second by ${name}`);
            if (!hangs) return;
            await new Promise((_resolve, reject) => {
              signal.addEventListener('abort', () => reject(signal.reason));
            });
          },
        });
    const store = openStore({ redis: redisUrl(), keyPrefix });
    const saga = define('one', true);
    const handle = await start({ store, sagas: [saga], lease: 300 }).start(saga, { n: 1 }, { sagaId: 's1' });
    await vi.waitUntil(() => log.length === 2);
    // Its connection is gone, as that of a process that is stopped.
    await store.close();
    const other = start({ store: openStore({ keyPrefix }), sagas: [define('two', false)], lease: 300 });
    await (await other.get('s1'))!.result();
    expect(log).toEqual(['first by one', 'second by one', 'second by two']);
    await expect(handle.status()).rejects.toThrow('closed');
  });
});
