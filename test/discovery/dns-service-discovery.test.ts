import { execFile } from 'node:child_process';
import { Resolver } from 'node:dns/promises';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import type { DnsAddressRecord } from '../../src/discovery/dns-lookup.ts';
import {
  DnsServiceDiscovery,
  type DnsServiceDiscoveryEvents,
  type DnsServiceDiscoveryOptions,
} from '../../src/discovery/dns-service-discovery.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';
import { ClosedError, DiscoveryUnavailableError, InvalidInstanceError } from '../../src/errors.ts';
import { defer, fakeTime, fling, flush, follow, pass, rejectionOf } from '../policies/helpers.ts';
import { startDnsServer } from '../support/dns-server.ts';
import { dnsError, FakeDns, srv } from './dns-helpers.ts';

const service = 'user-service';
const name = 'users.test';

let dns = new FakeDns();
beforeEach(() => {
  fakeTime();
  dns = new FakeDns();
});
function discoveryOf(options: Partial<DnsServiceDiscoveryOptions> = {}): DnsServiceDiscovery {
  const discovery = new DnsServiceDiscovery({
    services: { [service]: { name } },
    resolver: dns,
    random: () => 0,
    ...options,
  });
  onTestFinished(() => discovery.close());
  return discovery;
}

const hostsOf = (instances: readonly ServiceInstance[]) => instances.map(({ host }) => host);

/** The hosts that each notification told of. */
function watched(discovery: DnsServiceDiscovery, serviceName = service) {
  const told: string[][] = [];
  const unsubscribe = discovery.watch(serviceName, (instances) => told.push(hostsOf(instances)));
  return { told, unsubscribe };
}

function failuresOf(discovery: DnsServiceDiscovery): string[] {
  const failures: string[] = [];
  discovery.on('failure', ({ serviceName, error }) => failures.push(`${serviceName}: ${error.message}`));
  return failures;
}

describe('a service that is used', () => {
  it('a service of DNS is looked up once, however many callers use it; from then on every caller gets the known list', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const discovery = discoveryOf();
    const [one, other] = await Promise.all([discovery.instances(service), discovery.instances(service)]);
    expect(hostsOf(one)).toEqual(['10.0.0.1', '10.0.0.2']);
    expect(other).toBe(one);
    expect(await discovery.instances(service)).toBe(one);
    expect(hostsOf(await discovery.healthyInstances(service))).toEqual(['10.0.0.1', '10.0.0.2']);
    expect(dns.asked).toEqual(['A users.test']);
    for (const list of [one, await discovery.healthyInstances(service)]) {
      expect(Object.isFrozen(list)).toBe(true);
    }
  });

  it('a service of DNS has no instances if no DNS name is configured for it, whatever its name', async () => {
    const discovery = discoveryOf();
    for (const other of ['payment-service', '__proto__', 'constructor', '']) {
      const instances = await discovery.instances(other);
      expect(instances).toEqual([]);
      expect(Object.isFrozen(instances)).toBe(true);
      discovery.watch(other, () => {})();
    }
    expect(dns.asked).toEqual([]);
  });

  it('a service of DNS has the DNS name that a function gives, if that is not undefined', async () => {
    dns.addresses('users.mesh.test', ['10.0.0.1']);
    const discovery = discoveryOf({
      services: (serviceName) =>
        serviceName === 'nobody' ? undefined : { name: `${serviceName}.mesh.test`, port: 8001 },
    });
    expect(await discovery.instances('users')).toMatchObject([{ serviceName: 'users', port: 8001 }]);
    expect(await discovery.instances('nobody')).toEqual([]);
    expect(dns.asked).toEqual(['A users.mesh.test']);
  });

  it.each(['users/..', 'users mesh', '', 'users..', 'users\0', 'ü', 'x'.repeat(64)])(
    'a service of DNS is not looked up under an invalid DNS name: %j',
    async (serviceName) => {
      const discovery = discoveryOf({ services: (any) => ({ name: `${any}.mesh.test` }) });
      const error = await rejectionOf(discovery.instances(serviceName));
      expect(error).toBeInstanceOf(DiscoveryUnavailableError);
      expect(error).toMatchObject({ cause: { message: /option 'name' must be a name in DNS/ } });
      expect(() => discovery.watch(serviceName, () => {})).toThrow(DiscoveryUnavailableError);
      expect(dns.asked).toEqual([]);
    },
  );

  it('a service of DNS fails with the error of the function that should give its DNS name', async () => {
    const cause = new Error('broken');
    const discovery = discoveryOf({ services: () => fling(cause) });
    const error = await rejectionOf(discovery.instances(service));
    expect(error).toBeInstanceOf(DiscoveryUnavailableError);
    expect(error).toMatchObject({ message: "the DNS name of 'user-service' is not known", cause });
  });

  it('a service of DNS takes heartbeats for the ids of its instances, and no registrations', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    expect(await discovery.heartbeat(service, '10.0.0.1:80')).toBe(true);
    expect(await discovery.heartbeat(service, '10.0.0.2:80')).toBe(false);
    expect(await discovery.heartbeat('payment-service', '10.0.0.1:80')).toBe(false);
    for (const refused of [discovery.register(), discovery.deregister()]) {
      const error = await rejectionOf(refused);
      expect(error).toBeInstanceOf(InvalidInstanceError);
      expect(error).toMatchObject({ message: /^DNS .*: use RedisServiceDiscovery$/ });
    }
  });
});

