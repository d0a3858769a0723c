import fc from 'fast-check';
import pg from 'pg';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { DatabaseError, KeyRevokedError } from '../../src/errors.ts';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { type Database, fromPg, PostgresInbox, type Transaction } from '../../src/postgres/index.ts';
import { faultyDatabase } from '../support/faults.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;
let database: Database;
let inbox: PostgresInbox;

beforeAll(async () => {
  test = await uniqueDatabase();
  await test.pool.query('create table effects (name text not null)');
});

beforeEach(async () => {
  await test.pool.query('truncate effects, holdfast.inbox, holdfast.keys');
  database = fromPg(test.pool);
  inbox = new PostgresInbox({ database });
});

const addEffect = (name: string) => async (tx: Transaction) => {
  await tx.query('insert into effects values ($1)', [name]);
  return name;
};

async function effects(): Promise<string[]> {
  const { rows } = await test.pool.query('select name from effects order by name');
  return rows.map(({ name }) => name);
}

/** Resolves when `count` transactions of the database wait for a lock. */
async function untilWaiting(count: number): Promise<void> {
  for (;;) {
    const { rows } = await test.pool.query(
      `select count(*)::int as waiting from pg_stat_activity where datname = $1 and wait_event_type = 'Lock'`,
      [test.name],
    );
    if (rows[0].waiting >= count) return;
  }
}

/** A gate that a function under way waits at, once it has told that it is there. */
function gate() {
  const reached = deferred<void>();
  const opened = deferred<void>();
  const wait = async () => {
    reached.resolve();
    await opened.promise;
  };
  return { wait, reached: reached.promise, open: opened.resolve, fail: opened.reject };
}

