import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

const service = 'user-service';
const at = (instanceId: string) => ({ serviceName: service, instanceId, host: '127.0.0.1', port: 1 });

interface Registry {
  readonly redis: Redis;
  readonly prefix: string;
  readonly healed: { serviceName: string; keys: readonly string[] }[];
  keyOf(name: string): string;
  discover(): RedisServiceDiscovery;
}

function open(): Registry {
  const redis = new Redis(redisUrl());
  const prefix = uniquePrefix();
  const healed: Registry['healed'] = [];
  onTestFinished(() => redis.disconnect());
  return {
    redis,
    prefix,
    healed,
    keyOf: (name) => `${prefix}:{${service}}:${name}`,
    discover: () => {
      const discovery = new RedisServiceDiscovery({
        redis: redisUrl(),
        keyPrefix: prefix,
        ttl: 1_500,
        refreshInterval: 200,
        allowLoopback: true,
      });
      discovery.on('healed', (event) => healed.push(event));
      onTestFinished(() => discovery.close());
      return discovery;
    },
  };
}

type Spoil = (registry: Registry) => Promise<unknown>;

const nonsense: [what: string, key: string, Spoil][] = [
  ['instances that are a string', 'instances', ({ redis, keyOf }) => redis.set(keyOf('instances'), 'x')],
  [
    'leases that are a hash',
    'leases',
    async ({ redis, keyOf }) => {
      await redis.del(keyOf('leases'));
      await redis.hset(keyOf('leases'), 'a', 'b');
    },
  ],
  [
    'statuses that are a list',
    'statuses',
    async ({ redis, keyOf }) => {
      await redis.del(keyOf('statuses'));
      await redis.lpush(keyOf('statuses'), 'a');
    },
  ],
  [
    'a meta that is a set',
    'meta',
    async ({ redis, keyOf }) => {
      await redis.del(keyOf('meta'));
      await redis.sadd(keyOf('meta'), 'a');
    },
  ],
  [
    'a longest ttl that is no number',
    'meta',
    ({ redis, keyOf }) => redis.hset(keyOf('meta'), 'longest', 'abc'),
  ],
  [
    'a longest ttl beyond all bounds',
    'meta',
    ({ redis, keyOf }) => redis.hset(keyOf('meta'), 'longest', '9'.repeat(30)),
  ],
  ['a version that is no number', 'meta', ({ redis, keyOf }) => redis.hset(keyOf('meta'), 'version', '-1e3')],
  [
    'the highest version that there is',
    'meta',
    ({ redis, keyOf }) => redis.hset(keyOf('meta'), 'version', String(2n ** 63n - 1n)),
  ],
  [
    'a version that cannot be counted up exactly',
    'meta',
    ({ redis, keyOf }) => redis.hset(keyOf('meta'), 'version', String(2n ** 53n)),
  ],
];

describe('nonsense at the keys of a service', () => {
  it.each(nonsense)('such as %s does not keep an instance from registering', async (_what, key, spoil) => {
    const registry = open();
    await spoil(registry);
    const discovery = registry.discover();
    await discovery.register(at('u1'));
    expect(registry.healed).toEqual([{ serviceName: service, keys: [registry.keyOf(key)] }]);
    expect(await discovery.instances(service)).toMatchObject([{ instanceId: 'u1' }]);
    expect(await discovery.heartbeat(service, 'u1')).toBe(true);
    await discovery.register(at('u2'));
    expect(registry.healed).toHaveLength(1);
  });

  it.each(nonsense)(
    'such as %s is healed by the heartbeats of those that are there',
    async (_what, key, spoil) => {
      const registry = open();
      const [one, other, watching] = [registry.discover(), registry.discover(), registry.discover()];
      await one.register(at('u1'));
      await other.register(at('u2'));
      await vi.waitFor(async () => expect(await watching.instances(service)).toHaveLength(2));
      await spoil(registry);
      await vi.waitFor(async () => {
        await Promise.all([one.heartbeat(service, 'u1'), other.heartbeat(service, 'u2')]);
        expect(registry.healed).toEqual([{ serviceName: service, keys: [registry.keyOf(key)] }]);
        expect(await registry.redis.zrange(registry.keyOf('leases'), '0', '-1')).toEqual(['u1', 'u2']);
        expect(await watching.instances(service)).toHaveLength(2);
        expect(watching.isStale(service)).toBe(false);
      });
    },
  );

  it('under its own id, such as an epoch that no process can have, does not keep an instance from registering', async () => {
    const registry = open();
    await registry.redis.hset(registry.keyOf('instances'), 'u1', `${'9'.repeat(30)} 90000 {}`);
    const discovery = registry.discover();
    await discovery.register(at('u1'));
    await registry.redis.hset(registry.keyOf('instances'), 'u1', `${'9'.repeat(30)} 90000 {}`);
    await discovery.register({ ...at('u1'), weight: 3 });
    expect(await discovery.instances(service)).toMatchObject([{ instanceId: 'u1', weight: 3 }]);
  });

  it('at the names of all services is healed by whoever registers', async () => {
    const registry = open();
    await registry.redis.set(`${registry.prefix}:services`, 'x');
    const discovery = registry.discover();
    await discovery.register(at('u1'));
    expect(registry.healed).toEqual([{ serviceName: service, keys: [`${registry.prefix}:services`] }]);
    expect(await discovery.services()).toEqual([service]);
  });
});

describe('invalid entries', () => {
  it('are each warned of once, however many there are and however often they are read', async () => {
    const registry = open();
    const discovery = registry.discover();
    await discovery.register(at('u1'));
    const count = 1_500;
    for (let first = 0; first < count; first += 500) {
      const ids = Array.from({ length: 500 }, (_, index) => `bad-${first + index}`);
      await registry.redis.hset(registry.keyOf('instances'), Object.fromEntries(ids.map((id) => [id, 'x'])));
      await registry.redis.zadd(
        registry.keyOf('leases'),
        ...ids.flatMap((id) => [String(Date.now() + 60_000), id]),
      );
    }
    const warnings: string[] = [];
    const emitWarning = vi.spyOn(process, 'emitWarning').mockImplementation((warning) => {
      warnings.push(String(warning));
    });
    onTestFinished(() => emitWarning.mockRestore());
    let invalid = 0;
    discovery.on('invalid-entry', () => invalid++);
    await discovery.instances(service);
    await registry.redis.hincrby(registry.keyOf('meta'), 'version', '1');
    await vi.waitFor(() => expect(invalid).toBeGreaterThanOrEqual(2 * count));
    expect(warnings).toHaveLength(count);
    expect(new Set(warnings).size).toBe(count);
  });
});