describe('a refresh from DNS', () => {
  /** When the service was looked up, in milliseconds from the start, up to a time. */
  async function lookups(until: number, options?: Partial<DnsServiceDiscoveryOptions>): Promise<number[]> {
    const discovery = discoveryOf(options);
    const start = performance.now();
    const at: number[] = [];
    const resolve4 = dns.resolve4.bind(dns);
    dns.resolve4 = (asked) => {
      at.push(performance.now() - start);
      return resolve4(asked);
    };
    watched(discovery);
    await pass(until);
    await discovery.close();
    return at;
  }

  it('a refresh from DNS comes when the time to live of the answer is over', async () => {
    dns.addresses(name, ['10.0.0.1'], 7);
    expect(await lookups(21_000)).toEqual([0, 7_000, 14_000, 21_000]);
  });

  it.each([
    [0, {}, [0, 5_000, 10_000]],
    [3_600, {}, [0, 30_000, 60_000]],
    [2 ** 32 - 1, {}, [0, 30_000, 60_000]],
    [0, { minTtl: 1_000 }, [0, 1_000, 2_000]],
    [1, { minTtl: 40_000 }, [0, 40_000, 80_000]],
    [3_600, { maxTtl: 2_000 }, [0, 2_000, 4_000]],
    [3_600, { maxTtl: 600_000 }, [0, 600_000, 1_200_000]],
  ])(
    'a refresh from DNS comes within minTtl and maxTtl: a TTL of %i s with %o',
    async (ttl, options, times) => {
      dns.addresses(name, ['10.0.0.1'], ttl);
      expect(await lookups(times[2]!, options)).toEqual(times);
    },
  );

  it('a refresh from DNS comes up to a tenth later at random', async () => {
    dns.addresses(name, ['10.0.0.1'], 10);
    const random = vi.fn().mockReturnValueOnce(0.5).mockReturnValueOnce(1).mockReturnValue(0);
    expect(await lookups(31_500, { random })).toEqual([0, 10_500, 21_500, 31_500]);
  });

  it('a refresh from DNS comes in time though the clock of the host jumps', async () => {
    dns.addresses(name, ['10.0.0.1'], 10);
    const discovery = discoveryOf();
    watched(discovery);
    await pass(5_000);
    for (const jump of [-3_600_000, 7_200_000]) vi.setSystemTime(Date.now() + jump);
    await pass(4_999);
    expect(dns.asked).toHaveLength(1);
    await pass(1);
    expect(dns.asked).toHaveLength(2);
  });

  it('a refresh from DNS tells watchers of a change once, and of nothing else', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const discovery = discoveryOf();
    const [one, other] = [watched(discovery), watched(discovery)];
    const before = await discovery.instances(service);
    dns.addresses(name, ['10.0.0.2', '10.0.0.1']);
    await pass(30_000);
    expect(dns.asked).toHaveLength(2);
    expect(await discovery.instances(service)).toBe(before);
    dns.addresses(name, ['10.0.0.3', '10.0.0.2'], 10);
    await pass(30_000);
    dns.addresses(name, ['10.0.0.3', '10.0.0.2'], 20);
    await pass(30_000);
    for (const { told } of [one, other]) {
      expect(told).toEqual([
        ['10.0.0.1', '10.0.0.2'],
        ['10.0.0.2', '10.0.0.3'],
      ]);
    }
    const after = await discovery.instances(service);
    expect(after[0]).toBe(before[1]);
    expect(Object.isFrozen(after)).toBe(true);
  });

  it('a refresh from DNS is shared by the callers meanwhile, who get the known list', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    const before = await discovery.instances(service);
    const answer = defer<readonly unknown[]>();
    dns.set('A', name, answer.promise);
    await pass(30_000);
    for (let ask = 0; ask < 5; ask++) expect(await discovery.instances(service)).toBe(before);
    expect(dns.asked).toHaveLength(2);
    answer.resolve([{ address: '10.0.0.2', ttl: 30 }]);
    await flush();
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.2']);
  });

  it('a refresh from DNS brings a change of weight or priority to watchers', async () => {
    dns.set('SRV', name, [srv('a.test', 80, { weight: 1 })]);
    dns.addresses('a.test', ['10.0.0.1']);
    const discovery = discoveryOf({ services: { [service]: { name, type: 'SRV' } } });
    const told: unknown[] = [];
    discovery.watch(service, (instances) => told.push(instances.map(({ weight }) => weight)));
    await pass(0);
    dns.set('SRV', name, [srv('a.test', 80, { weight: 2 })]);
    await pass(30_000);
    expect(told).toEqual([[1], [2]]);
    dns.set('SRV', name, [srv('.', 0)]);
    await pass(30_000);
    expect(told).toEqual([[1], [2], []]);
    dns.set('SRV', name, [srv('a.test', 80)]);
    await pass(5_000);
    expect(told).toEqual([[1], [2], [], [1]]);
  });

  it('a refresh from DNS comes while the service is watched, or used now and then', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    const { unsubscribe } = watched(discovery);
    await pass(10 * 30_000);
    expect(dns.asked).toHaveLength(11);
    unsubscribe();
    await pass(2 * 30_000);
    await discovery.instances(service);
    await pass(3 * 30_000);
    expect(dns.asked).toHaveLength(16);
    expect(vi.getTimerCount()).toBe(1);
    await pass(30_000);
    expect(dns.asked).toHaveLength(16);
    expect(vi.getTimerCount()).toBe(0);
    dns.addresses(name, ['10.0.0.2']);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.2']);
  });

  it('a refresh from DNS leaves watchers with the last answer, told of each change once, whatever DNS answers', () => {
    const host = fc.integer({ min: 1, max: 4 }).map((last) => `10.0.0.${last}`);
    const answer = fc.oneof(
      { weight: 5, arbitrary: fc.array(host, { minLength: 1, maxLength: 5 }) },
      fc.constantFrom('ESERVFAIL', 'ENOTFOUND', 'ECONNREFUSED'),
    );
    return fc.assert(
      fc.asyncProperty(fc.array(answer, { maxLength: 12 }), async (answers) => {
        dns = new FakeDns();
        const discovery = discoveryOf({ absenceGrace: Infinity });
        const { told } = watched(discovery);
        const expected: string[][] = [];
        for (const said of answers) {
          if (typeof said === 'string') dns.set('A', name, dnsError(said));
          else {
            dns.addresses(name, said);
            const hosts = [...new Set(said)].sort();
            if (JSON.stringify(hosts) !== JSON.stringify(expected.at(-1))) expected.push(hosts);
          }
          await pass(60_000);
        }
        await discovery.close();
        expect(told).toEqual(expected);
      }),
      { numRuns: 100 },
    );
  });
});

