import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  constantBackoff,
  defineSaga,
  InMemoryEventBus,
  InMemorySagaStore,
  type SagaEntry,
  SagaOrchestrator,
  type SagaOrchestratorOptions,
  ServiceClient,
  ServiceResponseError,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { json, startServer } from '../support/server.ts';

const ONCE_MORE = { maxAttempts: 2, backoff: constantBackoff(10) };

function create(options: Partial<SagaOrchestratorOptions>) {
  const store = new InMemorySagaStore();
  const orchestrator = new SagaOrchestrator({ store, sagas: [], closeTimeout: 0, ...options });
  onTestFinished(() => orchestrator.close());
  return { orchestrator, store };
}

/** A service that responds with what is next, the last time and again; and a client of it. */
async function serve(statuses: number[], headers: Record<string, string> = {}) {
  const service = await startServer((_request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    json(response, {}, statuses.length > 1 ? statuses.shift() : statuses[0]);
  });
  const discovery = new StaticServiceDiscovery({ payments: [service.origin] });
  const client = new ServiceClient({ discovery });
  onTestFinished(() => client.close());
  return { service, client };
}

const post = (path: string) => ({
  call: () => ({ service: 'payments', method: 'POST', path }),
});

const entriesOf = async (store: InMemorySagaStore): Promise<SagaEntry[]> =>
  (await store.get('s1'))!.entries.map(({ entry }) => entry);

describe('a service that asks for time', () => {
  const busy = (header: string) => {
    const details = { serviceName: 'payments', instanceId: 'i1', status: 503, body: undefined };
    throw new ServiceResponseError('busy', { ...details, headers: { 'retry-after': header } });
  };

  beforeEach(() => {
    vi.useFakeTimers();
  });

  it('gets no attempt of a step, nor of its compensation, before that time is over', async () => {
    const attempts: string[] = [];
    const begin = performance.now();
    const note = (name: string) => attempts.push(`${name} at ${Math.round(performance.now() - begin)}`);
    const saga = defineSaga('order', { version: 1 }).step('a', {
      run: () => {
        note('a');
        busy('30');
      },
      retry: ONCE_MORE,
      compensate: {
        run: (_step, { attempt }) => {
          note('undo');
          if (attempt === 1) busy('20');
        },
        retry: ONCE_MORE,
      },
    });
    const { orchestrator } = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(await handle.status()).toBe('compensated');
    const times = attempts.map((text) => Math.floor(Number(text.split(' at ')[1]) / 10_000));
    expect(times).toEqual([0, 3, 3, 5]);
  });

  it('cannot keep a saga beyond its timeout', async () => {
    const saga = defineSaga('order', { version: 1, timeout: 5_000 }).step('a', {
      run: () => busy('3600'),
      retry: ONCE_MORE,
    });
    const { orchestrator } = create({ sagas: [saga] });
    const handle = await orchestrator.start(saga, null);
    await vi.advanceTimersByTimeAsync(6_500);
    expect(await handle.status()).toBe('compensated');
  });

  it('is asked again after an hour at most', async () => {
    const run = vi.fn(() => busy('86400'));
    const saga = defineSaga('order', { version: 1 }).step('a', { run, retry: ONCE_MORE });
    const { orchestrator } = create({ sagas: [saga] });
    await orchestrator.start(saga, null);
    await vi.advanceTimersByTimeAsync(3_590_000);
    expect(run).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(run).toHaveBeenCalledTimes(2);
  });
});

it.each([429, 503])('a %i that says when to come again sets when the next attempt is due', async (status) => {
  const { client } = await serve([status], { 'retry-after': '7' });
  const saga = defineSaga('order', { version: 1 }).step('a', { ...post('/charges'), retry: ONCE_MORE });
  const { orchestrator, store } = create({ sagas: [saga], client });
  const failed = new Promise((resolve) => orchestrator.once('fail', resolve));
  await orchestrator.start(saga, null, { sagaId: 's1' });
  await failed;
  expect((await entriesOf(store)).at(-1)).toEqual({ type: 'invoke', step: 'a', attempt: 2, delay: 7_000 });
});

it('an isolated breaker, which does not know until when, lets a step wait no longer than its backoff', async () => {
  const { client } = await serve([200]);
  client.policies('payments').circuitBreaker!.isolate();
  const saga = defineSaga('order', { version: 1 }).step('a', { ...post('/charges'), retry: ONCE_MORE });
  const { orchestrator } = create({ sagas: [saga], client });
  const handle = await orchestrator.start(saga, null);
  expect(await rejectionOf(handle.result())).toMatchObject({ cause: { code: 'ERR_CIRCUIT_OPEN' } });
});

