import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { redisUrl, startRedis, startRelay } from '../support/redis.ts';
import { finish, type Running, registry, start } from './helpers.ts';

const SOON = { timeout: 8_000, interval: 20 };
const TIME = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;

/** Waits until a line is written that matches. */
function line(running: Running, pattern: RegExp): Promise<string> {
  return vi.waitFor(() => {
    const found = running.lines.find((text) => pattern.test(text));
    if (found === undefined) throw new Error(`no line matches ${pattern}:\n${running.out}`);
    return found;
  }, SOON);
}

/** From now on time passes as a test waits for something, and in leaps. */
function takeTime(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
}

/**
 * Lets most of the time pass until it looks at all services again, but not what it takes to
 * connect.
 */
async function nextLook(): Promise<void> {
  await vi.advanceTimersByTimeAsync(1_700);
}

function news(running: Running) {
  return running.lines.map((text) => JSON.parse(text));
}

describe('holdfast services --watch', { timeout: 20_000 }, () => {
  it('holdfast services --watch shows the instances, then each that joins, changes and leaves, and exits with 0 on Ctrl-C', async () => {
    const { discovery, register, where } = registry();
    await register('a');
    const watching = start(['services', '--watch', ...where]);
    await line(watching, /^ {2}a .*healthy/);

    await register('b');
    await line(watching, new RegExp(`^${TIME}  user-service  b joined: http://10.0.0.1:8001, healthy$`));
    await discovery.update('user-service', 'a', { status: 'unhealthy' });
    await line(watching, /user-service {2}a changed: status healthy → unhealthy$/);
    await discovery.deregister('user-service', 'b');
    await line(watching, /user-service {2}b left: /);

    watching.interrupt();
    expect(await watching.ended).toBe(0);
    expect(watching.err).toBe('');
  });

  it('holdfast services --watch shows each change as soon as it is published', async () => {
    const { register, where } = registry();
    await register('a');
    const watching = start(['services', '--watch', ...where]);
    await line(watching, /^ {2}a /);
    // It hears what is published once it has subscribed; from then on the next look at all services
    // never comes.
    await register('heard', { weight: 2 });
    await line(watching, /heard joined/);
    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now);

    await register('b');
    await line(watching, /b joined/);
  });

  it('holdfast services --watch distinguishes instances that expired from instances that left', async () => {
    const { register, where } = registry(redisUrl(), { ttl: 300 });
    takeTime();
    const watching = start(['services', 'user-service', '--watch', ...where]);
    await line(watching, /^user-service: no instances/);
    await register('a');
    await line(watching, /user-service {2}a joined/);
    const expired = async () => expect((await finish(['services', ...where])).out).not.toMatch(/^ {2}a /m);
    await vi.waitFor(expired, SOON);
    await nextLook();
    await line(watching, /user-service {2}a expired: /);
  });

  it('holdfast services --watch notices a service that is new', async () => {
    const { register, where } = registry();
    takeTime();
    const watching = start(['services', '--watch', ...where]);
    await line(watching, /^no services with the prefix/);
    await register('o', { serviceName: 'order-service' });
    await nextLook();
    await line(watching, /order-service {2}o joined/);
  });

  it('holdfast services --watch follows only the services that are named', async () => {
    const { register, where } = registry();
    const watching = start(['services', 'order-service', '--watch', ...where]);
    await line(watching, /^order-service: no instances/);
    await register('a');
    await register('o', { serviceName: 'order-service' });
    await line(watching, /order-service {2}o joined/);
    expect(watching.out).not.toContain('user-service');
  });

  it('holdfast services --watch shows an entry that is no registration, escaped', async () => {
    const { register, where, keyPrefix } = registry();
    await register('a');
    const watching = start(['services', '--watch', ...where]);
    await line(watching, /^ {2}a /);
    const redis = new Redis(where[1]!);
    onTestFinished(() => redis.disconnect());
    await redis.zadd(`${keyPrefix}:{user-service}:leases`, Date.now() + 60_000, '\x1b[2J');
    await redis.hset(`${keyPrefix}:{user-service}:instances`, '\x1b[2J', 'x');
    await register('b', { metadata: { version: '1' } });
    await register('b', { metadata: { version: '\x1b[31m' } });
    await line(watching, /user-service {2}! '\\u\{1b\}\[2J' is not a registration: /);
    await line(watching, /b (changed: metadata\.version 1 → \\u\{1b\}\[31m|joined)/);
    expect(watching.out).not.toContain('\x1b');
  });

  it('holdfast services --watch --json writes a line of JSON for each instance at first, then for each change', async () => {
    const { discovery, register, where } = registry();
    await register('a');
    const watching = start(['services', '--watch', '--json', ...where]);
    await line(watching, /"present"/);
    await discovery.update('user-service', 'a', { status: 'unhealthy' });
    await line(watching, /"changed"/);
    await discovery.deregister('user-service', 'a');
    await line(watching, /"left"/);

    const a = (status: string) =>
      expect.objectContaining({ instanceId: 'a', status, origin: 'http://10.0.0.1:8001' });
    const common = { time: expect.stringMatching(new RegExp(`^${TIME}$`)), serviceName: 'user-service' };
    expect(news(watching)).toEqual([
      { ...common, change: 'present', instance: a('healthy') },
      { ...common, change: 'changed', instance: a('unhealthy'), before: a('healthy') },
      { ...common, change: 'left', instance: a('unhealthy') },
    ]);
  });

  it('holdfast services --watch outlives an outage of Redis, says since when it is stale, and goes on', async () => {
    const redis = await startRedis();
    const { register, where } = registry(redis.url);
    await register('a');
    const watching = start(['services', '--watch', ...where, '--timeout', '300']);
    await line(watching, /^ {2}a /);

    await redis.kill();
    await line(watching, new RegExp(`^${TIME}  stale since ${TIME}: .*Redis at 127.0.0.1:${redis.port}`));
    await redis.restart();
    await line(watching, /up to date again$/);
    await register('b');
    await line(watching, /user-service {2}b joined/);
    expect(watching.lines.filter((text) => text.includes('stale since'))).toHaveLength(1);
  });

  it('holdfast services --watch notices that Redis does not respond any more', async () => {
    const redis = await startRedis();
    const relay = await startRelay(redis.port);
    const { register, keyPrefix } = registry(redis.url);
    await register('a');
    const where = ['--redis', relay.url, '--key-prefix', keyPrefix, '--timeout', '200'];
    takeTime();
    const watching = start(['services', '--watch', '--json', ...where]);
    await line(watching, /"present"/);
    relay.block();
    await nextLook();
    await line(watching, /"stale","reason":"Redis at .* did not respond within 200 ms/);
    await relay.open();
    await nextLook();
    await line(watching, /"fresh"/);
  });

  it('holdfast services --watch fails if Redis is away at the beginning', async () => {
    const args = ['services', '--watch', '--redis', 'redis://127.0.0.1:1', '--timeout', '100'];
    expect(await finish(args)).toEqual({
      exitCode: 1,
      out: '',
      err: expect.stringMatching(/^holdfast: Redis at 127\.0\.0\.1:1: there was no connection/),
    });
  });

  it('holdfast services --watch exits with 0 on Ctrl-C even before Redis was reached', async () => {
    const watching = start(['services', '--watch', '--redis', 'redis://127.0.0.1:1']);
    watching.interrupt();
    expect(await watching.ended).toBe(0);
    expect(watching.err).toBe('');
  });

  it('holdfast services --watch exits with 0 if its reader goes away', async () => {
    const { register, where } = registry();
    await register('a');
    const writeError = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    expect(await finish(['services', '--watch', ...where], { writeError })).toMatchObject({
      exitCode: 0,
      err: '',
    });
  });
});

describe('holdfast services --watch on a terminal', { timeout: 20_000 }, () => {
  /** Gives the screen after all output: it is drawn from the top each time. */
  function screen({ out }: Running): string[] {
    const drawn = out.split('\x1b[H').at(-1)!;
    return drawn.replace('\x1b[J', '').replaceAll('\x1b[K', '').split('\n');
  }

  it('holdfast services --watch on a terminal draws the services anew when something changes', async () => {
    const { register, where } = registry();
    await register('a');
    const watching = start(['services', '--watch', ...where], { terminal: { columns: 120, rows: 30 } });
    await vi.waitFor(() => expect(screen(watching)).toContainEqual(expect.stringMatching(/^ {2}a /)), SOON);
    await register('b');
    await vi.waitFor(() => expect(screen(watching)).toContainEqual(expect.stringMatching(/^ {2}b /)), SOON);

    expect(screen(watching)[0]).toMatch(/^Services with the prefix '.*' in Redis at /);
    expect(screen(watching)[1]).toMatch(new RegExp(`^up to date at ${TIME}$`));
    expect(screen(watching)).toContainEqual(expect.stringMatching(/^user-service: 2 instances/));
    expect(watching.out.split('\x1b[2J')).toHaveLength(2);
  });

  it('holdfast services --watch on a terminal keeps heartbeats up to date though they are no change', async () => {
    const { register, where } = registry();
    await register('a');
    takeTime();
    const watching = start(['services', '--watch', ...where], { terminal: { columns: 120, rows: 30 } });
    const times = () => screen(watching).find((text) => text.startsWith('  a '));
    const first = await vi.waitFor(() => {
      if (times() === undefined) throw new Error('nothing drawn');
      return times();
    }, SOON);
    await nextLook();
    await vi.waitFor(() => expect(times()).not.toBe(first), SOON);
  });

  it('holdfast services --watch on a terminal keeps to the size of the terminal', async () => {
    const { register, where } = registry();
    for (let count = 0; count < 10; count++) await register(`instance-${count}`);
    const watching = start(['services', '--watch', ...where], { terminal: { columns: 30, rows: 8 } });
    await vi.waitFor(() => expect(watching.out).toContain('\x1b[J'), SOON);
    expect(screen(watching)).toHaveLength(8);
    expect(screen(watching).at(-2)).toBe('… and 9 lines more');
    for (const text of screen(watching)) expect(text.length).toBeLessThanOrEqual(30);
  });

  it('holdfast services --watch on a terminal says in the head that Redis is away', async () => {
    const redis = await startRedis();
    const { register, where } = registry(redis.url);
    await register('a');
    const args = ['services', '--watch', ...where, '--timeout', '300'];
    const watching = start(args, { terminal: { columns: 200, rows: 30 } });
    await vi.waitFor(() => expect(screen(watching)).toContainEqual(expect.stringMatching(/^ {2}a /)), SOON);
    await redis.kill();
    await vi.waitFor(() => expect(screen(watching)[1]).toMatch(new RegExp(`^stale since ${TIME}: `)), SOON);
    expect(screen(watching)).toContainEqual(expect.stringMatching(/^ {2}a /));
  });

  it('holdfast services --watch does not draw on a terminal that cannot', async () => {
    const { register, where } = registry();
    await register('a');
    const env = { TERM: 'dumb' };
    const watching = start(['services', '--watch', ...where], { env, terminal: { columns: 80, rows: 24 } });
    await line(watching, /^ {2}a /);
    expect(watching.out).not.toContain('\x1b');
  });
});