describe('when DNS does not answer', () => {
  it.each(['ESERVFAIL', 'ETIMEOUT', 'ECONNREFUSED', 'EREFUSED', 'ECANCELLED'])(
    'when DNS does not answer, the last good answer stays for ever: %s',
    async (code) => {
      dns.addresses(name, ['10.0.0.1']);
      const discovery = discoveryOf();
      const { told } = watched(discovery);
      const failures = failuresOf(discovery);
      const before = await discovery.instances(service);
      dns.set('A', name, dnsError(code));
      await pass(86_400_000);
      expect(await discovery.instances(service)).toBe(before);
      expect(told).toEqual([['10.0.0.1']]);
      expect(failures.length).toBeGreaterThan(1_000);
      expect(new Set(failures)).toEqual(
        new Set([`user-service: DNS does not tell the A records of users.test: ${code}`]),
      );
      dns.addresses(name, ['10.0.0.2']);
      await pass(30_000);
      expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
    },
  );

  it('when DNS does not answer, the lookup is retried soon, then twice as late each time up to maxTtl, half at random', async () => {
    dns.addresses(name, ['10.0.0.1'], 10);
    const discovery = discoveryOf({ services: { [service]: { name, type: 'A' } }, random: () => 1 });
    watched(discovery);
    await flush();
    dns.set('A', name, dnsError('ESERVFAIL'));
    await pass(11_000);
    for (const [retries, wait] of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].entries()) {
      await pass(wait - 1);
      expect(dns.asked).toHaveLength(2 + retries);
      await pass(1);
      expect(dns.asked).toHaveLength(3 + retries);
    }
    dns.addresses(name, ['10.0.0.1'], 10);
    await pass(30_000);
    dns.set('A', name, dnsError('ESERVFAIL'));
    const asked = dns.asked.length;
    await pass(11_000 + 1_000);
    expect(dns.asked).toHaveLength(asked + 2);
  });

  it('when DNS does not answer, the first callers get an error with the name, the code and the cause', async () => {
    const cause = dnsError('ESERVFAIL');
    dns.set('A', name, cause);
    const discovery = discoveryOf();
    const failures = failuresOf(discovery);
    const errors = await Promise.all([
      rejectionOf(discovery.instances(service)),
      rejectionOf(discovery.healthyInstances(service)),
    ]);
    for (const error of errors) {
      expect(error).toBeInstanceOf(DiscoveryUnavailableError);
      expect(error).toMatchObject({
        message: 'DNS does not tell the A records of users.test: ESERVFAIL',
        cause,
      });
    }
    expect(failures).toHaveLength(1);
  });

  it('when DNS does not answer, an unknown name is looked up twice a second at most, and then forgotten', async () => {
    const discovery = discoveryOf();
    for (let ask = 0; ask < 100; ask++) {
      expect(await rejectionOf(discovery.instances(service))).toBeInstanceOf(DiscoveryUnavailableError);
      await pass(10);
    }
    expect(dns.asked).toHaveLength(2);
    await pass(1_000);
    expect(vi.getTimerCount()).toBe(0);
    dns.addresses(name, ['10.0.0.1']);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
  });

  it('when DNS does not answer, watchers are told once it does, and callers wait for the lookup under way', async () => {
    dns.set('A', name, dnsError('ESERVFAIL'));
    const discovery = discoveryOf();
    const { told } = watched(discovery);
    await pass(400);
    const answer = defer<readonly unknown[]>();
    dns.set('A', name, answer.promise);
    await pass(100);
    const asking = follow(discovery.instances(service));
    await flush();
    expect(asking.outcome).toBeUndefined();
    answer.resolve([{ address: '10.0.0.1', ttl: 30 }]);
    await flush();
    expect(asking.outcome).toMatchObject({ ok: true, value: [{ host: '10.0.0.1' }] });
    expect(told).toEqual([['10.0.0.1']]);
  });

  it('when DNS does not answer, the lookup ends after 5 seconds, or `timeout`, and a later answer is ignored', async () => {
    for (const timeout of [undefined, 200]) {
      const answer = defer<readonly unknown[]>();
      dns.set('A', name, answer.promise);
      const discovery = discoveryOf({ timeout });
      const { told } = watched(discovery);
      const asking = follow(discovery.instances(service));
      await pass((timeout ?? 5_000) - 1);
      expect(asking.outcome).toBeUndefined();
      await pass(1);
      expect(asking.outcome).toMatchObject({ ok: false, error: { cause: { name: 'TimeoutError' } } });
      answer.resolve([{ address: '10.0.0.9', ttl: 30 }]);
      await flush();
      expect(told).toEqual([]);
      await discovery.close();
    }
  });

  it('when DNS does not answer and a listener throws, the discovery goes on', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    dns.set('A', name, dnsError('ESERVFAIL'));
    const discovery = discoveryOf();
    discovery.on('failure', () => fling(new Error('broken')));
    const { told } = watched(discovery);
    await flush();
    expect(warn).toHaveBeenCalledTimes(1);
    dns.addresses(name, ['10.0.0.1']);
    await pass(1_000);
    expect(told).toEqual([['10.0.0.1']]);
  });
});

describe('when DNS answers that there is nothing', () => {
  it.each(['ENOTFOUND', 'ENODATA'])(
    'when DNS answers that there is nothing, the last instances stay for 5 minutes, since servers give that answer in error too: %s',
    async (code) => {
      dns.addresses(name, ['10.0.0.1']);
      const discovery = discoveryOf({ services: { [service]: { name, type: 'A' } } });
      const { told } = watched(discovery);
      await flush();
      dns.set('A', name, dnsError(code));
      await pass(30_000 + 299_000);
      expect(told).toEqual([['10.0.0.1']]);
      expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
      await pass(1_000 + 30_000);
      expect(told).toEqual([['10.0.0.1'], []]);
      expect(await discovery.instances(service)).toEqual([]);
      dns.addresses(name, ['10.0.0.2']);
      await pass(30_000);
      expect(told).toEqual([['10.0.0.1'], [], ['10.0.0.2']]);
    },
  );

  it('when DNS answers that there is nothing, the instances go at once without a grace, and stay for ever with an infinite one', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const [none, ever] = [discoveryOf({ absenceGrace: 0 }), discoveryOf({ absenceGrace: Infinity })];
    const [one, other] = [watched(none), watched(ever)];
    await flush();
    dns.forget(name);
    await pass(30_000);
    expect(one.told).toEqual([['10.0.0.1'], []]);
    await pass(86_400_000);
    expect(one.told).toEqual([['10.0.0.1'], []]);
    expect(other.told).toEqual([['10.0.0.1']]);
  });

  it('when DNS answers that there is nothing, the grace begins anew once there was something', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf({ absenceGrace: 60_000 });
    const { told } = watched(discovery);
    await flush();
    for (let time = 0; time < 5; time++) {
      dns.forget(name);
      await pass(50_000);
      dns.addresses(name, ['10.0.0.1']);
      await pass(30_000);
    }
    expect(told).toEqual([['10.0.0.1']]);
  });

  it('when DNS answers that there is nothing and then does not answer, nothing is concluded from its silence', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf({ absenceGrace: 60_000 });
    const { told } = watched(discovery);
    await flush();
    dns.forget(name);
    await pass(30_000);
    dns.set('A', name, dnsError('ESERVFAIL'));
    await pass(86_400_000);
    expect(told).toEqual([['10.0.0.1']]);
    dns.forget(name);
    await pass(30_000);
    expect(told).toEqual([['10.0.0.1'], []]);
  });
});

/** When the service was looked up, in milliseconds from now on. */
function lookupTimes(): number[] {
  const start = performance.now();
  const times: number[] = [];
  const resolve4 = dns.resolve4.bind(dns);
  dns.resolve4 = (asked) => {
    times.push(performance.now() - start);
    return resolve4(asked);
  };
  return times;
}