/** Ends all other connections to the database, as the death of their processes does. */
async function breakConnections(): Promise<void> {
  await test.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = $1 and pid <> pg_backend_pid() and state like 'idle in transaction%'`,
    [test.name],
  );
}

describe('PostgresInbox.process', () => {
  it('an event that a group has handled does not run its handler again', async () => {
    expect(await inbox.process('stock', 'e1', addEffect('first'))).toBe(true);
    expect(await inbox.process('stock', 'e1', addEffect('second'))).toBe(false);
    expect(await effects()).toEqual(['first']);
  });

  it('groups remember their events apart from each other', async () => {
    expect(await inbox.process('stock', 'e1', addEffect('stock'))).toBe(true);
    expect(await inbox.process('mail', 'e1', addEffect('mail'))).toBe(true);
    expect(await effects()).toEqual(['mail', 'stock']);
  });

  it('a handler that fails leaves nothing behind, and the event is handled when it comes again', async () => {
    const failure = new Error('out of stock');
    const failing = inbox.process('stock', 'e1', async (tx) => {
      await addEffect('lost')(tx);
      throw failure;
    });
    await expect(failing).rejects.toBe(failure);
    expect(await effects()).toEqual([]);
    expect(await inbox.process('stock', 'e1', addEffect('kept'))).toBe(true);
  });

  it('of ten deliveries at once of one event, one runs the handler', async () => {
    const deliveries = Array.from({ length: 10 }, () => inbox.process('stock', 'e1', addEffect('once')));
    const ran = await Promise.all(deliveries);
    expect(ran.filter(Boolean)).toHaveLength(1);
    expect(await effects()).toEqual(['once']);
  });

  it('a delivery that waited for another one runs the handler if that one fails', async () => {
    const { wait, reached, fail } = gate();
    const first = inbox.process('stock', 'e1', wait);
    await reached;
    const second = inbox.process('stock', 'e1', addEffect('second'));
    await untilWaiting(1);
    fail(new Error('failed'));
    await expect(first).rejects.toThrow('failed');
    expect(await second).toBe(true);
  });

  it('an event whose connection breaks before the commit is handled when it comes again', async () => {
    const { wait, reached, open } = gate();
    const broken = inbox.process('stock', 'e1', async (tx) => {
      await addEffect('lost')(tx);
      await wait();
    });
    await reached;
    await breakConnections();
    open();
    await expect(broken).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    expect(await inbox.process('stock', 'e1', addEffect('kept'))).toBe(true);
    expect(await effects()).toEqual(['kept']);
  });

  it('a handler that hides a failed statement does not have its event counted as handled', async () => {
    const hidden = inbox.process('stock', 'e1', async (tx) => {
      await tx.query('insert into missing values (1)').catch(() => {});
    });
    await expect(hidden).rejects.toThrow('rolled back');
    expect(await inbox.process('stock', 'e1', () => {})).toBe(true);
  });

  it('a delivery waits for another one for lockTimeout at most', async () => {
    const { wait, reached, open } = gate();
    const first = inbox.process('stock', 'e1', wait);
    await reached;
    const impatient = new PostgresInbox({ database, lockTimeout: 20 });
    await expect(impatient.process('stock', 'e1', () => {})).rejects.toMatchObject({
      sqlState: '55P03',
      retryable: true,
    });
    open();
    expect(await first).toBe(true);
  });
});

describe('a subscription with a PostgresInbox', () => {
  it('a handler writes in the transaction of the inbox, and what a failed attempt wrote is gone', async () => {
    const bus = new InMemoryEventBus<{ 'order.created': { total: number } }>({ source: 'order-service' });
    const done = deferred<void>();
    await bus.subscribe(
      'order.created',
      async (event, { tx, attempt }) => {
        await tx.query('insert into effects values ($1)', [`${event.aggregateId} by attempt ${attempt}`]);
        if (attempt === 1) throw new Error('fails once');
        done.resolve();
      },
      { group: 'stock', inbox, backoff: () => 0 },
    );
    const { eventId } = await bus.publish({
      eventType: 'order.created',
      aggregateId: 'o1',
      data: { total: 5 },
    });
    await done.promise;
    await bus.close();
    expect(await effects()).toEqual(['o1 by attempt 2']);
    const { rows } = await test.pool.query('select event_id from holdfast.inbox');
    expect(rows).toEqual([{ event_id: eventId }]);
  });

  it('the longest names of a group and of a type fit into the inbox', async () => {
    const type = `${'t'.repeat(63)}.${'e'.repeat(64)}`;
    const bus = new InMemoryEventBus<Record<string, unknown>>({ source: 'order-service' });
    const done = deferred<unknown>();
    await bus.subscribe(type, ({ data }) => done.resolve(data), { group: 'g'.repeat(128), inbox });
    await bus.publish({ eventType: type, aggregateId: 'a'.repeat(256), data: 'handled' });
    expect(await done.promise).toBe('handled');
    await bus.close();
  });
});

describe('PostgresInbox.once', () => {
  it.each([undefined, null, 0, '', 'a\u0000b\ud800', [1, { b: 1, a: [] }], { deep: { er: true } }])(
    'a repeat of once gets the result %j back',
    async (result) => {
      expect(await inbox.once('key', () => result)).toEqual(result);
      expect(await inbox.once('key', () => 'another')).toEqual(result);
    },
  );

  it('any result that JSON keeps comes back as it was', async () => {
    let key = 0;
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        const result = JSON.parse(JSON.stringify(value));
        key++;
        await inbox.once(`key ${key}`, () => result);
        expect(await inbox.once(`key ${key}`, () => 'another')).toEqual(result);
      }),
      { numRuns: 50 },
    );
  });

  it.each([
    ['a Date', { at: new Date(0) }, 'result of once.at is a Date'],
    ['NaN', Number.NaN, 'result of once is NaN'],
    ['a function', [() => {}], 'result of once[0] is a function'],
    ['a bigint', { total: 1n }, 'result of once.total is 1n'],
  ])(
    'a result with %s, which JSON does not keep, is a TypeError, and nothing happens',
    async (_, result, message) => {
      const rejected = inbox.once('key', async (tx) => {
        await addEffect('lost')(tx);
        return result;
      });
      await expect(rejected).rejects.toThrow(TypeError);
      await expect(rejected).rejects.toThrow(message);
      expect(await effects()).toEqual([]);
      expect(await inbox.once('key', addEffect('kept'))).toBe('kept');
    },
  );

  it('of ten calls at once with one key, one has its effect, and all get its result', async () => {
    const calls = Array.from({ length: 10 }, (_, index) => inbox.once('key', addEffect(`by ${index}`)));
    const results = await Promise.all(calls);
    expect(await effects()).toEqual([results[0]]);
    expect(new Set(results).size).toBe(1);
  });

  it('keys are apart from the ids of events', async () => {
    await inbox.process('stock', 'same', addEffect('event'));
    await inbox.once('same', addEffect('key'));
    expect(await effects()).toEqual(['event', 'key']);
  });

  it('a function that fails leaves its key unused', async () => {
    await expect(inbox.once('key', () => Promise.reject(new Error('declined')))).rejects.toThrow('declined');
    expect(await inbox.once('key', addEffect('kept'))).toBe('kept');
  });

  it('a key whose process dies before the commit is unused, and who waited for it runs', async () => {
    const { wait, reached, open } = gate();
    const dying = inbox.once('key', async (tx) => {
      await addEffect('lost')(tx);
      await wait();
    });
    await reached;
    const waiting = inbox.once('key', addEffect('kept'));
    await untilWaiting(1);
    await breakConnections();
    open();
    await expect(dying).rejects.toThrow(DatabaseError);
    expect(await waiting).toBe('kept');
    expect(await effects()).toEqual(['kept']);
  });

  it('a once within a transaction is part of it, and is undone with it', async () => {
    const undone = database.transaction(async (tx) => {
      expect(await inbox.once('key', addEffect('undone'), tx)).toBe('undone');
      expect(await inbox.once('key', addEffect('again'), tx)).toBe('undone');
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    await database.transaction((tx) => inbox.once('key', addEffect('kept'), tx));
    expect(await inbox.once('key', addEffect('late'))).toBe('kept');
    expect(await effects()).toEqual(['kept']);
  });

  it('a once within a transaction whose function fails leaves its key unused, and the transaction as it was', async () => {
    await database.transaction(async (tx) => {
      await addEffect('before')(tx);
      const declined = inbox.once(
        'key',
        async () => {
          await inbox.once('inner', addEffect('inner'), tx);
          await tx.query('select 1 / 0');
        },
        tx,
      );
      await expect(declined).rejects.toMatchObject({ sqlState: '22012' });
      await addEffect('after')(tx);
    });
    expect(await effects()).toEqual(['after', 'before']);
    expect(await inbox.once('key', () => 'unused')).toBe('unused');
    expect(await inbox.once('inner', () => 'unused')).toBe('unused');
  });

  it('of two calls of once at the same time in one transaction the second one rejects, and harms nothing', async () => {
    await database.transaction(async (tx) => {
      const first = inbox.once('a', addEffect('a'), tx);
      const second = inbox.once('b', () => Promise.reject(new Error('declined')), tx);
      await expect(second).rejects.toThrow('another once() is under way in this transaction');
      expect(await first).toBe('a');
      expect(await inbox.once('b', addEffect('b'), tx)).toBe('b');
    });
    expect(await effects()).toEqual(['a', 'b']);
  });

  it('two calls of once at the same time within a third one take turns too', async () => {
    await inbox.once('outer', async (tx) => {
      const calls = [inbox.once('a', addEffect('a'), tx), inbox.once('b', addEffect('b'), tx)];
      const [first, second] = await Promise.allSettled(calls);
      expect([first!.status, second!.status]).toEqual(['fulfilled', 'rejected']);
    });
    expect(await effects()).toEqual(['a']);
  });

  it('a once within the function of the same key rejects', async () => {
    const key = 'a\nkey';
    const nested = inbox.once(key, (tx) => inbox.once(key, addEffect('inner'), tx));
    await expect(nested).rejects.toThrow(String.raw`with the key 'a\nkey' within the function of that key`);
    expect(await inbox.once(key, addEffect('later'))).toBe('later');
  });

  it('a once or a revoke whose transaction has ended rejects, and leaves nothing', async () => {
    const client = await test.pool.connect();
    onTestFinished(() => client.release());
    const ended = fromPg(client);
    await client.query('begin');
    const late = inbox.once('key', addEffect('late'), ended);
    await client.query('rollback');
    await expect(late).rejects.toBeInstanceOf(DatabaseError);
    await expect(inbox.revoke('key', ended)).rejects.toThrow('revoke() was given a connection without');
    expect(await inbox.once('key', addEffect('kept'))).toBe('kept');
    expect(await effects()).toEqual(['kept']);
  });

  it('more handlers at once than connections can call once in their transactions', async () => {
    const pool = new pg.Pool({ connectionString: test.url, max: 2 });
    onTestFinished(() => pool.end());
    const small = new PostgresInbox({ database: fromPg(pool) });
    const handled = Array.from({ length: 10 }, (_, event) =>
      small.process('stock', `e${event}`, (tx) => small.once('key', addEffect('once'), tx)),
    );
    await Promise.all(handled);
    expect(await effects()).toEqual(['once']);
  });

  it.each(['', 'a\u0000b', 'x'.repeat(257), '\ud800', 7])('%j is no key', async (key) => {
    await expect(inbox.once(key as string, () => {})).rejects.toThrow('the key of once must be a string');
    await expect(inbox.revoke(key as string)).rejects.toThrow('the key of revoke must be a string');
  });
});

describe('PostgresInbox.revoke', () => {
  it('a key that was revoked before its use rejects a late once', async () => {
    expect(await inbox.revoke('key')).toEqual({ seen: false, result: undefined });
    const late = inbox.once('key', addEffect('late'));
    await expect(late).rejects.toThrow(KeyRevokedError);
    await expect(late).rejects.toMatchObject({ code: 'ERR_KEY_REVOKED', key: 'key' });
    expect(await effects()).toEqual([]);
  });

  it('revoking a key that was used gives its result, also the second time', async () => {
    await inbox.once('key', () => ({ charge: 7 }));
    expect(await inbox.revoke('key')).toEqual({ seen: true, result: { charge: 7 } });
    expect(await inbox.revoke('key')).toEqual({ seen: true, result: { charge: 7 } });
    await expect(inbox.once('key', () => {})).rejects.toThrow(KeyRevokedError);
  });

  it('revoking waits for a once in progress, and gives its result', async () => {
    const { wait, reached, open } = gate();
    const once = inbox.once('key', async () => {
      await wait();
      return 'done';
    });
    await reached;
    const revocation = inbox.revoke('key');
    await untilWaiting(1);
    open();
    expect(await once).toBe('done');
    expect(await revocation).toEqual({ seen: true, result: 'done' });
  });

  it('a once in progress that fails has not been seen', async () => {
    const { wait, reached, fail } = gate();
    const once = inbox.once('key', wait);
    await reached;
    const revocation = inbox.revoke('key');
    await untilWaiting(1);
    fail(new Error('declined'));
    await expect(once).rejects.toThrow('declined');
    expect(await revocation).toEqual({ seen: false, result: undefined });
  });

  it('a revocation within a transaction that is rolled back has not happened', async () => {
    const undone = database.transaction(async (tx) => {
      await inbox.revoke('key', tx);
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    expect(await inbox.once('key', addEffect('kept'))).toBe('kept');
  });

  it('a once waits for the transaction that revokes its key', async () => {
    const { wait, reached, open } = gate();
    const revoking = database.transaction(async (tx) => {
      await inbox.revoke('key', tx);
      await wait();
    });
    await reached;
    const late = inbox.once('key', addEffect('late'));
    late.catch(() => {});
    await untilWaiting(1);
    open();
    await revoking;
    await expect(late).rejects.toThrow(KeyRevokedError);
    expect(await effects()).toEqual([]);
  });

  it('revoking waits for lockTimeout at most', async () => {
    const { wait, reached, open } = gate();
    const once = inbox.once('key', wait);
    await reached;
    const impatient = new PostgresInbox({ database, lockTimeout: 20 });
    await expect(impatient.revoke('key')).rejects.toMatchObject({ sqlState: '55P03' });
    open();
    await once;
  });

  it('whatever calls of once and revoke meet, and whichever crash, an effect happens once, and never after a revocation that saw none', async () => {
    const call = fc.record({
      key: fc.constantFrom('a', 'b'),
      what: fc.constantFrom('once' as const, 'revoke' as const),
      how: fc.constantFrom('alone' as const, 'in a transaction' as const),
      end: fc.constantFrom('commits', 'commits', 'fails', 'crashes before the commit', 'loses the reply'),
      // Calls of one wave are under way at once.
      wave: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { minLength: 2, maxLength: 12 }), async (calls) => {
        await test.pool.query('truncate effects, holdfast.keys');
        const revocations: { key: string; seen: boolean; result: unknown }[] = [];
        const results: { key: string; result: unknown }[] = [];
        const make = async ({ key, what, how, end }: (typeof calls)[number]) => {
          const faulty = faultyDatabase(database, async (step, when) => {
            if (step !== 'commit') return;
            if (when === 'after' && end === 'loses the reply') throw new Error(end);
            if (when === 'before' && end === 'fails') throw new Error(end);
          });
          const crashing: Database = {
            query: faulty.query,
            transaction: (run) =>
              faulty.transaction(async (tx) => {
                const made = await run(tx);
                if (end !== 'crashes before the commit') return made;
                await tx.query('select pg_terminate_backend(pg_backend_pid())');
                return made;
              }),
          };
          const own = new PostgresInbox({ database: crashing });
          const act = async (tx?: Transaction) => {
            if (what === 'once') return { key, result: await own.once(key, addEffect(key), tx) };
            return { key, ...(await own.revoke(key, tx)) };
          };
          const made = await (how === 'alone' ? act() : crashing.transaction(act));
          if ('seen' in made) revocations.push(made);
          else results.push(made);
        };
        for (const wave of [0, 1, 2]) {
          const settled = await Promise.allSettled(calls.filter((call) => call.wave === wave).map(make));
          for (const result of settled) {
            if (result.status === 'fulfilled' || result.reason instanceof KeyRevokedError) continue;
            expect(String(result.reason)).toMatch(/fails|loses the reply|terminating connection/);
          }
          const now = await effects();
          expect(new Set(now).size).toBe(now.length);
          for (const { key, result } of results) expect([key, now.includes(key)]).toEqual([result, true]);
          for (const { key, seen, result } of revocations) {
            expect([seen, result]).toEqual(now.includes(key) ? [true, key] : [false, undefined]);
          }
        }
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});

describe('the retention of a PostgresInbox', () => {
  const makeOld = () =>
    Promise.all([
      test.pool.query(`update holdfast.inbox set expires_at = now() - interval '1 second'`),
      test.pool.query(`update holdfast.keys set expires_at = now() - interval '1 second'`),
    ]);

  it('what is older than the retention is removed, and what is younger stays', async () => {
    await inbox.process('stock', 'old', () => {});
    await inbox.once('old', () => {});
    await makeOld();
    await inbox.process('stock', 'young', () => {});
    await inbox.once('young', () => {});
    expect(await inbox.removeOld()).toBe(2);
    expect(await inbox.removeOld()).toBe(0);
    expect(await inbox.process('stock', 'young', () => {})).toBe(false);
    expect(await inbox.process('stock', 'old', () => {})).toBe(true);
  });

  it('an inbox of a shorter retention removes nothing of another one', async () => {
    await inbox.process('stock', 'event', () => {});
    await inbox.once('key', () => 'first');
    await inbox.revoke('revoked');
    const brief = new PostgresInbox({ database, retention: 1 });
    expect(await brief.removeOld()).toBe(0);
    expect(await inbox.process('stock', 'event', () => {})).toBe(false);
    expect(await inbox.once('key', () => 'second')).toBe('first');
    await expect(inbox.once('revoked', () => {})).rejects.toThrow(KeyRevokedError);
  });

  it('an inbox removes 1,000 old events with its first call, so that no call takes long', async () => {
    await test.pool.query(
      `insert into holdfast.inbox select 'stock', n::text, now() - interval '8 days' from generate_series(1, 1500) n`,
    );
    await inbox.process('stock', 'new', () => {});
    const count = async () =>
      (await test.pool.query('select count(*)::int as n from holdfast.inbox')).rows[0].n;
    expect(await count()).toBe(501);
    await inbox.process('stock', 'newer', () => {});
    expect(await count()).toBe(502);
  });

  it('several inboxes that remove old events at once do not wait for each other', async () => {
    await test.pool.query(
      `insert into holdfast.inbox select 'stock', n::text, now() - interval '8 days' from generate_series(1, 5000) n`,
    );
    const removed = await Promise.all(
      Array.from({ length: 5 }, () => new PostgresInbox({ database }).removeOld()),
    );
    const left = (await test.pool.query('select count(*)::int as n from holdfast.inbox')).rows[0].n;
    expect(removed.reduce((sum, one) => sum + one, 0)).toBe(5_000 - left);
  });
});

describe('the options of a PostgresInbox', () => {
  it.each([
    [{}, "needs the option 'database'"],
    [{ database: {} }, "option 'database' must be an object with query(), transaction()"],
    [{ database: fakeDatabase(), retention: 0 }, "option 'retention'"],
    [{ database: fakeDatabase(), lockTimeout: Number.NaN }, "option 'lockTimeout'"],
    [{ database: fakeDatabase(), ttl: 5 }, "no option 'ttl'"],
  ])('a PostgresInbox rejects %j', (options, message) => {
    expect(() => new PostgresInbox(options as never)).toThrow(message);
  });
});

function fakeDatabase(): Database {
  const fail = () => Promise.reject(new Error('not called'));
  return { query: fail, transaction: fail };
}