describe('an open circuit', () => {
  /** Gives what to isolate: nothing is sent while it is. */
  const breakerOf = (client: ServiceClient) => client.policies('payments').circuitBreaker!;
  /** Waits until so many attempts have failed. */
  const failures = async (orchestrator: SagaOrchestrator, count: number) => {
    for (let n = 0; n < count; n++) await new Promise((resolve) => orchestrator.once('fail', resolve));
  };

  it('postpones a compensation, for as long as it lasts, and leaves no saga stuck', async () => {
    const { client, service } = await serve([200]);
    const saga = defineSaga('order', { version: 1 })
      .step('a', { run: () => 1, compensate: { ...post('/refunds'), retry: ONCE_MORE } })
      .step('b', {
        run: () => {
          breakerOf(client).isolate();
          throw new Error('no stock');
        },
        retry: { maxAttempts: 1 },
      });
    const { orchestrator } = create({ sagas: [saga], client });
    const postponed = failures(orchestrator, 30);
    const handle = await orchestrator.start(saga, null);
    await postponed;
    expect(await handle.status()).toBe('compensating');
    breakerOf(client).reset();
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'compensated', step: 'b' });
    expect(service.requests).toHaveLength(1);
  });

  it('postpones a step after the pivot, whose attempts are all left afterwards', async () => {
    const { client, service } = await serve([503, 200]);
    breakerOf(client).isolate();
    const saga = defineSaga('order', { version: 1 })
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { ...post('/charges'), retry: ONCE_MORE });
    const { orchestrator } = create({ sagas: [saga], client });
    const postponed = failures(orchestrator, 30);
    const handle = await orchestrator.start(saga, null);
    await postponed;
    breakerOf(client).reset();
    expect(await handle.result()).toEqual({ a: 1, b: {} });
    expect(service.requests).toHaveLength(2);
  });

  it('postpones a step after the pivot until a definition of its version gives it up, and an operator skips it', async () => {
    const { client } = await serve([200]);
    breakerOf(client).isolate();
    const defineWith = (call: () => ReturnType<ReturnType<typeof post>['call']>) =>
      defineSaga('order', { version: 1 })
        .step('a', { run: () => 1 })
        .pivot()
        .step('b', { call, retry: ONCE_MORE });
    const saga = defineWith(post('/charges').call);
    const former = create({ sagas: [saga], client });
    const postponed = failures(former.orchestrator, 3);
    await former.orchestrator.start(saga, null, { sagaId: 's1' });
    await postponed;
    expect(await former.orchestrator.skip('s1', 'b', { reason: 'no longer owed' })).toBe(false);
    expect(await former.orchestrator.cancel('s1')).toBe(false);
    await former.orchestrator.close();
    const given = defineWith(() => {
      throw new Error('given up');
    });
    const { orchestrator } = create({ store: former.store, sagas: [given], client });
    await new Promise((resolve) => orchestrator.once('stuck', resolve));
    expect(await orchestrator.skip('s1', 'b', { reason: 'no longer owed' })).toBe(true);
    expect(await (await orchestrator.get('s1'))!.result()).toEqual({ a: 1 });
  });
});

it('a service without an instance postpones a compensation by waits that grow up to a bound', async () => {
  vi.useFakeTimers();
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ payments: [] }) });
  onTestFinished(() => client.close());
  const saga = defineSaga('order', { version: 1 })
    .step('a', {
      run: () => 1,
      compensate: { ...post('/refunds'), retry: { maxAttempts: 2, backoff: (attempt) => 2 ** attempt } },
    })
    .step('b', { run: () => Promise.reject(new Error('no stock')), retry: { maxAttempts: 1 } });
  const { orchestrator, store } = create({ sagas: [saga], client });
  const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await handle.status()).toBe('compensating');
  const delays = (await entriesOf(store)).flatMap((entry) =>
    entry.type === 'compensate' ? [entry.delay] : [],
  );
  expect(delays.slice(0, 5)).toEqual([0, 2, 4, 8, 16]);
  expect(delays.length).toBeGreaterThan(30);
  expect(Math.max(...delays)).toBe(2 ** 10);
});

it('a compensation that is rejected is attempted ten times by default, over two minutes at least', async () => {
  vi.useFakeTimers();
  const saga = defineSaga('order', { version: 1 })
    .step('a', { run: () => 1, compensate: { run: () => Promise.reject(new Error('away')) } })
    .step('b', { run: () => Promise.reject(new Error('no stock')), retry: { maxAttempts: 1 } });
  const { orchestrator, store } = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
  await vi.advanceTimersByTimeAsync(120_000);
  expect(await handle.status()).toBe('compensating');
  await vi.advanceTimersByTimeAsync(150_000);
  expect(await handle.status()).toBe('stuck');
  expect((await entriesOf(store)).filter(({ type }) => type === 'compensate')).toHaveLength(10);
});