describe('a name that vanishes from DNS', () => {
  it.each([
    ['ENOTFOUND', 300_000],
    ['ENODATA', 300_000],
    ['ENODATA', 0],
    ['ENODATA', Infinity],
  ])(
    'a name that vanishes from DNS and returns within 5 minutes is seen within 2 seconds: %s, absenceGrace %d',
    async (code, absenceGrace) => {
      let random = 0;
      const discovery = discoveryOf({
        services: { [service]: { name, type: 'A' } },
        absenceGrace,
        minTtl: 20_000,
        random: () => random,
      });
      const { told } = watched(discovery);
      for (const [index, after] of [500, 10_000, 250_000].entries()) {
        random = index / 2;
        dns.addresses(name, [`10.0.0.${index}`]);
        await pass(35_000);
        dns.set('A', name, dnsError(code));
        await pass(33_000 + after);
        dns.addresses(name, [`10.0.1.${index}`]);
        await pass(2_000);
        expect(told.at(-1)).toEqual([`10.0.1.${index}`]);
      }
    },
  );

  it('a name that vanishes from DNS is looked up every 1 to 1.8 seconds for 5 minutes, then ever less often', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const random = vi.fn(() => 0.5);
    watched(discoveryOf({ services: { [service]: { name, type: 'A' } }, random }));
    await flush();
    dns.set('A', name, dnsError('ENOTFOUND'));
    await pass(31_500);
    random.mockReturnValueOnce(0).mockReturnValueOnce(1);
    const times = lookupTimes();
    await pass(600_000);
    const waits = times.map((time, index) => time - (times[index - 1] ?? 0));
    expect(waits.slice(1, 4)).toEqual([1_000, 1_800, 1_400]);
    const often = times.filter((time) => time < 300_000);
    expect(often.length).toBeGreaterThan(200);
    expect(times.length - often.length).toBeLessThan(15);
    expect(Math.max(...waits.slice(0, often.length))).toBeLessThanOrEqual(1_800);
  });

  it('a name that vanishes from DNS is dropped if it is neither watched nor used', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    await discovery.instances(service);
    dns.forget(name);
    await pass(60_000);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
    await pass(100_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a name that changes to a target at the root and returns is seen as soon', async () => {
    dns.set('SRV', name, [srv('a.test', 80)]);
    dns.addresses('a.test', ['10.0.0.1']);
    const { told } = watched(discoveryOf({ services: { [service]: { name, type: 'SRV' } } }));
    await flush();
    dns.set('SRV', name, [srv('.', 0)]);
    await pass(40_000);
    dns.set('SRV', name, [srv('a.test', 80)]);
    await pass(2_000);
    expect(told).toEqual([['10.0.0.1'], [], ['10.0.0.1']]);
  });

  it('a name that vanishes from DNS and then fails is looked up with backoff, since servers may be overloaded', async () => {
    dns.addresses(name, ['10.0.0.1']);
    watched(discoveryOf({ services: { [service]: { name, type: 'A' } } }));
    await flush();
    dns.set('A', name, dnsError('ENODATA'));
    await pass(32_000);
    dns.set('A', name, dnsError('ESERVFAIL'));
    const times = lookupTimes();
    await pass(120_000);
    expect(times.length).toBeLessThan(12);
  });

  it('a name that was never in DNS is not looked up that often, whatever names are used', async () => {
    watched(discoveryOf());
    const times = lookupTimes();
    await pass(300_000);
    expect(times.length).toBeLessThan(30);
  });
});

