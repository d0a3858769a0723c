import { describe, expect, it, onTestFinished } from 'vitest';
import { InMemoryEventBus, RedisError } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { RedisInbox, type RedisInboxOptions } from '../../src/redis/index.ts';
import { Recorder } from '../events/recorder.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';
import { connect } from './event-buses.ts';

function inboxOf(options: Partial<RedisInboxOptions> = {}): RedisInbox {
  const inbox = new RedisInbox({ redis: redisUrl(), keyPrefix: uniquePrefix(), ...options });
  onTestFinished(() => inbox.close());
  return inbox;
}

describe('a Redis inbox', () => {
  it('has each event handled once by each group, in all processes', async () => {
    const keyPrefix = uniquePrefix();
    const [one, other] = [inboxOf({ keyPrefix }), inboxOf({ keyPrefix })];
    const handled: string[] = [];
    expect(await one.process('g', 'e1', () => handled.push('g'))).toBe(true);
    expect(await other.process('g', 'e1', () => handled.push('again'))).toBe(false);
    expect(await other.process('h', 'e1', () => handled.push('h'))).toBe(true);
    expect(await inboxOf().process('g', 'e1', () => handled.push('other prefix'))).toBe(true);
    expect(handled).toEqual(['g', 'h', 'other prefix']);
  });

  it('has a second delivery wait for the first, and handled if that fails', async () => {
    const keyPrefix = uniquePrefix();
    const [one, other] = [inboxOf({ keyPrefix }), inboxOf({ keyPrefix })];
    const [begun, gate] = [deferred<void>(), deferred<void>()];
    const first = one.process('g', 'e1', async () => {
      begun.resolve();
      await gate.promise;
    });
    await begun.promise;
    let handled = false;
    const second = other.process('g', 'e1', () => {
      handled = true;
    });
    gate.reject(new Error('no stock'));
    await expect(first).rejects.toThrow('no stock');
    expect(await second).toBe(true);
    expect(handled).toBe(true);
  });

  it('forgets an event after its ttl', async () => {
    const keyPrefix = uniquePrefix();
    const inbox = inboxOf({ keyPrefix, ttl: 60_000 });
    await inbox.process('g', 'e1', () => {});
    const redis = connect();
    const [key] = await redis.keys(`${keyPrefix}*`);
    expect(await redis.pttl(key!)).toBeGreaterThan(50_000);
    await redis.pexpire(key!, 0);
    expect(await inbox.process('g', 'e1', () => {})).toBe(true);
  });

  it('remembers events in a full Redis too', async () => {
    const server = await startRedis();
    await connect(server.url).config('SET', 'maxmemory', '1');
    const inbox = inboxOf({ redis: server.url });
    expect(await inbox.process('g', 'e1', () => {})).toBe(true);
    expect(await inbox.process('g', 'e1', () => {})).toBe(false);
  });

  it('fails the attempt where Redis is away, so that no event is taken as handled', async () => {
    const server = await startRedis();
    const inbox = inboxOf({ redis: server.url, timeout: 200 });
    await server.kill();
    let handled = false;
    const processing = inbox.process('g', 'e1', () => {
      handled = true;
    });
    await expect(processing).rejects.toThrow(RedisError);
    expect(handled).toBe(false);
  });

  it('keeps a bus from handling an event that is published twice', async () => {
    const bus = new InMemoryEventBus({ source: 's' });
    onTestFinished(() => bus.close());
    const recorder = new Recorder();
    await bus.subscribe('order.created', recorder.handle, { group: 'g', inbox: inboxOf() });
    const event = { eventType: 'order.created', aggregateId: 'o1' };
    await bus.publish({ ...event, data: { n: 1 }, eventId: 'e1' });
    await bus.publish({ ...event, data: { n: 2 }, eventId: 'e1' });
    await bus.publish({ ...event, data: { n: 3 }, eventId: 'e2' });
    await recorder.reach(2);
    expect(recorder.numbers).toEqual([1, 3]);
  });
});
