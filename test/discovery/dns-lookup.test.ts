import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { DnsLookup, type DnsName, isAbsence } from '../../src/discovery/dns-lookup.ts';
import { originOf, type ServiceInstance } from '../../src/discovery/service-instance.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { DiscoveryUnavailableError, InvalidInstanceError, TimeoutError } from '../../src/errors.ts';
import { defer, fakeTime, flush, follow, pass, rejectionOf } from '../policies/helpers.ts';
import { dnsError, FakeDns, srv } from './dns-helpers.ts';

const service = 'user-service';
const name = 'users.test';

let dns = new FakeDns();
beforeEach(() => {
  fakeTime();
  dns = new FakeDns();
});
function lookUp(at: Partial<DnsName> = {}, before?: readonly ServiceInstance[]) {
  return new DnsLookup(dns, service, { name, ...at }, before).run(1_000);
}

async function found(at?: Partial<DnsName>, before?: readonly ServiceInstance[]) {
  return (await lookUp(at, before)).instances;
}

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId);

describe('the addresses of a name in DNS', () => {
  it('the addresses of a name in DNS are its instances, at the configured port', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const instances = await found({ port: 8001 });
    expect(instances).toMatchObject([
      { serviceName: service, instanceId: '10.0.0.1:8001', host: '10.0.0.1', port: 8001, protocol: 'http' },
      { instanceId: '10.0.0.2:8001', host: '10.0.0.2', weight: 1, status: 'healthy', metadata: {} },
    ]);
    expect(instances.every(Object.isFrozen)).toBe(true);
  });

  it.each([
    [undefined, 'http://10.0.0.1:80'],
    ['http', 'http://10.0.0.1:80'],
    ['https', 'https://10.0.0.1:443'],
  ] as const)(
    'the addresses of a name in DNS are at the usual port of the protocol: %s',
    async (protocol, origin) => {
      dns.addresses(name, ['10.0.0.1']);
      expect((await found({ protocol })).map(originOf)).toEqual([origin]);
    },
  );

  it('the addresses of a name in DNS are the IPv4 ones where there are both, so that an instance counts once', async () => {
    dns.addresses(name, ['10.0.0.1']);
    dns.addresses(name, ['2001:db8::1']);
    expect(idsOf(await found())).toEqual(['10.0.0.1:80']);
    expect(dns.asked).toEqual(['A users.test']);
  });

  it('the addresses of a name in DNS are the IPv6 ones where there are no others', async () => {
    dns.addresses(name, ['2001:db8::1', '::1']);
    const instances = await found({ port: 8001 });
    expect(instances.map(originOf)).toEqual(['http://[2001:db8::1]:8001', 'http://[::1]:8001']);
    expect(idsOf(instances)).toEqual(['2001:db8::1:8001', 'at:::1:8001']);
  });

  it.each([
    ['A', ['10.0.0.1:80']],
    ['AAAA', ['2001:db8::1:80']],
  ] as const)(
    'the addresses of a name in DNS are only those of the configured type: %s',
    async (type, ids) => {
      dns.addresses(name, ['10.0.0.1']);
      dns.addresses(name, ['2001:db8::1']);
      expect(idsOf(await found({ type }))).toEqual(ids);
      dns.remove(type, name);
      const error = await rejectionOf(lookUp({ type }));
      expect(error).toMatchObject({ message: `DNS has no ${type} records of users.test: ENODATA` });
      expect(dns.asked).toEqual([`${type} users.test`, `${type} users.test`]);
    },
  );

  it('the addresses of a name in DNS may be kept for the shortest of their times to live', async () => {
    dns.set('A', name, [
      { address: '10.0.0.1', ttl: 20 },
      { address: '10.0.0.2', ttl: 7 },
    ]);
    expect(await lookUp()).toMatchObject({ ttl: 7_000 });
  });

  it('the addresses of a name in DNS stand in an order that does not change when the servers rotate them', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    const ids = idsOf(await found());
    dns.addresses(name, ['10.0.0.3', '10.0.0.1', '10.0.0.2']);
    expect(idsOf(await found())).toEqual(ids);
  });

  it('the addresses of a name in DNS stay the same objects, whatever the time, and a new one tells of no start', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const [first] = await found();
    await pass(60_000);
    dns.addresses(name, ['10.0.0.3', '10.0.0.1']);
    const [again, other] = await found({}, [first!]);
    expect(again).toBe(first);
    expect(other).toMatchObject({ host: '10.0.0.3', registeredAt: first!.registeredAt });
  });

  it('the addresses of a name in DNS have one time, though they are read one after the other', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    let now = 1_000;
    vi.spyOn(Date, 'now').mockImplementation(() => now++);
    const times = (await found()).map(({ registeredAt }) => registeredAt);
    expect(new Set(times).size).toBe(1);
  });

  it('the addresses of a name in DNS count once if DNS gives them twice', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.1']);
    expect(await found()).toHaveLength(1);
  });

  it('the addresses of a name in DNS are cut to 1,000, always the same ones', async () => {
    const all = Array.from({ length: 1_100 }, (_, index) => `10.0.${index >> 8}.${index & 255}`);
    dns.addresses(name, all);
    const { instances, flaws } = await lookUp();
    expect(instances).toHaveLength(1_000);
    expect(flaws).toMatchObject([{ message: "DNS has 1100 records for 'user-service': only 1000 are used" }]);
    dns.addresses(name, all.toReversed());
    expect(idsOf(await found())).toEqual(idsOf(instances));
  });
});