describe('a hint that a list of DNS is out of date', () => {
  async function followed(options: Partial<DnsServiceDiscoveryOptions> = {}) {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf(options);
    const { told, unsubscribe } = watched(discovery);
    await flush();
    return { discovery, told, unsubscribe };
  }

  it('a hint that a list of DNS is out of date has the service looked up at once, whatever the TTL and minTtl', async () => {
    const { discovery, told } = await followed({ minTtl: 20_000 });
    await pass(1_500);
    dns.addresses(name, ['10.0.0.2']);
    discovery.refresh(service);
    await flush();
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
    const times = lookupTimes();
    await pass(30_000);
    expect(times).toEqual([30_000]);
  });

  it('a hint that a list of DNS is out of date, given all the time, has the service looked up once a second', async () => {
    const { discovery } = await followed();
    const times = lookupTimes();
    for (let time = 0; time < 5_000; time += 10) {
      discovery.refresh(service);
      await pass(10);
    }
    expect(times).toEqual([1_000, 2_000, 3_000, 4_000, 5_000]);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('a hint that a list of DNS is out of date does not put off a lookup that is due sooner', async () => {
    const { discovery } = await followed({ minTtl: 1, maxTtl: 500 });
    const times = lookupTimes();
    discovery.refresh(service);
    await pass(1_000);
    expect(times).toEqual([500, 1_000]);
  });

  it('a hint that a list of DNS is out of date joins a lookup under way, after which it is looked up again soon', async () => {
    const { discovery, told } = await followed();
    const answer = defer<readonly unknown[]>();
    dns.set('A', name, answer.promise);
    await pass(30_500);
    expect(dns.asked).toHaveLength(2);
    for (let hint = 0; hint < 10; hint++) discovery.refresh(service);
    await flush();
    expect(dns.asked).toHaveLength(2);
    answer.resolve([{ address: '10.0.0.1', ttl: 30 }]);
    await flush();
    dns.addresses(name, ['10.0.0.2']);
    await pass(1_999);
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
  });

  it('a hint that a list of DNS is out of date has a change within the next 10 seconds seen within 2 seconds', async () => {
    const { discovery, told } = await followed({ random: () => 1 });
    await pass(5_000);
    const times = lookupTimes();
    discovery.refresh(service);
    await pass(9_000);
    dns.addresses(name, ['10.0.0.2']);
    await pass(2_000);
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
    expect(times).toEqual([0, 1_800, 3_600, 5_400, 7_200, 9_000, 10_800]);
    await pass(32_000);
    expect(times).toHaveLength(7);
  });

  it('a hint that a list of DNS is out of date, without a change, has the service looked up more often for 10 seconds only', async () => {
    const { discovery } = await followed();
    await pass(5_000);
    const times = lookupTimes();
    discovery.refresh(service);
    await pass(60_000);
    expect(times.length).toBeLessThan(14);
    expect(times.filter((time) => time > 11_000)).toEqual([40_000]);
  });

  it('a hint that a list of DNS is out of date, every 10 seconds for ever, is believed for 5 minutes, then brings one lookup each', async () => {
    const { discovery } = await followed();
    await pass(5_000);
    const times = lookupTimes();
    const until = performance.now() + 900_000;
    while (performance.now() < until) {
      discovery.refresh(service);
      await pass(10_000);
    }
    const within = (from: number, to: number) => times.filter((time) => time >= from && time < to).length;
    expect(within(0, 300_000)).toBeGreaterThan(250);
    expect(within(300_000, 600_000)).toBeLessThanOrEqual(31);
    expect(within(600_000, 900_000)).toBe(30);
  });

  it('a hint that a list of DNS is out of date is believed anew once the list has changed', async () => {
    const { discovery, told } = await followed();
    for (let time = 0; time < 400_000; time += 10_000) {
      discovery.refresh(service);
      await pass(10_000);
    }
    dns.addresses(name, ['10.0.0.2']);
    discovery.refresh(service);
    await pass(1_000);
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
    discovery.refresh(service);
    await pass(4_000);
    dns.addresses(name, ['10.0.0.3']);
    await pass(2_000);
    expect(told.at(-1)).toEqual(['10.0.0.3']);
  });

  it('a hint that a list of DNS is out of date has a name looked up at once that did not exist at the first use', async () => {
    const discovery = discoveryOf();
    const { told } = watched(discovery);
    await pass(100_000);
    dns.addresses(name, ['10.0.0.1']);
    discovery.refresh(service);
    await flush();
    expect(told).toEqual([['10.0.0.1']]);
  });

  it('a hint that a list of DNS is out of date has a DNS that does not answer asked once a second, and its return is seen within 2 seconds', async () => {
    const { discovery, told } = await followed({ services: { [service]: { name, type: 'A' } } });
    dns.set('A', name, dnsError('ESERVFAIL'));
    const times = lookupTimes();
    for (let time = 0; time < 60_000; time += 100) {
      discovery.refresh(service);
      await pass(100);
    }
    expect(times.length).toBeGreaterThan(58);
    for (const [index, time] of times.slice(1).entries())
      expect(time - times[index]!).toBeGreaterThanOrEqual(500);
    dns.addresses(name, ['10.0.0.2']);
    discovery.refresh(service);
    await pass(2_000);
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
  });

  it('a hint that a list of DNS is out of date is ignored for a service that is unknown or dropped, and after close()', async () => {
    const { discovery, unsubscribe } = await followed();
    for (const other of ['payment-service', '__proto__', '', 'a b']) discovery.refresh(other);
    unsubscribe();
    await pass(200_000);
    const { length } = dns.asked;
    discovery.refresh(service);
    await pass(10_000);
    expect([dns.asked.length, vi.getTimerCount()]).toEqual([length, 0]);
    await discovery.instances(service);
    await pass(2_000);
    await discovery.close();
    discovery.refresh(service);
    await pass(10_000);
    expect([dns.asked.length, vi.getTimerCount()]).toEqual([length + 1, 0]);
  });

  it('a hint that a list of DNS is out of date does not keep a service that is neither watched nor used', async () => {
    const { discovery, unsubscribe } = await followed();
    unsubscribe();
    for (let time = 0; time < 200_000; time += 500) {
      discovery.refresh(service);
      await pass(500);
    }
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a hint that a list of DNS is out of date may come from a listener, and from one that closes the discovery', async () => {
    const { discovery, told } = await followed();
    discovery.watch(service, () => discovery.refresh(service));
    discovery.on('failure', () => discovery.refresh(service));
    await pass(2_000);
    for (const answer of ['10.0.0.2', 'ESERVFAIL', '10.0.0.3']) {
      if (answer === 'ESERVFAIL') dns.set('A', name, dnsError(answer));
      else dns.addresses(name, [answer]);
      discovery.refresh(service);
      await pass(2_000);
    }
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2'], ['10.0.0.3']]);
    discovery.watch(service, () => {
      discovery.refresh(service);
      void discovery.close();
      discovery.refresh(service);
    });
    dns.addresses(name, ['10.0.0.4']);
    await pass(12_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a hint that a list of DNS is out of date comes in time though the clock of the host jumps', async () => {
    const { discovery, told } = await followed();
    vi.setSystemTime(Date.now() - 86_400_000);
    dns.addresses(name, ['10.0.0.2']);
    discovery.refresh(service);
    await pass(1_000);
    expect(told).toEqual([['10.0.0.1'], ['10.0.0.2']]);
  });
});

it('lookups of a service never overlap, are a second apart, and bring the answer of DNS, whatever is hinted when', () => {
  const step = fc.record({
    answer: fc.constantFrom('10.0.0.1', '10.0.0.2', '10.0.0.3', 'ENODATA', 'ESERVFAIL'),
    duration: fc.constantFrom(0, 0, 10, 900, 2_500),
    hints: fc.nat(3),
    wait: fc.constantFrom(0, 1, 300, 1_000, 5_000, 61_000),
  });
  return fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const lookups: { begin: number; end: number }[] = [];
      // Those of other tests in this process.
      const timers = vi.getTimerCount();
      let now = steps[0];
      const resolve4 = () => {
        const { answer, duration } = now!;
        const lookup = { begin: performance.now(), end: Infinity };
        lookups.push(lookup);
        return new Promise<DnsAddressRecord[]>((resolve, reject) => {
          setTimeout(() => {
            lookup.end = performance.now();
            if (answer.startsWith('E')) reject(dnsError(answer));
            else resolve([{ address: answer, ttl: 5 }]);
          }, duration);
        });
      };
      const discovery = discoveryOf({
        services: { [service]: { name, type: 'A' } },
        resolver: Object.assign(new FakeDns(), { resolve4 }),
        absenceGrace: Infinity,
        random: () => 1,
      });
      if (steps.length > 0) watched(discovery);
      for (const next of steps) {
        now = next;
        for (let hint = 0; hint < next.hints; hint++) discovery.refresh(service);
        await pass(next.wait);
        expect(vi.getTimerCount()).toBeLessThanOrEqual(timers + 2);
      }
      now = { answer: '10.0.0.3', duration: 0, hints: 1, wait: 0 };
      await pass(2_500);
      discovery.refresh(service);
      await pass(2_000);
      if (steps.length > 0) expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.3']);
      for (const [index, { begin }] of lookups.entries()) {
        const before = lookups[index - 1] ?? { begin: -Infinity, end: -Infinity };
        expect(begin - before.begin).toBeGreaterThanOrEqual(1_000);
        expect(begin).toBeGreaterThanOrEqual(before.end);
      }
      await discovery.close();
      // What is still being looked up comes to its end, and nothing follows it.
      await pass(3_000);
      expect(vi.getTimerCount()).toBe(timers);
    }),
    { numRuns: 200 },
  );
});

