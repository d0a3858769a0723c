import { hostname } from 'node:os';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { partitionOf } from '../../src/events/partition.ts';
import { deferred } from '../../src/internal/deferred.ts';
import type { RedisEventBus } from '../../src/redis/index.ts';
import { redisUrl } from '../support/redis.ts';
import { eventBus, finish } from './helpers.ts';

const SOON = { timeout: 8_000, interval: 20 };
const HOUR = 3_600_000;

function client(): Redis {
  const redis = new Redis(redisUrl());
  onTestFinished(() => redis.disconnect());
  return redis;
}

function publish(bus: RedisEventBus, aggregateId = 'o1', eventType = 'order.created') {
  return bus.publish({ eventType, aggregateId, data: { aggregateId } });
}

/** Creates a group that has no subscriptions. */
async function createGroup(bus: RedisEventBus, group: string, pattern = 'order.*') {
  const subscription = await bus.subscribe(pattern, () => {}, { group });
  await subscription.close();
}

/** Subscribes with a handler that fails: at last, unless it is retried in an hour. */
function subscribeFailing(bus: RedisEventBus, group: string, { message = 'no stock', retried = false } = {}) {
  const fail = () => {
    throw Object.assign(new Error(message), { code: 'E_STOCK' });
  };
  return bus.subscribe('order.*', fail, { group, maxAttempts: retried ? 3 : 1, backoff: () => HOUR });
}

function words(line: string | undefined): string[] {
  return line!.split(/ {2,}/);
}

/** Runs a command, and gives its JSON. */
async function json(args: string[]) {
  const { out, err, exitCode } = await finish([...args, '--json']);
  expect({ err, exitCode }).toEqual({ err: '', exitCode: 0 });
  return JSON.parse(out);
}

describe('holdfast events lag', () => {
  it('holdfast events lag shows for each partition of a group what it has not handled', async () => {
    const { bus, where } = eventBus();
    await createGroup(bus, 'inventory');
    await publish(bus, 'o1');
    await publish(bus, 'o1');

    const { out, err, exitCode } = await finish(['events', 'lag', ...where]);

    const lines = out.split('\n').slice(0, -1);
    expect(lines).toHaveLength(9);
    expect(words(lines[0])).toEqual(['GROUP', 'PATTERN', 'PARTITION', 'LAG', 'PENDING', 'LEASE', 'OWNER']);
    const partition = partitionOf('o1', 8);
    for (const [index, line] of lines.slice(1).entries()) {
      const lag = index === partition ? '2' : '0';
      expect(words(line)).toEqual(['inventory', 'order.*', `order:${index}`, lag, '0', '-', '-']);
    }
    expect({ err, exitCode }).toEqual({ err: '', exitCode: 0 });
  });

  it('holdfast events lag names the process that owns a partition, and when its lease ends', async () => {
    const { bus, createBus, where } = eventBus();
    await createGroup(bus, 'other');
    const started = deferred<void>();
    const done = deferred<void>();
    const handle = () => {
      started.resolve();
      return done.promise;
    };
    await createBus({ partitions: 8 }).subscribe('order.created', handle, { group: 'inventory' });
    onTestFinished(() => done.resolve());
    await publish(bus);
    await started.promise;

    const rows = await json(['events', 'lag', '--group', 'inventory', ...where]);

    expect(rows).toHaveLength(8);
    const owned = rows[partitionOf('o1', 8)];
    expect(owned).toEqual({
      group: 'inventory',
      pattern: 'order.created',
      topic: 'order',
      partition: partitionOf('o1', 8),
      lag: 1,
      pending: 1,
      owner: expect.stringContaining(`${hostname()}:${process.pid}:`),
      leaseExpiresIn: expect.any(Number),
    });
    expect(owned.leaseExpiresIn).toBeGreaterThan(0);
    expect(owned.leaseExpiresIn).toBeLessThanOrEqual(10_000);
    const { out } = await finish(['events', 'lag', ...where]);
    expect(out).toMatch(new RegExp(`^inventory .*\\d s +${hostname()}:${process.pid}:`, 'm'));
  });

  it('holdfast events lag shows no owner whose lease has run out', async () => {
    const { bus, where, keyPrefix } = eventBus();
    await createGroup(bus, 'inventory');
    const lease = { owner: 'dead', token: '9', duration: '10000', until: String(Date.now() - 1) };
    await client().hset(`${keyPrefix}:events:{order:0}:lease:inventory/order.*`, lease);
    expect((await json(['events', 'lag', ...where]))[0]).toMatchObject({ owner: null, leaseExpiresIn: null });
  });
});

