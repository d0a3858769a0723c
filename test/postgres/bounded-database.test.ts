import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { deferred } from '../../src/internal/deferred.ts';
import { BoundedDatabase } from '../../src/postgres/bounded-database.ts';
import type { Database, QueryResult, Transaction } from '../../src/postgres/database.ts';

beforeEach(() => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
});

const TIMEOUT = 1_000;
const result: QueryResult = { rows: [1], rowCount: 1 };
const expired = {
  code: 'ERR_DATABASE',
  retryable: true,
  message: 'PostgreSQL did not respond within 1000 ms',
};
const never = () => new Promise<never>(() => {});
const atOnce = async () => {};
const later = (time: number) => new Promise<void>((resolve) => setTimeout(resolve, time));

/** A database each of whose parts takes its time; by default none. */
function open({
  begin = atOnce,
  query = async () => result,
  commit = atOnce,
}: {
  begin?: () => Promise<void>;
  query?: () => Promise<QueryResult>;
  commit?: () => Promise<void>;
} = {}): BoundedDatabase {
  const tx: Transaction = { raw: 'raw', query };
  const database: Database = {
    query,
    async transaction(run) {
      await begin();
      const given = await run(tx);
      await commit();
      return given;
    },
  };
  return new BoundedDatabase(database, TIMEOUT);
}

/** Gives how a promise has settled after some time. */
async function settledAfter(time: number, promise: Promise<unknown>): Promise<unknown> {
  let outcome: unknown = 'pending';
  promise.then(
    (value) => {
      outcome = value;
    },
    (error) => {
      outcome = error;
    },
  );
  await vi.advanceTimersByTimeAsync(time);
  return outcome;
}

describe('a database whose statements are bounded', () => {
  it('gives what comes in time, and waits for nothing afterwards', async () => {
    expect(await settledAfter(0, open().query('select'))).toBe(result);
    expect(
      await settledAfter(
        0,
        open().transaction((tx) => tx.query('select')),
      ),
    ).toBe(result);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['a statement', () => open({ query: never }).query('select')],
    ['the beginning of a transaction', () => open({ begin: never }).transaction(() => 1)],
    ['its end', () => open({ commit: never }).transaction(() => 1)],
    ['a statement of it', () => open({ query: never }).transaction((tx) => tx.query('select'))],
  ])('gives up %s that gets no response', async (_, run) => {
    const promise = run();
    promise.catch(() => {});
    expect(await settledAfter(TIMEOUT - 1, promise)).toBe('pending');
    expect(await settledAfter(2, promise)).toMatchObject(expired);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves the function of a transaction as long as it takes between its statements', async () => {
    const promise = open().transaction(async (tx) => {
      await later(TIMEOUT * 5);
      return tx.query('select');
    });
    expect(await settledAfter(TIMEOUT * 5, promise)).toBe(result);
  });

  it('does nothing in a transaction that begins when nobody waits for it any more', async () => {
    const { promise: begun, resolve: begin } = deferred<void>();
    const run = vi.fn();
    expect(await settledAfter(TIMEOUT, open({ begin: () => begun }).transaction(run))).toMatchObject(expired);
    begin();
    await vi.advanceTimersByTimeAsync(0);
    expect(run).not.toHaveBeenCalled();
  });

  it('passes on what tells of the commit only where the transaction does', async () => {
    const seen = await settledAfter(
      0,
      open().transaction((tx) => ({ raw: tx.raw, tells: 'onCommit' in tx })),
    );
    expect(seen).toEqual({ raw: 'raw', tells: false });
  });

  it('rejects with what the database throws at once', async () => {
    const thrown = new Error('no');
    const query = () => {
      throw thrown;
    };
    expect(await settledAfter(0, open({ query }).query('select'))).toBe(thrown);
    expect(vi.getTimerCount()).toBe(0);
  });
});