describe('an update of an instance that DNS has', () => {
  const unhealthy = { status: 'unhealthy' } as const;

  it('an update of an instance that DNS has changes it in this process, and tells watchers with the very list that instances() gives', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const discovery = discoveryOf();
    const told: (readonly ServiceInstance[])[] = [];
    discovery.watch(service, (instances) => told.push(instances));
    await flush();
    expect(await discovery.update(service, '10.0.0.1:80', unhealthy)).toBe(true);
    const instances = await discovery.instances(service);
    expect(instances.map(({ status }) => status)).toEqual(['unhealthy', 'healthy']);
    expect(told).toHaveLength(2);
    expect(told[1]).toBe(instances);
    expect(hostsOf(await discovery.healthyInstances(service))).toEqual(['10.0.0.2']);
    expect(await discovery.update(service, '10.0.0.1:80', unhealthy)).toBe(true);
    expect(told).toHaveLength(2);
  });

  it('an update of an instance that DNS has outlives lookups, failures and an absence, but not the instance', async () => {
    dns.addresses(name, ['10.0.0.1', '10.0.0.2']);
    const discovery = discoveryOf();
    const told: string[] = [];
    discovery.watch(service, (instances) =>
      told.push(instances.map(({ host, status }) => `${host} ${status}`).join(', ')),
    );
    await flush();
    await discovery.update(service, '10.0.0.1:80', unhealthy);
    const before = await discovery.instances(service);
    await pass(65_000);
    dns.set('A', name, dnsError('ESERVFAIL'));
    await pass(65_000);
    dns.forget(name);
    await pass(65_000);
    expect(await discovery.instances(service)).toBe(before);
    dns.addresses(name, ['10.0.0.1']);
    await pass(2_000);
    dns.addresses(name, ['10.0.0.2']);
    await pass(30_000);
    dns.addresses(name, ['10.0.0.1']);
    await pass(30_000);
    expect(told).toEqual([
      '10.0.0.1 healthy, 10.0.0.2 healthy',
      '10.0.0.1 unhealthy, 10.0.0.2 healthy',
      '10.0.0.1 unhealthy',
      '10.0.0.2 healthy',
      '10.0.0.1 healthy',
    ]);
  });

  it('an update of an instance that DNS has may change the weight and the metadata, which then outlive those of SRV records', async () => {
    dns.set('SRV', name, [srv('a.test', 80, { weight: 1 })]);
    dns.addresses('a.test', ['10.0.0.1']);
    const discovery = discoveryOf({ services: { [service]: { name, type: 'SRV' } } });
    watched(discovery);
    await flush();
    expect(await discovery.update(service, '10.0.0.1:80', { weight: 0, metadata: { zone: 'a' } })).toBe(true);
    dns.set('SRV', name, [srv('a.test', 80, { weight: 9 })]);
    dns.set('A', 'a.test', dnsError('ESERVFAIL'));
    await pass(60_000);
    expect(await discovery.instances(service)).toMatchObject([
      { host: '10.0.0.1', weight: 0, metadata: { zone: 'a' } },
    ]);
  });

  it('an update of an instance that DNS has is false where the instance is not known, and waits for a first lookup to know that', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf({ services: { [service]: { name }, gone: { name: 'gone.test' } } });
    const [known, unknown] = [
      discovery.update(service, '10.0.0.1:80', unhealthy),
      discovery.update(service, '10.0.0.2:80', unhealthy),
    ];
    expect([await known, await unknown]).toEqual([true, false]);
    for (const other of ['payment-service', '__proto__', 'gone'])
      expect(await discovery.update(other, '10.0.0.1:80', unhealthy)).toBe(false);
    expect(await discovery.instances(service)).toMatchObject([unhealthy]);
  });

  it('an update of an instance that DNS has rejects if the lookup fails, if a field is wrong, and once the discovery is closed', async () => {
    dns.set('A', name, dnsError('ESERVFAIL'));
    const discovery = discoveryOf();
    expect(await rejectionOf(discovery.update(service, '10.0.0.1:80', unhealthy))).toBeInstanceOf(
      DiscoveryUnavailableError,
    );
    dns.addresses(name, ['10.0.0.1']);
    await pass(1_000);
    expect(
      await rejectionOf(discovery.update(service, '10.0.0.1:80', { status: 'dead' as never })),
    ).toBeInstanceOf(InvalidInstanceError);
    await discovery.close();
    const late = await rejectionOf(discovery.update(service, '10.0.0.1:80', unhealthy));
    expect(late).toBeInstanceOf(ClosedError);
    const other = discoveryOf();
    const waiting = follow(other.update(service, '10.0.0.1:80', unhealthy));
    await other.close();
    await flush();
    expect(waiting.outcome).toMatchObject({ ok: false, error: expect.any(ClosedError) });
  });
});

describe('a faulty part of a DNS answer', () => {
  it('a faulty address family of a DNS answer is a failure event, and the other family is used', async () => {
    dns.set('A', name, dnsError('ESERVFAIL'));
    dns.addresses(name, ['2001:db8::1']);
    const discovery = discoveryOf();
    const failures = failuresOf(discovery);
    expect(hostsOf(await discovery.instances(service))).toEqual(['2001:db8::1']);
    expect(failures).toEqual(['user-service: DNS does not tell the A records of users.test: ESERVFAIL']);
    dns.addresses(name, ['10.0.0.1']);
    await pass(5_000);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
  });

  it('a faulty part of a DNS answer is a failure event, and the rest is used', async () => {
    dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80), srv('b.test', 0)]);
    dns.addresses('b.test', ['10.0.0.2']);
    const discovery = discoveryOf({ services: { [service]: { name, type: 'SRV' } } });
    const failures = failuresOf(discovery);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.2']);
    expect(failures).toEqual([
      'user-service: DNS has no A records of a.test: ENOTFOUND',
      'user-service: the port of an instance must be a whole number from 1 to 65535; got 0',
    ]);
  });

  it('a faulty DNS answer of which nothing can be used leaves the known list', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf({ absenceGrace: 0 });
    const { told } = watched(discovery);
    await flush();
    dns.addresses(name, ['10.0.0.1/']);
    await pass(60_000);
    expect(told).toEqual([['10.0.0.1']]);
  });
});