describe('a fault in one address family', () => {
  const addressesOf = (last: string, ttl = 30) => [{ address: last, ttl }];

  it.each(['ESERVFAIL', 'EREFUSED', 'ETIMEOUT', 'ECONNREFUSED', 'ECANCELLED'])(
    'a fault in one address family of IPv4 does not hide the IPv6 addresses, and is a flaw of the answer: %s',
    async (code) => {
      dns.set('A', name, dnsError(code));
      dns.addresses(name, ['2001:db8::1', '2001:db8::2'], 60);
      const { instances, ttl, flaws } = await lookUp();
      expect(idsOf(instances)).toEqual(['2001:db8::1:80', '2001:db8::2:80']);
      expect(ttl).toBe(0);
      expect(flaws).toMatchObject([
        { message: `DNS does not tell the A records of users.test: ${code}`, cause: { code } },
      ]);
    },
  );

  it('a fault in one address family of IPv4 leaves the last IPv4 addresses beside the IPv6 ones, until DNS tells them again', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    dns.addresses(name, ['2001:db8::1']);
    const before = await found();
    dns.set('A', name, dnsError('ESERVFAIL'));
    const during = await found({}, before);
    expect(idsOf(during)).toEqual(['10.0.0.1:80', '10.0.0.2:80', '2001:db8::1:80']);
    expect(during.slice(0, 2).every((instance, index) => instance === before[index])).toBe(true);
    expect(idsOf(await found({}, during))).toEqual(idsOf(during));
    dns.addresses(name, ['10.0.0.2']);
    expect(idsOf(await found({}, during))).toEqual(['10.0.0.2:80']);
  });

  it('a fault in one address family of IPv4 that lasts does not hide that the IPv6 addresses change', async () => {
    dns.addresses(name, ['2001:db8::1']);
    const before = await found();
    dns.set('A', name, dnsError('ESERVFAIL'));
    dns.addresses(name, ['2001:db8::2']);
    expect(idsOf(await found({}, before))).toEqual(['2001:db8::2:80']);
  });

  it('a fault in one address family, of IPv6, does not hide the IPv4 addresses, and is no flaw of the answer', async () => {
    dns.addresses(name, ['10.0.0.1']);
    dns.set('AAAA', name, dnsError('ESERVFAIL'));
    expect(await lookUp()).toMatchObject({ instances: [{ host: '10.0.0.1' }], flaws: [] });
    expect(dns.asked).toEqual(['A users.test']);
  });

  it('a fault in one address family of IPv6 is a failure, and no absence, where there are no IPv4 addresses', async () => {
    dns.set('A', name, []);
    dns.set('AAAA', name, dnsError('ESERVFAIL'));
    const error = await rejectionOf(lookUp());
    expect(error).toMatchObject({
      message: 'DNS does not tell the A or AAAA records of users.test: ESERVFAIL',
    });
    expect(isAbsence(error)).toBe(false);
  });

  it('a fault in one address family of IPv4 is a failure, and no absence, where there are no IPv6 addresses', async () => {
    dns.set('A', name, dnsError('EREFUSED'));
    const error = await rejectionOf(lookUp());
    expect(error).toMatchObject({ message: 'DNS does not tell the A records of users.test: EREFUSED' });
    expect(isAbsence(error)).toBe(false);
  });

  it('silence of IPv4 in DNS has the IPv6 addresses looked up after a fifth of the timeout', async () => {
    dns.set('A', name, defer<readonly unknown[]>().promise);
    dns.addresses(name, ['2001:db8::1']);
    const looking = follow(lookUp());
    await pass(199);
    expect(dns.asked).toEqual(['A users.test']);
    await pass(1);
    expect(dns.asked).toEqual(['A users.test', 'AAAA users.test']);
    await pass(800);
    expect(looking.outcome).toMatchObject({
      ok: true,
      value: { instances: [{ host: '2001:db8::1' }], flaws: [{ cause: { name: 'TimeoutError' } }] },
    });
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each<[string, unknown, string]>([
    ['its addresses', addressesOf('10.0.0.1'), '10.0.0.1'],
    ['that it has none', [], '2001:db8::1'],
  ])('slowness of IPv4 in DNS hides no answer that comes in time: %s', async (_what, answer, host) => {
    const slow = defer<readonly unknown[]>();
    dns.set('A', name, slow.promise);
    dns.addresses(name, ['2001:db8::1']);
    const looking = follow(lookUp());
    await pass(900);
    expect(looking.outcome).toBeUndefined();
    slow.resolve(answer as readonly unknown[]);
    await flush();
    expect(looking.outcome).toMatchObject({ ok: true, value: { instances: [{ host }], flaws: [] } });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a fault in one address family of a target of SRV records leaves its last addresses beside the others', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80)]);
    dns.addresses('a.test', ['10.0.0.1']);
    dns.addresses('b.test', ['10.0.0.2']);
    const before = await found({ type: 'SRV' });
    for (const target of ['a.test', 'b.test']) dns.set('A', target, dnsError('ESERVFAIL'));
    dns.addresses('a.test', ['2001:db8::1']);
    const { instances, ttl, flaws } = await lookUp({ type: 'SRV' }, before);
    expect(instances.map(({ host, metadata }) => [host, metadata.target])).toEqual([
      ['10.0.0.1', 'a.test'],
      ['2001:db8::1', 'a.test'],
      ['10.0.0.2', 'b.test'],
    ]);
    expect([ttl, flaws.length]).toEqual([0, 2]);
  });
});

describe('a DNS record that cannot be used', () => {
  it('a DNS record that cannot be used is left out, and the others are used', async () => {
    dns.addresses(name, ['10.0.0.1', 'evil.example/', '10.0.0.2']);
    const { instances, flaws } = await lookUp();
    expect(idsOf(instances)).toEqual(['10.0.0.1:80', '10.0.0.2:80']);
    expect(flaws).toMatchObject([{ name: 'InvalidInstanceError', message: /the host .*evil/ }]);
  });

  it('a DNS record that cannot be used is a failure if there is no other', async () => {
    dns.addresses(name, ['evil.example/']);
    const error = await rejectionOf(lookUp());
    expect(error).toBeInstanceOf(DiscoveryUnavailableError);
    expect(error).toMatchObject({
      message: "DNS has nothing for 'user-service' at users.test that can be used",
      cause: expect.any(InvalidInstanceError),
    });
    expect(isAbsence(error)).toBe(false);
  });

  it.each<[string, unknown[]]>([
    ['addresses without a TTL', ['10.0.0.1']],
    ['an address that is none', [{ address: 5, ttl: 5 }]],
  ])(
    "a DNS record that cannot be used may come from a resolver of the user's: %s",
    async (_what, records) => {
      dns.set('A', name, records);
      expect(await rejectionOf(lookUp())).toBeInstanceOf(DiscoveryUnavailableError);
    },
  );

  it('a DNS record without a time to live is looked up again as soon as allowed', async () => {
    dns.set('A', name, [{ address: '10.0.0.1' }, { address: '10.0.0.2', ttl: 9 }]);
    expect(await lookUp()).toMatchObject({ ttl: 0, instances: [{}, {}] });
  });
});

describe('the targets of service records', () => {
  it('the targets of service records are instances at each of their addresses, with port, weight and priority', async () => {
    dns.set('SRV', name, [
      srv('b.test', 8002, { priority: 10, weight: 5 }),
      srv('a.test', 8001, { priority: 0, weight: 60 }),
    ]);
    dns.addresses('a.test', ['10.0.0.1'], 20);
    dns.addresses('b.test', ['2001:db8::1'], 6);
    const { instances, ttl } = await lookUp({ type: 'SRV', protocol: 'https' });
    expect(instances).toMatchObject([
      {
        instanceId: '10.0.0.1:8001',
        host: '10.0.0.1',
        port: 8001,
        protocol: 'https',
        weight: 60,
        metadata: { priority: '0', target: 'a.test' },
      },
      {
        instanceId: '2001:db8::1:8002',
        port: 8002,
        weight: 5,
        metadata: { priority: '10', target: 'b.test' },
      },
    ]);
    expect(ttl).toBe(6_000);
  });

  it('the targets of service records share their weight among their addresses', async () => {
    dns.set('SRV', name, [srv('a.test', 80, { weight: 9 }), srv('b.test', 80, { weight: 1 })]);
    dns.addresses('a.test', ['10.0.0.1', '10.0.0.2', '10.0.0.3']);
    dns.addresses('b.test', ['10.0.0.4']);
    expect((await found({ type: 'SRV' })).map(({ weight }) => weight)).toEqual([3, 3, 3, 1]);
  });

  it('the targets of service records are looked up once each, however many ports they have', async () => {
    dns.set('SRV', name, [srv('a.test', 8001), srv('A.test.', 8002)]);
    dns.addresses('a.test', ['10.0.0.1']);
    expect(idsOf(await found({ type: 'SRV' }))).toEqual(['10.0.0.1:8001', '10.0.0.1:8002']);
    expect(dns.asked).toEqual(['SRV users.test', 'A a.test']);
  });

  it('the targets of service records are looked up 32 at a time', async () => {
    const hosts = Array.from({ length: 40 }, (_, index) => `t${index}.test`);
    dns.set(
      'SRV',
      name,
      hosts.map((host) => srv(host, 80)),
    );
    const held = hosts.map((host) => {
      const answer = defer<readonly unknown[]>();
      dns.set('A', host, answer.promise);
      return answer;
    });
    const looking = follow(lookUp({ type: 'SRV' }));
    await flush();
    expect(dns.asked).toHaveLength(1 + 32);
    for (const [index, answer] of held.entries()) {
      answer.resolve([{ address: `10.0.0.${index}`, ttl: 1 }]);
    }
    await flush();
    expect(looking.outcome).toMatchObject({ ok: true });
    expect(dns.asked).toHaveLength(1 + 40);
  });

  it('the targets of service records are none if the only target is the root: the service is decidedly not available', async () => {
    for (const root of ['', '.']) {
      dns.set('SRV', name, [srv(root, 0)]);
      expect(await lookUp({ type: 'SRV' })).toEqual({ instances: [], ttl: 0, flaws: [] });
    }
  });

  it('the targets of service records with one address count once, with the highest priority, then the most weight', async () => {
    dns.set('SRV', name, [
      srv('b.test', 80, { priority: 5, weight: 9 }),
      srv('c.test', 80, { priority: 1, weight: 2 }),
      srv('a.test', 80, { priority: 1, weight: 3 }),
    ]);
    for (const target of ['a.test', 'b.test', 'c.test']) dns.addresses(target, ['10.0.0.1']);
    expect(await found({ type: 'SRV' })).toMatchObject([{ weight: 3, metadata: { priority: '1' } }]);
  });

  it('the targets of service records are left out if they cannot be used, and the others are used', async () => {
    dns.set('SRV', name, [srv('a.test', 0), srv('b.test', 80)]);
    for (const target of ['a.test', 'b.test']) dns.addresses(target, ['10.0.0.1']);
    const { instances, flaws } = await lookUp({ type: 'SRV' });
    expect(idsOf(instances)).toEqual(['10.0.0.1:80']);
    expect(flaws).toMatchObject([{ message: /the port .* got 0/ }]);
  });

  it('the targets of service records are gone if DNS has no address of them', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80)]);
    dns.addresses('a.test', ['10.0.0.1']);
    dns.addresses('b.test', ['10.0.0.2'], 9);
    const before = await found({ type: 'SRV' });
    dns.forget('a.test');
    const { instances, ttl, flaws } = await lookUp({ type: 'SRV' }, before);
    expect(idsOf(instances)).toEqual(['10.0.0.2:80']);
    expect(ttl).toBe(9_000);
    expect(flaws).toMatchObject([{ message: 'DNS has no A records of a.test: ENOTFOUND' }]);
  });

  it('the targets of service records keep their addresses if the lookup fails, and are looked up again soon', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('a.test', 81), srv('b.test', 80)]);
    dns.addresses('a.test', ['10.0.0.1', '10.0.0.2']);
    dns.addresses('b.test', ['10.0.0.3']);
    const before = await found({ type: 'SRV' });
    expect(before).toHaveLength(5);
    dns.set('A', 'a.test', dnsError('ESERVFAIL'));
    const { instances, ttl, flaws } = await lookUp({ type: 'SRV' }, before);
    expect(instances).toEqual(before);
    instances.forEach((instance, index) => void expect(instance).toBe(before[index]));
    expect(ttl).toBe(0);
    expect(flaws).toMatchObject([{ message: 'DNS does not tell the A records of a.test: ESERVFAIL' }]);
  });

  it('the targets of service records are used if their answers come within the timeout of the lookup', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80)]);
    dns.set('A', 'a.test', defer<readonly unknown[]>().promise);
    dns.addresses('b.test', ['10.0.0.2']);
    const looking = follow(lookUp({ type: 'SRV' }));
    await pass(999);
    expect(looking.outcome).toBeUndefined();
    await pass(1);
    expect(looking.outcome).toMatchObject({
      ok: true,
      value: { instances: [{ host: '10.0.0.2' }], flaws: [{ cause: { name: 'TimeoutError' } }] },
    });
  });

  it('the targets of service records make a failure if none has an address, and an absence if DNS says so of all', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80)]);
    const absent = await rejectionOf(lookUp({ type: 'SRV' }));
    expect(absent).toMatchObject({ message: 'DNS has no A records of a.test: ENOTFOUND' });
    expect(isAbsence(absent)).toBe(true);
    dns.set('A', 'b.test', dnsError('ESERVFAIL'));
    const failed = await rejectionOf(lookUp({ type: 'SRV' }));
    expect(failed).toMatchObject({ message: 'DNS does not tell the A records of b.test: ESERVFAIL' });
    expect(isAbsence(failed)).toBe(false);
  });

  it('the targets of service records stand in the same order, as the same objects, however the records are rotated', () => {
    const record = fc.record({
      name: fc.constantFrom('a.test', 'b.test', 'c.test'),
      port: fc.integer({ min: 80, max: 82 }),
      priority: fc.integer({ min: 0, max: 2 }),
      weight: fc.integer({ min: 0, max: 2 }),
    });
    dns.addresses('a.test', ['10.0.0.1', '10.0.0.2']);
    dns.addresses('b.test', ['10.0.0.2', '10.0.0.3']);
    dns.addresses('c.test', ['10.0.0.4']);
    const shuffled = fc
      .array(record, { minLength: 1, maxLength: 8 })
      .chain((records) =>
        fc.tuple(
          fc.constant(records),
          fc.shuffledSubarray(records, { minLength: records.length, maxLength: records.length }),
        ),
      );
    return fc.assert(
      fc.asyncProperty(shuffled, async ([records, rotated]) => {
        dns.set('SRV', name, records);
        const before = await found({ type: 'SRV' });
        dns.set('SRV', name, rotated);
        const after = await found({ type: 'SRV' }, before);
        expect(after.length).toBe(before.length);
        expect(after.every((instance, index) => instance === before[index])).toBe(true);
      }),
    );
  });
});