describe('a retry for which the budget of the service has nothing left', () => {
  const spend = (client: ServiceClient) => {
    const budget = client.policies('payments').retryBudget!;
    while (budget.withdraw());
  };

  it('is postponed, and does not count as an attempt', async () => {
    const { client, service } = await serve([503, 200]);
    spend(client);
    const saga = defineSaga('order', { version: 1 }).step('a', { ...post('/charges'), retry: ONCE_MORE });
    const { orchestrator, store } = create({ sagas: [saga], client });
    const budget = client.policies('payments').retryBudget!;
    orchestrator.on('fail', ({ error }) => {
      // The traffic of others earns.
      if (error.code === 'ERR_RETRY_BUDGET_EXHAUSTED') for (let n = 0; n < 10; n++) budget.deposit();
    });
    const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
    expect(await handle.result()).toEqual({ a: {} });
    expect(service.requests).toHaveLength(2);
    expect((await entriesOf(store)).filter(({ type }) => type === 'fail')).toHaveLength(2);
  });

  it('is made in the end, although nothing is earned, and so the saga ends', async () => {
    const { client, service } = await serve([503]);
    spend(client);
    const saga = defineSaga('order', { version: 1 })
      .step('a', { run: () => 1 })
      .pivot()
      .step('b', { ...post('/charges'), retry: ONCE_MORE });
    const { orchestrator, store } = create({ sagas: [saga], client });
    const handle = await orchestrator.start(saga, null, { sagaId: 's1' });
    expect(await rejectionOf(handle.result())).toMatchObject({
      status: 'stuck',
      cause: { code: 'ERR_SERVICE_RESPONSE' },
    });
    expect(service.requests).toHaveLength(2);
    expect((await entriesOf(store)).filter(({ type }) => type === 'fail')).toHaveLength(7);
  });

  it('ends with the timeout of its saga, if that comes first', async () => {
    const { client, service } = await serve([503]);
    spend(client);
    const saga = defineSaga('order', { version: 1, timeout: 300 }).step('a', {
      ...post('/charges'),
      retry: { maxAttempts: 2, backoff: (attempt) => (attempt === 1 ? 0 : 60_000) },
    });
    const { orchestrator } = create({ sagas: [saga], client });
    const codes: unknown[] = [];
    orchestrator.on('fail', ({ error }) => codes.push(error.code));
    const handle = await orchestrator.start(saga, null);
    expect(await rejectionOf(handle.result())).toMatchObject({
      status: 'compensated',
      cause: { code: 'ERR_TIMEOUT' },
    });
    expect(codes).toEqual(['ERR_SERVICE_RESPONSE', 'ERR_RETRY_BUDGET_EXHAUSTED']);
    expect(service.requests).toHaveLength(1);
  });
});

it.each([
  ['is async', () => Promise.reject(new Error('no'))],
  ['gives no number', () => Number.NaN],
  [
    'throws',
    () => {
      throw new Error('no');
    },
  ],
])('a backoff that %s counts as one second, with a warning', async (_name, backoff) => {
  vi.useFakeTimers();
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const run = vi.fn(() => Promise.reject(new Error('away')));
  const retry = { maxAttempts: 3, backoff: backoff as () => number };
  const saga = defineSaga('order', { version: 1 }).step('a', { run, retry });
  const { orchestrator } = create({ sagas: [saga] });
  const handle = await orchestrator.start(saga, null);
  await vi.advanceTimersByTimeAsync(1_500);
  expect(run).toHaveBeenCalledTimes(2);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(await handle.status()).toBe('compensated');
  expect(warn).toHaveBeenCalled();
});

it('a compensation that cannot even be described is attempted again: the mended program may be here by then', async () => {
  vi.useFakeTimers();
  let broken = true;
  const describing = vi.fn(() => {
    if (broken) throw new TypeError("Cannot read properties of undefined (reading 'id')");
    return { eventType: 'charge.refunded', aggregateId: 'o1', data: {} };
  });
  const saga = defineSaga('order', { version: 1 })
    .step('charge', { run: () => 1, compensate: { publish: describing } })
    .step('pack', {
      run: () => {
        throw new Error('no stock');
      },
      retry: { maxAttempts: 1 },
    });
  const bus = new InMemoryEventBus({ source: 'test' });
  onTestFinished(() => bus.close());
  const { orchestrator } = create({ sagas: [saga], bus });
  const failures: unknown[] = [];
  orchestrator.on('fail', ({ step, outcome }) => failures.push([step, outcome]));
  const handle = await orchestrator.start(saga, null);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(describing.mock.calls.length).toBeGreaterThan(1);
  expect(failures[1]).toEqual(['charge', 'not-happened']);
  broken = false;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await handle.status()).toBe('compensated');
});
