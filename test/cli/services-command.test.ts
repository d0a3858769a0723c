import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished } from 'vitest';
import { redisUrl, startRedis } from '../support/redis.ts';
import { finish, registry } from './helpers.ts';

function client(url = redisUrl()): Redis {
  const redis = new Redis(url);
  onTestFinished(() => redis.disconnect());
  return redis;
}

/**
 * Columns in which nothing depends on the time: HEARTBEAT and EXPIRES are checked to be time spans.
 */
function withoutTimes(table: string): string[] {
  return table.split('\n').map((line) => line.replace(/\d+\.\d s {2,}\d+ (s|min) {2,}/, '<age> <expiry> '));
}

describe('holdfast services', () => {
  it('holdfast services shows each service in a block, with its instances by id', async () => {
    const { register, where } = registry();
    await register('b', { zone: 'eu-west-1a', weight: 3, metadata: { version: '1.4.2' } });
    await register('a', { status: 'unhealthy' });
    await register('o', { serviceName: 'order-service', host: '::1', port: 443, protocol: 'https' });

    const { exitCode, out, err } = await finish(['services', ...where]);

    expect(withoutTimes(out)).toEqual([
      expect.stringMatching(/^order-service: 1 instance, registry version \d{16}$/),
      '  INSTANCE  ORIGIN             STATUS   WEIGHT  ZONE  HEARTBEAT  EXPIRES  VERSION',
      '  o         https://[::1]:443  healthy  1       -     <age> <expiry> -',
      '',
      expect.stringMatching(/^user-service: 2 instances, registry version \d{16}$/),
      '  INSTANCE  ORIGIN                STATUS     WEIGHT  ZONE        HEARTBEAT  EXPIRES  VERSION',
      '  a         http://10.0.0.1:8001  unhealthy  1       -           <age> <expiry> -',
      '  b         http://10.0.0.1:8001  healthy    3       eu-west-1a  <age> <expiry> 1.4.2',
      '',
    ]);
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  });

  it('holdfast services tells the age of the last heartbeat by the clock of Redis', async () => {
    const { register, where, keyPrefix } = registry();
    await register('a');
    await client().zincrby(`${keyPrefix}:{user-service}:leases`, -45_000, 'a');

    const { out } = await finish(['services', ...where, '--json']);

    const { heartbeatAge, expiresIn } = JSON.parse(out)[0].instances[0];
    expect(heartbeatAge).toBeGreaterThanOrEqual(45_000);
    expect(heartbeatAge).toBeLessThan(50_000);
    expect(heartbeatAge + expiresIn).toBe(90_000);
  });

  it('holdfast services --json writes one array', async () => {
    const { register, where } = registry();
    const instance = await register('a', { metadata: { version: '2' } });
    await register('o', { serviceName: 'order-service' });

    const { out, exitCode } = await finish(['services', ...where, '--json']);

    expect(JSON.parse(out)).toEqual([
      expect.objectContaining({ serviceName: 'order-service' }),
      {
        serviceName: 'user-service',
        version: expect.any(Number),
        now: expect.any(Number),
        instances: [
          {
            ...JSON.parse(JSON.stringify(instance)),
            lastHeartbeat: expect.any(Number),
            origin: 'http://10.0.0.1:8001',
            heartbeatAge: expect.any(Number),
            expiresIn: expect.any(Number),
          },
        ],
        invalid: [],
      },
    ]);
    expect(exitCode).toBe(0);
  });

  it('holdfast services shows only the services that are named, and says where one has no instances', async () => {
    const { register, where } = registry();
    await register('a');
    await register('o', { serviceName: 'order-service' });

    const { out } = await finish(['services', 'nobody', 'order-service', ...where]);

    expect(out).toMatch(/^nobody: no instances\n\norder-service: 1 instance,/);
    expect(out).not.toContain('user-service');
  });

  it('holdfast services says where it looked if there is nothing', async () => {
    const { where, keyPrefix } = registry();
    const { host } = new URL(redisUrl());
    const { out, exitCode } = await finish(['services', ...where]);
    expect(out).toBe(`no services with the prefix '${keyPrefix}' in Redis at ${host}\n`);
    expect(exitCode).toBe(0);
    expect((await finish(['services', ...where, '--json'])).out).toBe('[]\n');
  });

  it('holdfast services shows an entry that is no registration in a line with the reason, escaped', async () => {
    const { register, where, keyPrefix } = registry();
    await register('a', { metadata: { version: '\x1b[2J\x9b31m' } });
    const redis = client();
    const plant = async (id: string, record: string) => {
      await redis.hset(`${keyPrefix}:{user-service}:instances`, id, record);
      await redis.zadd(`${keyPrefix}:{user-service}:leases`, Date.now() + 60_000, id);
    };
    await plant('\x1b]0;evil\x07\nb', 'nothing');
    await plant('c', '1 1000 {"host":"\\u001b[31m","port":1}');
    await plant('d', '1 1000 \x1b[31m');

    const { out, exitCode } = await finish(['services', ...where]);

    expect(out).toContain('\\u{1b}[2J\\u{9b}31m');
    expect(out).toContain(
      "'\\u{1b}]0;evil\\u{7}\\u{a}b' is not a registration: it must be '<epoch> <ttl> <JSON>'\n",
    );
    expect(out).toContain("'c' is not a registration: the host of an instance must be");
    expect(out).toContain("'d' is not a registration: ");
    expect(out.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
    expect(out).toContain('user-service: 1 instance,');
    expect(exitCode).toBe(0);

    const json = (await finish(['services', ...where, '--json'])).out;
    expect(json.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
    expect(JSON.parse(json)[0].invalid.map(({ instanceId }: { instanceId: string }) => instanceId)).toEqual([
      '\x1b]0;evil\x07\nb',
      'c',
      'd',
    ]);
  });

  it('holdfast services shows the others where one service cannot be read', async () => {
    const { register, where, keyPrefix } = registry();
    await register('a');
    await client().set(`${keyPrefix}:{broken}:instances`, 'a string');

    const { out, exitCode } = await finish(['services', 'broken', 'user-service', ...where]);

    expect(out).toMatch(
      /^broken: no instances\n {2}! cannot be read: WRONGTYPE .*\n\nuser-service: 1 instance,/,
    );
    expect(exitCode).toBe(0);
  });

  it('holdfast services shows more services than it reads at once', async () => {
    const { register, where } = registry();
    const names = Array.from({ length: 120 }, (_, index) => `service-${String(index).padStart(3, '0')}`);
    await Promise.all(names.map((serviceName) => register('a', { serviceName })));

    const { out } = await finish(['services', ...where, '--json']);

    const reports: { serviceName: string; instances: unknown[] }[] = JSON.parse(out);
    expect(reports.map(({ serviceName }) => serviceName)).toEqual(names);
    expect(reports.every(({ instances }) => instances.length === 1)).toBe(true);
  });

  it('holdfast services says in one line that Redis is away', async () => {
    const args = ['services', '--redis', 'redis://:hunter2@127.0.0.1:1', '--timeout', '100'];
    const { exitCode, out, err } = await finish(args);
    expect(err).toMatch(
      /^holdfast: Redis at 127\.0\.0\.1:1: there was no connection within 100 ms: .*ECONNREFUSED.*\n$/,
    );
    expect(err).not.toContain('hunter2');
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
  });

  it('holdfast services says in one line that Redis rejects it, without the password', async () => {
    const redis = await startRedis({ args: ['--requirepass', 'right'] });
    const args = ['services', '--timeout', '500'];
    const { exitCode, err } = await finish(args, {
      env: { REDIS_URL: `redis://:hunter2@127.0.0.1:${redis.port}` },
    });
    expect(err).toMatch(/^holdfast: Redis at 127\.0\.0\.1:\d+.*WRONGPASS.*\n$/);
    expect(err).not.toContain('hunter2');
    expect(exitCode).toBe(1);
  });

  it.each(['redis://:hunter2%@127.0.0.1:1', 'redis://:hunter2@127.0.0.1:1?keyPrefix=x'])(
    'holdfast services rejects %s, which looks like a URL of Redis and cannot be used',
    async (url) => {
      const { exitCode, err } = await finish(['services', '--redis', url]);
      expect(err).toMatch(/^holdfast: the URL of Redis .*\n$/);
      expect(err).not.toContain('hunter2');
      expect(exitCode).toBe(2);
    },
  );

  it('holdfast services hides the password where Redis repeats it', async () => {
    const redis = await startRedis();
    await client(redis.url).acl('SETUSER', 'default', '-evalsha', '-eval', '-smembers');
    const url = `redis://:smembers@127.0.0.1:${redis.port}`;
    const { err } = await finish(['services', '--redis', url]);
    expect(err).toMatch(/NOPERM.*'\*\*\*'/);
    expect(err).not.toContain('smembers');
  });
});

describe('holdfast', () => {
  it('holdfast prints its usage, and its version', async () => {
    const help = await finish(['--help']);
    expect(help).toMatchObject({ exitCode: 0, err: '' });
    for (const option of ['--redis', '--key-prefix', '--watch', '--json', '--timeout', 'REDIS_URL']) {
      expect(help.out).toContain(option);
    }
    const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
    expect(await finish(['--version'])).toEqual({ exitCode: 0, out: `${version}\n`, err: '' });
  });

  it('holdfast exits with code 2 if it does not understand the command line', async () => {
    const { exitCode, out, err } = await finish(['servicse']);
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' });
    expect(err).toBe(
      "holdfast: there is no command 'servicse': services, events, sagas, gateway (holdfast --help lists the commands and options)\n",
    );
  });

  it('holdfast exits with 0 if its reader goes away', async () => {
    const writeError = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    expect(await finish(['--help'], { writeError })).toEqual({ exitCode: 0, out: '', err: '' });
  });

  it('holdfast fails if the output cannot be written', async () => {
    const writeError = Object.assign(new Error('write ENOSPC'), { code: 'ENOSPC' });
    const { exitCode, err } = await finish(['--help'], { writeError });
    expect(err).toBe('holdfast: the output cannot be written: write ENOSPC\n');
    expect(exitCode).toBe(1);
  });
});
