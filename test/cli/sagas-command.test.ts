import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { constantBackoff, defineSaga, SagaOrchestrator, type SagaStore } from '../../src/index.ts';
import { fromPg, PostgresSagaStore } from '../../src/postgres/index.ts';
import { RedisSagaStore } from '../../src/redis/index.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';
import { finish } from './helpers.ts';

const SOON = { timeout: 8_000, interval: 20 };
const ONCE = { maxAttempts: 1 };

/** A store of this test's own, and how to tell a command line where it is. */
async function createStore(kind: 'Redis' | 'PostgreSQL'): Promise<{ store: SagaStore; where: string[] }> {
  if (kind === 'PostgreSQL') {
    const { url, pool } = await uniqueDatabase();
    return { store: new PostgresSagaStore({ database: fromPg(pool) }), where: ['--postgres', url] };
  }
  const keyPrefix = uniquePrefix();
  const store = new RedisSagaStore({ redis: redisUrl(), keyPrefix });
  onTestFinished(() => store.close());
  return { store, where: ['--redis', redisUrl(), '--key-prefix', keyPrefix] };
}

/** Sagas that reserve, and then charge: what they are told about lets them fail. */
async function createSagas(kind: 'Redis' | 'PostgreSQL' = 'Redis') {
  const { store, where } = await createStore(kind);
  const fail = new Set<string>();
  const act = (step: string) => {
    if (fail.has(step)) throw Object.assign(new Error(`no ${step}`), { code: 'E_NO' });
    return { done: step };
  };
  const saga = defineSaga<{ total: number }>('order', { version: 1 })
    .step('reserve', { run: () => act('reserve'), compensate: { run: () => act('release'), retry: ONCE } })
    .step('charge', { run: () => act('charge'), retry: { maxAttempts: 2, backoff: constantBackoff(10) } })
    .pivot()
    .step('mail', { run: () => act('mail'), retry: ONCE });
  const orchestrator = new SagaOrchestrator({ store, sagas: [saga] });
  onTestFinished(() => orchestrator.close());
  const start = async (sagaId: string) => {
    const handle = await orchestrator.start(saga, { total: 10 }, { sagaId });
    await handle.result().catch(() => {});
    return handle;
  };
  return { store, where, fail, start };
}

function words(line: string | undefined): string[] {
  return line!.split(/ {2,}/);
}

const isStick = ({ entry }: { entry: { type: string } }) => entry.type === 'stick';

const TIME = expect.stringMatching(/^2\d{3}-\d\d-\d\dT/);

describe.each(['Redis', 'PostgreSQL'] as const)('holdfast sagas in %s', (kind) => {
  it(`holdfast sagas list shows the sagas in ${kind} with what they failed at, or only some`, async () => {
    const { where, fail, start } = await createSagas(kind);
    await start('o1');
    fail.add('charge');
    await start('o2');

    const { out, err, exitCode } = await finish(['sagas', 'list', ...where]);

    const [head, ...rows] = out.split('\n').slice(0, -1).map(words);
    expect(head).toEqual(['CREATED', 'UPDATED', 'SAGA', 'NAME', 'VERSION', 'STATUS', 'STEP', 'REASON']);
    const reason = 'Error: no charge (E_NO)';
    expect(rows).toEqual([
      [TIME, TIME, 'o1', 'order', '1', 'completed', '-', '-'],
      [TIME, TIME, 'o2', 'order', '1', 'compensated', 'charge', reason],
    ]);
    expect({ err, exitCode }).toEqual({ err: '', exitCode: 0 });

    const some = await finish(['sagas', 'list', '--status', 'compensated', '--json', ...where]);
    expect(JSON.parse(some.out)).toEqual([
      {
        sagaId: 'o2',
        name: 'order',
        version: 1,
        status: 'compensated',
        step: 'charge',
        reason: { name: 'Error', message: 'no charge', code: 'E_NO' },
        createdAt: expect.any(Number),
        updatedAt: expect.any(Number),
      },
    ]);
    const none = await finish(['sagas', 'list', '--name', 'other', ...where]);
    expect(none.out).toMatch(/^no such sagas (in the database|with the prefix '.*' in Redis) at .*\n$/);
    expect((await finish(['sagas', 'list', '--unclaimed', '--json', ...where])).out).toBe('[]\n');
  });

  it(`holdfast sagas retry lets a saga in ${kind} go on, and skip lets it do without a step`, async () => {
    const { where, fail, start } = await createSagas(kind);
    fail.add('mail');
    const handle = await start('o1');
    expect(await handle.status()).toBe('stuck');

    const other = await finish(['sagas', 'skip', 'o1', 'charge', '--reason', 'paid', ...where]);
    expect(other.err).toBe("holdfast: the saga 'o1' is not stuck at the step 'charge'\n");
    expect(other.exitCode).toBe(1);

    const retried = await finish(['sagas', 'retry', 'o1', ...where]);
    expect(retried.out).toBe("the saga 'o1' goes on where it is stuck\n");
    await vi.waitFor(async () => {
      const { out } = await finish(['sagas', 'show', 'o1', '--json', ...where]);
      expect(JSON.parse(out)[0].entries.filter(isStick)).toHaveLength(2);
    }, SOON);

    const skipped = await finish(['sagas', 'skip', 'o1', 'mail', '--reason', 'called', '--json', ...where]);
    expect(JSON.parse(skipped.out)).toEqual([{ sagaId: 'o1', step: 'mail', skipped: true }]);
    await vi.waitFor(async () => expect(await handle.status()).toBe('completed'), SOON);
    const again = await finish(['sagas', 'retry', 'o1', ...where]);
    expect(again.err).toBe("holdfast: the saga 'o1' is not stuck\n");
    expect(again.exitCode).toBe(1);
  });

  it(`holdfast sagas fails on a saga that ${kind} does not have`, async () => {
    const { where } = await createStore(kind);
    for (const args of [
      ['show', 'o1'],
      ['retry', 'o1'],
      ['cancel', 'o1'],
      ['skip', 'o1', 'a', '--reason', 'r'],
    ]) {
      const { out, err, exitCode } = await finish(['sagas', ...args, ...where]);
      expect(err).toMatch(/there is no saga/);
      expect({ out, exitCode }).toEqual({ out: '', exitCode: 1 });
    }
  });
});