describe('holdfast events pending', () => {
  it('holdfast events pending lists what has failed and will be handled again', async () => {
    const { bus, where } = eventBus();
    await subscribeFailing(bus, 'inventory', { retried: true });
    await bus.subscribe('order.*', () => {}, { group: 'mail' });
    const { eventId } = await publish(bus);

    await vi.waitFor(async () => {
      const { out } = await finish(['events', 'pending', ...where]);
      const [head, row, ...others] = out.split('\n');
      expect(words(head)).toEqual('GROUP,PATTERN,EVENT,TYPE,AGGREGATE,ATTEMPTS,NEXT,ERROR'.split(','));
      const cells = ['inventory', 'order.*', eventId, 'order.created', 'o1', '1', 'in 60 min'];
      expect(words(row)).toEqual([...cells, 'Error: no stock (E_STOCK)']);
      expect(others).toEqual(['']);
    }, SOON);
    const [pending] = await json(['events', 'pending', '--group', 'inventory', ...where]);
    expect(pending).toEqual({
      group: 'inventory',
      pattern: 'order.*',
      topic: 'order',
      partition: partitionOf('o1', 8),
      eventId,
      eventType: 'order.created',
      aggregateId: 'o1',
      attempts: 1,
      errors: [{ attempt: 1, at: expect.any(Number), name: 'Error', message: 'no stock', code: 'E_STOCK' }],
      retryAt: expect.any(Number),
    });
    // Both are rounded from one reading of Redis's clock and one of this process.
    expect(Math.abs(pending.retryAt - pending.errors[0].at - HOUR)).toBeLessThan(1_000);
    expect(await json(['events', 'pending', '--group', 'mail', ...where])).toEqual([]);
  });

  it('holdfast events pending lists what waits for a process that knows its version', async () => {
    const { createBus, where } = eventBus();
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    await createBus().subscribe('order.created', () => {}, { group: 'inventory' });
    await publish(createBus({ upcast: { 'order.created': { 1: (data) => data } } }));

    await vi.waitFor(async () => {
      const { out } = await finish(['events', 'pending', ...where]);
      expect(out).toMatch(/ o1 {2,}0 {2,}held, dead in 10 min {2,}-\n$/);
    }, SOON);
    const [pending] = await json(['events', 'pending', ...where]);
    expect(pending).toMatchObject({ attempts: 0, errors: [], retryAt: pending.heldSince + 600_000 });
  });

  it('holdfast events pending passes over what others have written in place of attempts', async () => {
    const { bus, where, keyPrefix } = eventBus();
    await subscribeFailing(bus, 'inventory', { retried: true });
    await publish(bus);
    await vi.waitFor(async () => expect(await json(['events', 'pending', ...where])).toHaveLength(1), SOON);
    const attempts = `${keyPrefix}:events:{order:${partitionOf('o1', 8)}}:attempts:inventory/order.*`;
    const failed = { attempts: 1, errors: [], retryAt: 0, wait: 0 };
    await client().hset(attempts, {
      '1-1': JSON.stringify(failed),
      '1-2': 'nothing',
      '1-3': JSON.stringify({ ...failed, errors: 'none' }),
      '1-4': JSON.stringify({ ...failed, errors: [null] }),
    });
    expect(await json(['events', 'pending', ...where])).toHaveLength(1);
  });
});