describe('the weight of a service record', () => {
  const weightsOf = async (...records: { priority?: number; weight: number }[]) => {
    dns.set(
      'SRV',
      name,
      records.map((record, index) => srv('a.test', index + 1, record)),
    );
    dns.addresses('a.test', ['10.0.0.1']);
    const instances = await found({ type: 'SRV' });
    return records.map((_, index) => instances.find(({ port }) => port === index + 1)!.weight);
  };

  it('the weight of a service record is the same for all where none has any', async () => {
    expect(await weightsOf({ weight: 0 }, { weight: 0 })).toEqual([1, 1]);
  });

  it('the weight of a service record is next to nothing, but not nothing, where others of the priority have some', async () => {
    expect(await weightsOf({ weight: 0 }, { weight: 1 }, { weight: 65_535 })).toEqual([0.01, 1, 65_535]);
    expect(await weightsOf({ weight: 0 }, { weight: 5, priority: 1 })).toEqual([1, 5]);
  });

  it('the weight of a service record gives the LoadBalancer the shares of RFC 2782, within the priority that comes first', async () => {
    await weightsOf(
      { weight: 0, priority: 1 },
      { weight: 75, priority: 1 },
      { weight: 25, priority: 1 },
      { weight: 100, priority: 2 },
    );
    const list = (await found({ type: 'SRV' })).map(({ serviceName: _, ...instance }) => instance);
    const balancer = new LoadBalancer({
      discovery: new StaticServiceDiscovery({ [service]: list }),
      strategy: 'weighted-round-robin',
      priorities: true,
    });
    const calls = new Map<number, number>();
    for (let call = 0; call < 20_002; call++) {
      const { port } = (await balancer.getInstance(service))!;
      calls.set(port, (calls.get(port) ?? 0) + 1);
    }
    expect(calls.get(1)).toBeGreaterThan(0);
    expect(calls.get(1)).toBeLessThan(5);
    expect(calls.get(2)).toBeCloseTo(15_000, -1);
    expect(calls.get(3)).toBeCloseTo(5_000, -1);
    expect(calls.get(4)).toBeUndefined();
  });
});