describe('holdfast sagas', () => {
  it('holdfast sagas show tells what has happened to a saga, line by line', async () => {
    const { where, fail, start } = await createSagas();
    fail.add('charge');
    await start('o1');

    const { out, err, exitCode } = await finish(['sagas', 'show', 'o1', ...where]);

    const [head, timeline] = out.split('\n\n');
    expect(head!.split('\n').map(words)).toEqual([
      ['saga', 'o1'],
      ['name', 'order, version 1'],
      ['status', 'compensated at charge: Error: no charge (E_NO)'],
      ['created', TIME],
      ['input', '{"total":10}'],
      ['correlationId', 'o1'],
    ]);
    const rows = timeline!.split('\n').slice(0, -1).map(words);
    expect(rows.map(([, ...cells]) => cells)).toEqual([
      ['STEP', 'EVENT', 'DETAIL'],
      ['reserve', 'attempt 1', '-'],
      ['reserve', 'completed', '{"done":"reserve"}'],
      ['charge', 'attempt 1', '-'],
      ['charge', 'failed, may have happened', 'Error: no charge (E_NO)'],
      ['charge', 'attempt 2 after 0.0 s', '-'],
      ['charge', 'failed, may have happened', 'Error: no charge (E_NO)'],
      ['charge', 'compensates from here on', 'Error: no charge (E_NO)'],
      ['reserve', 'compensation, attempt 1', '-'],
      ['reserve', 'compensated', '-'],
      ['-', 'the saga is compensated', '-'],
    ]);
    expect({ err, exitCode }).toEqual({ err: '', exitCode: 0 });
  });

  it('holdfast sagas show tells what an operator has done, and what nobody has read yet', async () => {
    const { where, fail, start } = await createSagas();
    fail.add('charge').add('release');
    const handle = await start('o1');
    await finish(['sagas', 'skip', 'o1', 'reserve', '--reason', 'by hand', ...where]);
    await vi.waitFor(async () => expect(await handle.status()).toBe('compensated'), SOON);
    const { out } = await finish(['sagas', 'show', 'o1', ...where]);
    const rows = out.split('\n').map(words);
    expect(rows.find(([, , event]) => event === 'compensation failed')).toEqual([
      TIME,
      'reserve',
      'compensation failed',
      'Error: no release (E_NO)',
    ]);
    expect(rows.find(([, , event]) => event === 'stuck')?.[1]).toBe('reserve');
    expect(rows.find(([, , event]) => event === 'input: skip')).toEqual([
      TIME,
      'reserve',
      'input: skip',
      'by hand',
    ]);
  });

  it('holdfast sagas cancel tells a saga which nobody runs at the moment', async () => {
    const { store, where } = await createStore('Redis');
    const entries = [{ type: 'invoke', step: 'a', attempt: 1, delay: 0 }] as const;
    const saga = { sagaId: 'o1', name: 'order', version: 9, input: '1', context: {}, entries };
    await store.create({ ...saga, cancellable: true, lease: 0, events: [] });

    const { out, exitCode } = await finish(['sagas', 'cancel', 'o1', ...where]);

    expect({ out, exitCode }).toEqual({ out: "the saga 'o1' is cancelled\n", exitCode: 0 });
    const shown = await finish(['sagas', 'show', 'o1', ...where]);
    expect(shown.out).toMatch(/^not read yet +- +input: cancel +-$/m);
  });

  it('holdfast sagas show says which saga cannot be read, and list shows it all the same', async () => {
    const { url, pool } = await uniqueDatabase();
    const store = new PostgresSagaStore({ database: fromPg(pool) });
    const saga = { sagaId: 'o1', name: 'order', version: 1, input: '1', context: {}, entries: [] };
    await store.create({ ...saga, cancellable: true, lease: 0, events: [] });
    await pool.query(`update holdfast.saga_entries set entries = 'garbage'`);
    const { out, err, exitCode } = await finish(['sagas', 'show', 'o1', '--postgres', url]);
    expect(err).toMatch(/^holdfast: the database at .*'o1'.*\n$/);
    expect({ out, exitCode }).toEqual({ out: '', exitCode: 1 });
    const listed = await finish(['sagas', 'list', '--postgres', url]);
    expect(words(listed.out.split('\n')[1])).toEqual([TIME, TIME, 'o1', 'order', '1', 'running', '-', '-']);
  });

  it('holdfast sagas list --unclaimed shows what no process has claimed for five minutes', async () => {
    const { url, pool } = await uniqueDatabase();
    const store = new PostgresSagaStore({ database: fromPg(pool) });
    for (const sagaId of ['o1', 'o2']) {
      const saga = { sagaId, name: 'order', version: 9, input: '1', context: {}, entries: [] };
      await store.create({ ...saga, cancellable: true, lease: 0, events: [] });
    }
    await pool.query(
      `update holdfast.sagas set due_at = now() - interval '301 seconds' where saga_id = 'o2'`,
    );
    const { out } = await finish(['sagas', 'list', '--unclaimed', '--json', '--postgres', url]);
    expect(JSON.parse(out).map(({ sagaId }: { sagaId: string }) => sagaId)).toEqual(['o2']);
  });

  it('holdfast sagas cancel fails on a saga that has ended', async () => {
    const { where, start } = await createSagas();
    await start('o1');
    const { err, exitCode } = await finish(['sagas', 'cancel', 'o1', ...where]);
    expect(err).toMatch(/^holdfast: the saga 'o1' cannot be cancelled: it has reached its pivot/);
    expect(exitCode).toBe(1);
  });

  it('holdfast sagas escapes what strangers wrote before it reaches the terminal', async () => {
    const { store, where } = await createStore('Redis');
    const entries = [{ type: 'complete', step: 'a\u001b[2J', data: '"\u001b[2J"' }] as const;
    const saga = { sagaId: 'o1', name: 'order\n', version: 1, input: '"\u009b"', context: {}, entries };
    await store.create({ ...saga, cancellable: true, lease: 0, events: [] });
    for (const args of [['list'], ['show', 'o1'], ['list', '--json'], ['show', 'o1', '--json']]) {
      const { out, exitCode } = await finish(['sagas', ...args, ...where]);
      expect(exitCode).toBe(0);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not be there
      expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
    }
    const { out } = await finish(['sagas', 'show', 'o1', ...where]);
    expect(out).toContain('a\\u{1b}[2J');
  });

  it.each([
    ['--redis', 'redis://:hunter2@127.0.0.1:1'],
    ['--postgres', 'postgres://app:hunter2@127.0.0.1:1/orders'],
  ])(
    'holdfast sagas %s says in one line that the store is away, without the password',
    async (option, url) => {
      const { err, exitCode } = await finish(['sagas', 'list', option, url, '--timeout', '300']);
      expect(err).toMatch(/^holdfast: .*127\.0\.0\.1:1.*\n$/);
      expect(err).not.toContain('hunter2');
      expect(exitCode).toBe(1);
    },
  );
});