describe('holdfast events dead', () => {
  it('holdfast events dead lists the dead letters of all groups, the oldest first', async () => {
    const { bus, where } = eventBus();
    const stock = await subscribeFailing(bus, 'stock');
    const first = await publish(bus, 'o1');
    await vi.waitFor(async () => expect(await json(['events', 'dead', ...where])).toHaveLength(1), SOON);
    await stock.close();
    await subscribeFailing(bus, 'inventory', { message: 'too late' });
    await vi.waitFor(async () => expect(await json(['events', 'dead', ...where])).toHaveLength(2), SOON);

    const { out } = await finish(['events', 'dead', ...where]);

    const [head, ...rows] = out.split('\n').slice(0, -1).map(words);
    expect(head).toEqual('DIED,GROUP,EVENT,TYPE,AGGREGATE,ATTEMPTS,ERROR'.split(','));
    const died = expect.stringMatching(/^\d{4}-.*Z$/);
    const event = [first.eventId, 'order.created', 'o1', '1'];
    expect(rows).toEqual([
      [died, 'stock', ...event, 'Error: no stock (E_STOCK)'],
      [died, 'inventory', ...event, 'Error: too late (E_STOCK)'],
    ]);
    expect(await json(['events', 'dead', '--group', 'inventory', ...where])).toEqual([
      {
        group: 'inventory',
        eventId: first.eventId,
        eventType: 'order.created',
        aggregateId: 'o1',
        attempts: 1,
        errors: [expect.objectContaining({ attempt: 1, message: 'too late' })],
        diedAt: expect.any(Number),
      },
    ]);
  });

  it('holdfast events dead escapes what strangers wrote, and passes over what is no letter', async () => {
    const { bus, where, keyPrefix } = eventBus();
    await subscribeFailing(bus, 'inventory', { message: '\x1b[2J\n\u202eevil' });
    await publish(bus, 'o1\u202e\ufeffevil');
    await vi.waitFor(async () => expect(await json(['events', 'dead', ...where])).toHaveLength(1), SOON);
    await client().xadd(`${keyPrefix}:events:{order:0}:dead:inventory/order.*`, '*', 'event', '\x1b[31m');

    const { out, exitCode } = await finish(['events', 'dead', ...where]);
    expect(out).toContain('o1\\u{202e}\\u{feff}evil');
    expect(out).toContain('Error: \\u{1b}[2J\\u{a}\\u{202e}evil (E_STOCK)');
    expect(out.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
    expect(out.split('\n')).toHaveLength(3);
    expect(exitCode).toBe(0);
    const written = (await finish(['events', 'dead', ...where, '--json'])).out;
    expect(written.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
  });
});

describe('holdfast events show', () => {
  it('holdfast events show gives the whole event, how far each group is, and its errors', async () => {
    const { bus, where } = eventBus();
    await createGroup(bus, 'late');
    await subscribeFailing(bus, 'dead');
    await subscribeFailing(bus, 'failing', { retried: true });
    await bus.subscribe('order.*', () => {}, { group: 'mail' });
    await bus.subscribe('order.paid', () => {}, { group: 'others' });
    const event = await publish(bus);
    const show = ['events', 'show', event.eventId, ...where];
    await vi.waitFor(async () => {
      const [shown] = await json(show);
      expect(shown.deadLetters).toHaveLength(1);
      expect(shown.entries[0].groups[1].attempts).toBe(1);
      expect(shown.entries[0].groups[3].progress).toBe('done');
    }, SOON);

    const [shown, ...more] = await json(show);

    const place = { pattern: 'order.*', topic: 'order', partition: partitionOf('o1', 8) };
    const errors = [expect.objectContaining({ attempt: 1, message: 'no stock' })];
    expect(shown).toEqual({
      event: JSON.parse(JSON.stringify(event)),
      entries: [
        {
          topic: 'order',
          partition: partitionOf('o1', 8),
          entryId: expect.stringMatching(/^\d+-\d+$/),
          groups: [
            { group: 'dead', ...place, progress: 'done' },
            {
              group: 'failing',
              ...place,
              progress: 'pending',
              attempts: 1,
              errors,
              retryAt: expect.any(Number),
            },
            { group: 'late', ...place, progress: 'unread' },
            { group: 'mail', ...place, progress: 'done' },
          ],
        },
      ],
      deadLetters: [{ group: 'dead', attempts: 1, errors, diedAt: expect.any(Number) }],
    });
    expect(more).toEqual([]);
    const { out } = await finish(show);
    expect(JSON.parse(out.slice(0, out.indexOf('\n}\n') + 2))).toEqual(shown.event);
    expect(out).toContain(`\npartition order:${partitionOf('o1', 8)}, entry ${shown.entries[0].entryId}\n`);
    expect(out).toContain('  mail (order.*): done\n');
    expect(out).toMatch(
      / {2}failing \(order\.\*\): failed, 1 attempt, the next in 60 min\n {4}1\. \S+Z {2}Error: no stock \(E_STOCK\)\n/,
    );
    expect(out).toMatch(/\ndead letter of dead since \S+Z, after 1 attempt\n {4}1\. /);
  });

  it('holdfast events show tells that an event is not read yet, and that it is redriven', async () => {
    const { bus, where } = eventBus();
    const failing = await subscribeFailing(bus, 'inventory');
    await createGroup(bus, 'mail');
    const { eventId } = await publish(bus);
    await vi.waitFor(async () => expect(await json(['events', 'dead', ...where])).toHaveLength(1), SOON);
    await failing.close();
    await bus.redrive({ group: 'inventory' });

    const { out } = await finish(['events', 'show', eventId, ...where]);

    const [, first, second, ...others] = out.split('\n\n');
    expect(first).toContain('inventory (order.*): done\n  mail (order.*): not read yet');
    expect(second).toMatch(
      /, redriven for inventory\/order\.\*\n {2}inventory \(order\.\*\): not read yet\n$/,
    );
    expect(others).toEqual([]);
  });

  it('holdfast events show tells of an event whose first attempt is under way', async () => {
    const { bus, where } = eventBus();
    const started = deferred<void>();
    const done = deferred<void>();
    const handle = () => {
      started.resolve();
      return done.promise;
    };
    await bus.subscribe('order.*', handle, { group: 'inventory' });
    onTestFinished(() => done.resolve());
    const { eventId } = await publish(bus);
    await started.promise;
    const { out } = await finish(['events', 'show', eventId, ...where]);
    expect(out).toContain('  inventory (order.*): under way, or waits for its turn\n');
  });

  it('holdfast events show finds a dead letter whose event is not kept any more', async () => {
    const { bus, where, keyPrefix } = eventBus();
    await subscribeFailing(bus, 'inventory');
    const { eventId } = await publish(bus);
    await vi.waitFor(async () => expect(await json(['events', 'dead', ...where])).toHaveLength(1), SOON);
    await client().xtrim(`${keyPrefix}:events:{order:${partitionOf('o1', 8)}}`, 'MAXLEN', 0);
    const [shown] = await json(['events', 'show', eventId, ...where]);
    expect(shown).toMatchObject({ event: { eventId }, entries: [], deadLetters: [{ group: 'inventory' }] });
  });

  it('holdfast events show fails if there is no such event, though another one was caused by it', async () => {
    const { bus, where, keyPrefix } = eventBus();
    const metadata = { causationId: 'e1' };
    await bus.publish({ eventType: 'order.paid', aggregateId: 'o1', data: {}, metadata });
    const { exitCode, out, err } = await finish(['events', 'show', 'e1', ...where]);
    expect(err).toBe(
      `holdfast: there is no event with this id with the prefix '${keyPrefix}' in Redis at ${new URL(redisUrl()).host}\n`,
    );
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
  });
});

describe('holdfast events redrive', () => {
  /** Gives two events that are dead in `inventory`, the first in `stock` too, and no subscriptions. */
  async function twoDead() {
    const { bus, ...rest } = eventBus();
    const subscriptions = [await subscribeFailing(bus, 'stock')];
    const first = await publish(bus, 'o1');
    const dead = () => json(['events', 'dead', ...rest.where]);
    await vi.waitFor(async () => expect(await dead()).toHaveLength(1), SOON);
    await Promise.all(subscriptions.map((subscription) => subscription.close()));
    const inventory = await subscribeFailing(bus, 'inventory');
    const second = await publish(bus, 'o2');
    await vi.waitFor(async () => expect(await dead()).toHaveLength(3), SOON);
    await inventory.close();
    return { bus, first, second, dead, ...rest };
  }

  it('holdfast events redrive delivers an event to the only group that has it among its dead letters', async () => {
    const { bus, second, where, dead } = await twoDead();
    const { out, exitCode } = await finish(['events', 'redrive', second.eventId, ...where]);
    expect({ out, exitCode }).toEqual({
      out: "1 event redriven to the group 'inventory'\n",
      exitCode: 0,
    });
    expect(await dead()).toHaveLength(2);
    const handled = deferred<string>();
    await bus.subscribe('order.*', ({ eventId }) => handled.resolve(eventId), { group: 'inventory' });
    expect(await handled.promise).toBe(second.eventId);
  });

  it('holdfast events redrive needs to be told the group if several have the event', async () => {
    const { first, where, dead } = await twoDead();
    const { exitCode, out, err } = await finish(['events', 'redrive', first.eventId, ...where]);
    expect(err).toBe(
      'holdfast: the groups inventory, stock have a dead letter of this event: say with --group which one\n',
    );
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
    const args = ['events', 'redrive', first.eventId, '--group', 'stock', ...where];
    expect(await json(args)).toEqual([{ group: 'stock', redriven: 1 }]);
    const left: { group: string }[] = await dead();
    expect(left.map(({ group }) => group)).toEqual(['inventory', 'inventory']);
  });

  it('holdfast events redrive --all delivers all dead letters of a group', async () => {
    const { where, dead } = await twoDead();
    const args = ['events', 'redrive', '--all', '--group', 'inventory', ...where];
    expect((await finish(args)).out).toBe("2 events redriven to the group 'inventory'\n");
    expect(await dead()).toHaveLength(1);
    expect((await finish(args)).out).toBe("no events redriven to the group 'inventory'\n");
  });

  it('holdfast events redrive fails where there is no such dead letter', async () => {
    const { bus, where } = eventBus();
    const { eventId } = await publish(bus);
    const nowhere = await finish(['events', 'redrive', eventId, ...where]);
    expect(nowhere).toMatchObject({
      err: 'holdfast: no group has a dead letter of this event\n',
      exitCode: 1,
    });
    const inGroup = await finish(['events', 'redrive', eventId, '--group', 'stock', ...where]);
    expect(inGroup).toMatchObject({
      err: "holdfast: the group 'stock' has no dead letter of this event\n",
      exitCode: 1,
    });
  });
});

describe('holdfast events groups', () => {
  it('holdfast events groups counts subscriptions, lag and dead letters of each group and pattern', async () => {
    const { bus, createBus, where } = eventBus();
    await createGroup(bus, 'mail');
    await subscribeFailing(bus, 'inventory');
    await subscribeFailing(createBus(), 'inventory');
    await createGroup(bus, 'inventory', 'user.*');
    await publish(bus, 'o1');
    await publish(bus, 'o2');

    await vi.waitFor(async () => {
      const { out } = await finish(['events', 'groups', ...where]);
      expect(out.split('\n').map(words)).toEqual([
        ['GROUP', 'PATTERN', 'MEMBERS', 'LAG', 'DEAD'],
        ['inventory', 'order.*', '2', '0', '2'],
        ['inventory', 'user.*', '0', '0', '0'],
        ['mail', 'order.*', '0', '2', '0'],
        [''],
      ]);
    }, SOON);
    const [inventory] = await json(['events', 'groups', ...where]);
    const counts = { members: 2, lag: 0, deadLetters: 2 };
    expect(inventory).toEqual({ group: 'inventory', pattern: 'order.*', topic: 'order', ...counts });
  });

  it('holdfast events groups shows a group that others have made in Redis', async () => {
    const { bus, where, keyPrefix } = eventBus();
    await publish(bus);
    await client().xgroup('CREATE', `${keyPrefix}:events:{order:0}`, '\x1b[2J', '0', 'MKSTREAM');
    const { out, exitCode } = await finish(['events', 'groups', ...where]);
    expect(words(out.split('\n')[1])).toEqual(['\\u{1b}[2J', '-', '0', '0', '0']);
    expect(exitCode).toBe(0);
  });
});

describe('holdfast events remove-group', () => {
  it('holdfast events remove-group rejects a group that has subscriptions, and says so', async () => {
    const { bus, where } = eventBus();
    const subscription = await bus.subscribe('order.*', () => {}, { group: 'inventory' });
    const remove = ['events', 'remove-group', 'inventory', ...where];
    await vi.waitFor(async () => {
      expect(await json(['events', 'groups', ...where])).toMatchObject([{ members: 1 }]);
    }, SOON);
    expect(await finish(remove)).toEqual({
      exitCode: 1,
      out: '',
      err: "holdfast: the group 'inventory' has subscriptions: close them before it is removed\n",
    });

    await subscription.close();
    const removed = { exitCode: 0, out: "the group 'inventory' is removed\n", err: '' };
    expect(await finish(remove)).toEqual(removed);
    expect(await json(['events', 'groups', ...where])).toEqual([]);
    const again = await finish(remove);
    expect(again.err).toMatch(/^holdfast: there is no group 'inventory' with the prefix /);
    expect(again.exitCode).toBe(1);
  });

  it('holdfast events remove-group --json writes an array', async () => {
    const { bus, where } = eventBus();
    await createGroup(bus, 'inventory');
    const removed = await json(['events', 'remove-group', 'inventory', ...where]);
    expect(removed).toEqual([{ group: 'inventory', removed: true }]);
  });
});

describe('holdfast events', () => {
  it.each([
    ['lag', 'no groups'],
    ['pending', 'no events that have failed or are held'],
    ['dead', 'no dead letters'],
    ['groups', 'no groups'],
  ])('holdfast events %s says where it looked if there is nothing', async (subcommand, nothing) => {
    const { where, keyPrefix } = eventBus();
    const place = `with the prefix '${keyPrefix}' in Redis at ${new URL(redisUrl()).host}`;
    const shown = await finish(['events', subcommand, ...where]);
    expect(shown).toEqual({ exitCode: 0, out: `${nothing} ${place}\n`, err: '' });
    expect((await finish(['events', subcommand, ...where, '--json'])).out).toBe('[]\n');
  });

  it('holdfast events lag says which group has nothing', async () => {
    const { where } = eventBus();
    const { out } = await finish(['events', 'lag', '--group', 'mail', ...where]);
    expect(out).toMatch(/^no groups of the group 'mail' with the prefix /);
  });

  it('holdfast events works on a bus with another number of partitions', async () => {
    const { createBus, where } = eventBus();
    const bus = createBus({ partitions: 3 });
    await createGroup(bus, 'inventory');
    const { eventId } = await publish(bus);
    expect(await json(['events', 'lag', ...where])).toHaveLength(3);
    expect(await json(['events', 'show', eventId, ...where])).toMatchObject([{ event: { eventId } }]);
  });

  it('holdfast events says in one line that Redis is away, without the password', async () => {
    const redis = ['--redis', 'redis://:hunter2@127.0.0.1:1', '--timeout', '100'];
    const { exitCode, out, err } = await finish(['events', 'lag', ...redis]);
    expect(err).toMatch(/^holdfast: Redis at 127\.0\.0\.1:1: there was no connection within 100 ms: .*\n$/);
    expect(err).not.toContain('hunter2');
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
  });
});