describe('close() of a DNS discovery', () => {
  it('close() of a DNS discovery can be called twice, and every use after it is rejected', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    const { told } = watched(discovery);
    await flush();
    dns.addresses(name, ['10.0.0.2']);
    await discovery.close();
    await discovery.close();
    expect(vi.getTimerCount()).toBe(0);
    await pass(60_000);
    expect(told).toEqual([['10.0.0.1']]);
    for (const refused of [
      discovery.instances(service),
      discovery.healthyInstances(service),
      discovery.heartbeat(service, '10.0.0.1:80'),
    ]) {
      expect(await rejectionOf(refused)).toBeInstanceOf(ClosedError);
    }
    expect(() => discovery.watch(service, () => {})).toThrow(ClosedError);
  });

  it.each(['A', 'SRV'] as const)(
    'close() of a DNS discovery releases the callers that wait for a lookup, whose later answer is ignored: %s',
    async (type) => {
      const answer = defer<readonly unknown[]>();
      dns.set('SRV', name, [srv('a.test', 80), srv('b.test', 80)]);
      for (const held of [name, 'a.test']) dns.set('A', held, answer.promise);
      dns.addresses('b.test', ['10.0.0.2']);
      const discovery = discoveryOf({ services: { [service]: { name, type } } });
      const { told } = watched(discovery);
      const failures = failuresOf(discovery);
      const asking = follow(discovery.instances(service));
      await flush();
      await discovery.close();
      await flush();
      expect(asking.outcome).toMatchObject({ ok: false, error: expect.any(ClosedError) });
      answer.resolve([{ address: '10.0.0.1', ttl: 30 }]);
      await pass(60_000);
      expect([told, failures]).toEqual([[], []]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it.each<keyof DnsServiceDiscoveryEvents | 'change'>(['failure', 'change'])(
    'close() of a DNS discovery may be called by a listener that is told of a %s',
    async (what) => {
      dns.addresses(name, what === 'change' ? ['10.0.0.1'] : ['?']);
      const discovery = discoveryOf();
      if (what === 'change') discovery.watch(service, () => discovery.close() as never);
      else discovery.on(what, () => void discovery.close());
      expect(await rejectionOf(discovery.instances(service))).toBeInstanceOf(ClosedError);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('close() of a DNS discovery by a watcher ends the notification of the others', async () => {
    dns.addresses(name, ['10.0.0.1']);
    const discovery = discoveryOf();
    discovery.watch(service, () => void discovery.close());
    const { told } = watched(discovery);
    await flush();
    expect(told).toEqual([]);
  });

  it('close() of a DNS discovery cancels the queries of its own resolver, not those of one that was given', async () => {
    const cancel = vi.spyOn(Resolver.prototype, 'cancel').mockReturnValue();
    vi.spyOn(Resolver.prototype, 'resolve4').mockReturnValue(new Promise(() => {}));
    for (const [resolver, times] of [[new Resolver(), 0] as const, [undefined, 1] as const]) {
      const discovery = discoveryOf({ resolver });
      const asking = follow(discovery.instances(service));
      await discovery.close();
      await flush();
      expect(asking.outcome).toMatchObject({ ok: false, error: expect.any(ClosedError) });
      expect(cancel).toHaveBeenCalledTimes(times);
    }
  });
});

describe('DnsServiceDiscovery', () => {
  it.each<[object, string]>([
    [{}, "needs the option 'services'"],
    [
      { services: null },
      "option 'services' must be an object of DNS names, by service, or a function; got null",
    ],
    [{ services: [] }, "option 'services' must be"],
    [{ services: 'users.test' }, "option 'services' must be"],
    [{ services: {}, resolver: {} }, 'resolve4(), resolve6(), resolveSrv()'],
    [{ services: {}, minTtl: 0 }, "option 'minTtl' must be"],
    [{ services: {}, maxTtl: Infinity }, "option 'maxTtl' must be"],
    [{ services: {}, timeout: 0 }, "option 'timeout' must be"],
    [{ services: {}, absenceGrace: -1 }, "option 'absenceGrace' must be"],
    [{ services: {}, random: 1 }, "option 'random' must be"],
    [{ services: {}, ttl: 1 }, "has no option 'ttl'"],
    [{ services: {}, minTtl: 2, maxTtl: 1 }, "option 'minTtl' must be at most 'maxTtl'; got 2 and 1"],
    [{ services: { users: 'users.test' } }, "'users' of DnsServiceDiscovery takes an options object"],
    [{ services: { users: {} } }, "'users' of DnsServiceDiscovery needs the option 'name'"],
    [{ services: { users: { name: '10.0.0.1' } } }, "option 'name' must be a name in DNS"],
    [{ services: { users: { name: 'a b' } } }, "option 'name' must be a name in DNS"],
    [{ services: { users: { name: 'http://users' } } }, "option 'name' must be a name in DNS"],
    [{ services: { users: { name: 'a', type: 'MX' } } }, "option 'type' must be 'A' or 'AAAA' or 'SRV'"],
    [{ services: { users: { name: 'a', port: 0 } } }, "option 'port' must be"],
    [{ services: { users: { name: 'a', protocol: 'ftp' } } }, "option 'protocol' must be"],
    [{ services: { users: { name: 'a', type: 'SRV', port: 80 } } }, "has no option 'port' with SRV records"],
  ])('DnsServiceDiscovery rejects options with the name of the one that is wrong: %j', (options, message) => {
    expect(() => new DnsServiceDiscovery(options as never)).toThrow(message);
  });

  it.each(['users', 'users.test.', '_http._tcp.users.service.consul', 'a'.repeat(63)])(
    'DnsServiceDiscovery takes any DNS name: %s',
    (any) => {
      expect(() => discoveryOf({ services: { users: { name: any } } })).not.toThrow();
    },
  );
});

describe("with Node's own resolver and a DNS server", () => {
  async function real(options: Partial<DnsServiceDiscoveryOptions> = {}, patience = 2_000) {
    const server = await startDnsServer();
    const resolver = new Resolver({ timeout: patience, tries: 1 });
    resolver.setServers([server.address]);
    return { server, discovery: discoveryOf({ resolver, ...options }) };
  }

  /** Resolves with the hosts of the next change. */
  const nextChange = (discovery: DnsServiceDiscovery) =>
    new Promise<string[]>((resolve) => {
      const unsubscribe = discovery.watch(service, (instances) => {
        unsubscribe();
        resolve(hostsOf(instances));
      });
    });

  it("with Node's own resolver and a DNS server, addresses are found, and looked up again when their TTL is over", async () => {
    const { server, discovery } = await real();
    server.set(name, [
      { type: 'A', address: '10.0.0.2', ttl: 11 },
      { type: 'A', address: '10.0.0.1', ttl: 7 },
    ]);
    expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1', '10.0.0.2']);
    server.set(name, [{ type: 'A', address: '10.0.0.3', ttl: 7 }]);
    const change = nextChange(discovery);
    vi.advanceTimersByTime(6_999);
    expect(vi.getTimerCount()).toBe(1);
    vi.advanceTimersByTime(1);
    expect(await change).toEqual(['10.0.0.3']);
    expect(server.questions).toEqual(['A users.test', 'A users.test']);
  });

  it("with Node's own resolver and a DNS server, IPv6 addresses are found where there are no others", async () => {
    const { server, discovery } = await real();
    server.set(name, [{ type: 'AAAA', address: '2001:db8::1:2', ttl: 7 }]);
    expect(hostsOf(await discovery.instances(service))).toEqual(['2001:db8::1:2']);
    expect(server.questions).toEqual(['A users.test', 'AAAA users.test']);
  });

  it("with Node's own resolver and a DNS server, service records are found with their targets, and none at the root", async () => {
    const { server, discovery } = await real({
      services: { [service]: { name: '_http._tcp.users.test', type: 'SRV' } },
    });
    const record = {
      type: 'SRV',
      priority: 1,
      weight: 2,
      port: 8001,
      target: 'u1.users.test',
      ttl: 60,
    } as const;
    server.set('_http._tcp.users.test', [record, { ...record, priority: 0, target: 'u2.users.test' }]);
    server.set('u1.users.test', [{ type: 'A', address: '10.0.0.1', ttl: 60 }]);
    server.set('u2.users.test', [{ type: 'AAAA', address: '::1', ttl: 7 }]);
    expect(await discovery.instances(service)).toMatchObject([
      { host: '::1', port: 8001, weight: 2, metadata: { priority: '0', target: 'u2.users.test' } },
      { host: '10.0.0.1', port: 8001, weight: 2, metadata: { priority: '1', target: 'u1.users.test' } },
    ]);
    server.set('_http._tcp.users.test', [{ ...record, port: 0, target: '.' }]);
    const change = nextChange(discovery);
    vi.advanceTimersByTime(7_000);
    expect(await change).toEqual([]);
  });

  it.each([
    ['SERVFAIL', 'ESERVFAIL'],
    ['REFUSED', 'EREFUSED'],
    ['FORMERR', 'EFORMERR'],
    ['NXDOMAIN', 'ENOTFOUND'],
    ['silence', 'ETIMEOUT'],
  ] as const)(
    "with Node's own resolver and a DNS server, a server that answers %s fails the first lookup with %s, and no later one",
    async (refusal, code) => {
      const { server, discovery } = await real({}, refusal === 'silence' ? 250 : 2_000);
      server.set(name, refusal);
      expect(await rejectionOf(discovery.instances(service))).toMatchObject({
        name: 'DiscoveryUnavailableError',
        message: expect.stringContaining(`records of users.test: ${code}`),
        cause: { code, hostname: name },
      });
      server.set(name, [{ type: 'A', address: '10.0.0.1', ttl: 7 }]);
      vi.advanceTimersByTime(1_000);
      expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
      server.set(name, refusal);
      const failure = new Promise<{ error: Error }>((resolve) => void discovery.once('failure', resolve));
      vi.advanceTimersByTime(7_000);
      expect((await failure).error).toMatchObject({ cause: { code } });
      expect(hostsOf(await discovery.instances(service))).toEqual(['10.0.0.1']);
    },
  );

  it("with Node's own resolver and a DNS server, a server that is not there fails the first lookup at once", async () => {
    const { server, discovery } = await real();
    await server.close();
    expect(await rejectionOf(discovery.instances(service))).toMatchObject({
      cause: { code: 'ECONNREFUSED' },
    });
  });

  it("with Node's own resolver and a DNS server, a name without records of the kind is an absence", async () => {
    const { server, discovery } = await real({ absenceGrace: 0 });
    server.set(name, [{ type: 'A', address: '10.0.0.1', ttl: 7 }]);
    await discovery.instances(service);
    server.set(name, []);
    const change = nextChange(discovery);
    vi.advanceTimersByTime(7_000);
    expect(await change).toEqual([]);
  });

  it("with Node's own resolver and a DNS server, the LoadBalancer follows each change", async () => {
    const { server, discovery } = await real();
    const balancer = new LoadBalancer({ discovery });
    server.set(name, [{ type: 'A', address: '10.0.0.1', ttl: 7 }]);
    expect(await balancer.getInstance(service)).toMatchObject({ host: '10.0.0.1' });
    server.set(name, [{ type: 'A', address: '10.0.0.2', ttl: 7 }]);
    const change = nextChange(discovery);
    vi.advanceTimersByTime(7_000);
    await change;
    expect(await balancer.getInstance(service)).toMatchObject({ host: '10.0.0.2' });
    balancer.close();
  });

  it("with Node's own resolver and a DNS server, a process ends by itself, whatever lookups are planned or under way", {
    timeout: 20_000,
  }, async () => {
    const { server } = await real();
    server.set(name, [{ type: 'A', address: '10.0.0.1', ttl: 7 }]);
    const module = new URL('../../src/discovery/dns-service-discovery.ts', import.meta.url);
    const script = `
      import { Resolver } from 'node:dns/promises';
      import { DnsServiceDiscovery } from '${module}';
      const resolver = new Resolver();
      resolver.setServers(['${server.address}']);
      const discovery = new DnsServiceDiscovery({ services: { users: { name: '${name}' } }, resolver });
      discovery.watch('users', () => {});
      const never = () => new Promise(() => {});
      const silent = { resolve4: never, resolve6: never, resolveSrv: never };
      const waiting = new DnsServiceDiscovery({
        services: { users: { name: '${name}' } },
        resolver: silent,
        timeout: 60_000,
      });
      waiting.watch('users', () => {});
      console.log((await discovery.instances('users')).length);
    `;
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--input-type=module', '--eval', script],
      { timeout: 15_000 },
    );
    expect(stdout).toBe('1\n');
  });
});

describe('names that come from requests', () => {
  it('names that come from requests and are not in DNS are kept for the latest 1,000, each until its next lookup', async () => {
    const dns = new FakeDns();
    const discovery = new DnsServiceDiscovery({
      services: (name) => ({ name: `${name}.test`, port: 1 }),
      resolver: dns,
    });
    onTestFinished(() => discovery.close());
    const ask = (index: number) => rejectionOf(discovery.instances(`nobody-${index}`));
    for (let index = 0; index < 1_500; index++) await ask(index);
    expect(vi.getTimerCount()).toBeLessThanOrEqual(1_000);
    const asked = dns.asked.length;
    await ask(1_499);
    expect(dns.asked).toHaveLength(asked);
    await ask(0);
    expect(dns.asked.length).toBeGreaterThan(asked);
  });
});