describe('a lookup without an answer from DNS', () => {
  it.each([
    ['ESERVFAIL', 'DNS does not tell the A records of users.test: ESERVFAIL', false],
    ['ECONNREFUSED', 'DNS does not tell the A records of users.test: ECONNREFUSED', false],
    ['ETIMEOUT', 'DNS does not tell the A records of users.test: ETIMEOUT', false],
    ['ENOTFOUND', 'DNS has no A records of users.test: ENOTFOUND', true],
  ])(
    'a lookup without an answer from DNS fails naming the records and the code, with the error of DNS as the cause: %s',
    async (code, message, absent) => {
      const cause = dnsError(code);
      dns.set('A', name, cause);
      const error = await rejectionOf(lookUp());
      expect(error).toBeInstanceOf(DiscoveryUnavailableError);
      expect(error).toMatchObject({ message, cause });
      expect(isAbsence(error)).toBe(absent);
      expect(dns.asked).toEqual(absent ? ['A users.test'] : ['A users.test', 'AAAA users.test']);
    },
  );

  it.each([undefined, 'A', 'AAAA', 'SRV'] as const)(
    'a lookup with an empty answer from DNS is an absence too: %s',
    async (type) => {
      for (const empty of ['A', 'AAAA', 'SRV'] as const) dns.set(empty, name, []);
      const error = await rejectionOf(lookUp({ type }));
      expect(error).toMatchObject({
        message: `DNS has no ${type ?? 'A or AAAA'} records of users.test: ENODATA`,
      });
      expect(isAbsence(error)).toBe(true);
    },
  );

  it('a lookup without an answer from DNS fails when its time is over', async () => {
    dns.set('A', name, defer<readonly unknown[]>().promise);
    const looking = follow(lookUp());
    await pass(1_000);
    expect(looking.outcome).toMatchObject({
      ok: false,
      error: { name: 'DiscoveryUnavailableError', cause: expect.any(TimeoutError) },
    });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a lookup without an answer from DNS sends no query once its time is over', async () => {
    dns.set(
      'SRV',
      name,
      Array.from({ length: 50 }, (_, index) => srv(`t${index}.test`, 80)),
    );
    for (let index = 0; index < 50; index++)
      dns.set('A', `t${index}.test`, defer<readonly unknown[]>().promise);
    const looking = follow(lookUp({ type: 'SRV' }));
    await pass(999);
    const { length } = dns.asked;
    expect(new Set(dns.asked.slice(1).map((asked) => asked.split(' ')[1])).size).toBe(32);
    await pass(60_000);
    expect(looking.outcome).toMatchObject({ ok: false });
    expect(dns.asked).toHaveLength(length);
  });
});
