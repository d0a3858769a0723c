import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import { DepartedNodes } from '../../src/balancing/departed-nodes.ts';
import { MeanLatency } from '../../src/balancing/latency.ts';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { Node } from '../../src/balancing/node.ts';
import { DnsServiceDiscovery } from '../../src/discovery/dns-service-discovery.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';
import { FakeDns } from '../discovery/dns-helpers.ts';
import { pass } from '../policies/helpers.ts';
import { fakeTimeAndChance, instance, inTurn, service, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const outlierDetection = { consecutiveFailures: 2, successRate: false } as const;
/** The process of each instance stays the same. */
const at = (id: string, details: Partial<ServiceInstance> = {}) =>
  instance(id, { registeredAt: 1, ...details });
const FIVE_MINUTES = 300_000;

async function fleetOf(...ids: string[]) {
  const fleet = await world(
    ids.map((id) => at(id)),
    { strategy: inTurn, outlierDetection, slowStart: { duration: 10_000 } },
  );
  vi.advanceTimersByTime(10_000);
  const back = (id: string, details?: Partial<ServiceInstance>) => fleet.join(id, at(id, details));
  return { ...fleet, back };
}

describe('an instance that leaves the list and returns', () => {
  it('an instance that leaves the list and returns is still ejected, and due for its probe in time', async () => {
    const fleet = await fleetOf('a', 'b');
    fleet.fail('a', 2);
    await fleet.leave('a');
    await fleet.back('a');
    expect(fleet.picks(4)).toEqual(['b', 'b', 'b', 'b']);
    await fleet.leave('a');
    vi.advanceTimersByTime(1_200);
    await fleet.back('a');
    const probe = fleet.acquire();
    expect([probe.instance.instanceId, probe.probe]).toEqual(['a', true]);
    probe.release();
    expect(fleet.told.slice(-2)).toEqual(['join a', 'return a']);
  });

  it('an instance that leaves the list and returns keeps its latency, its failures in a row and its calls under way', async () => {
    const fleet = await fleetOf('a', 'b');
    fleet.acquireOn('a').release({ latency: 70 });
    const { candidate } = fleet.acquireOn('a');
    fleet.fail('a', 1);
    const latency = candidate.latencyAt(0);
    await fleet.leave('a');
    await fleet.back('a', { metadata: { version: '2' } });
    const lease = fleet.acquireOn('a');
    expect(lease.candidate).toBe(candidate);
    expect([candidate.inFlight, candidate.latencyAt(0)]).toEqual([2, latency]);
    expect(candidate.instance.metadata).toEqual({ version: '2' });
    lease.release({ error });
    expect(fleet.told.at(-1)).toBe('eject a');
  });

  it('an instance that leaves the list and returns begins no slow start, and goes on with one', async () => {
    const fleet = await fleetOf('a', 'b');
    await fleet.leave('b');
    await fleet.back('b');
    expect(fleet.acquireOn('b').candidate.weight).toBe(1);
    await fleet.back('c');
    vi.advanceTimersByTime(5_000);
    await fleet.leave('c');
    vi.advanceTimersByTime(2_000);
    await fleet.back('c');
    expect(fleet.acquireOn('c').candidate.weight).toBeCloseTo(0.7);
  });

  it('an instance that leaves the list while it gets no calls has a slow start when it returns', async () => {
    const fleet = await fleetOf('a', 'b');
    await fleet.back('b', { status: 'unhealthy' });
    await fleet.leave('b');
    await fleet.back('b');
    expect(fleet.acquireOn('b').candidate.weight).toBe(0.1);
  });

  it.each<[string, number, Partial<ServiceInstance>]>([
    ['after five minutes', FIVE_MINUTES, {}],
    ['as another process', 0, { registeredAt: 2 }],
    ['at another address', 0, { port: 81 }],
  ])('an instance that leaves the list and returns %s is new', async (_, away, details) => {
    const fleet = await fleetOf('a', 'b');
    fleet.fail('a', 2);
    await fleet.leave('a');
    vi.advanceTimersByTime(away);
    await fleet.back('a', details);
    expect(fleet.acquireOn('a')).toMatchObject({ probe: false, candidate: { weight: 0.1, inFlight: 1 } });
  });

  it('an instance that leaves the list and returns learns nothing of calls that began before, and a probe among them stays the only one', async () => {
    const fleet = await fleetOf('a', 'b');
    const call = fleet.acquireOn('a');
    fleet.fail('a', 2);
    vi.advanceTimersByTime(1_200);
    const probe = fleet.acquireOn('a');
    expect(probe.probe).toBe(true);
    await fleet.leave('a');
    await fleet.back('a');
    expect(fleet.picks(2)).toEqual(['b', 'b']);
    expect([probe.release(), call.release({ error })]).toEqual(['outdated', 'outdated']);
    expect(fleet.acquireOn('a').probe).toBe(true);
  });
});

it('an ejected instance of a fleet of which DNS gives another part each time costs no more calls than in a whole one', async () => {
  const dns = new FakeDns();
  const all = Array.from({ length: 12 }, (_, index) => `10.0.0.${index + 1}`);
  const random = seeded(1);
  const draw = () =>
    all
      .map((host) => ({ host, rank: random() }))
      .sort((one, other) => one.rank - other.rank)
      .map(({ host }) => host);
  dns.addresses('users.test', all, 5);
  const discovery = new DnsServiceDiscovery({
    services: { [service]: { name: 'users.test' } },
    resolver: dns,
  });
  onTestFinished(() => discovery.close());
  const balancer = new LoadBalancer({ discovery, strategy: 'round-robin' });
  onTestFinished(() => balancer.close());
  let [plain, probes, absences] = [0, 0, 0];
  balancer.on('leave', ({ instance: { host } }) => host === '10.0.0.1' && absences++);
  await balancer.getInstance(service);
  for (let lookup = 0; lookup < 40; lookup++) {
    for (let call = 0; call < 60; call++) {
      const lease = balancer.tryAcquire(service)!;
      const failed = lease.instance.host === '10.0.0.1';
      if (failed && lease.probe) probes++;
      else if (failed) plain++;
      lease.release(failed ? { error } : {});
    }
    dns.addresses('users.test', draw().slice(0, 8), 5);
    await pass(6_000);
  }
  expect(absences).toBeGreaterThan(5);
  expect(plain).toBe(5);
  expect(probes).toBeLessThan(40);
});

describe('the instances that have left a service', () => {
  const nodeOf = (id: string) => new Node(at(id), new MeanLatency());

  it('the instances that have left a service are kept up to a thousand, the latest ones', () => {
    const departed = new DepartedNodes();
    const nodes = Array.from({ length: 1_001 }, (_, index) => nodeOf(`i${index}`));
    for (const node of nodes) departed.add(node.instance.instanceId, node, 0);
    departed.dropOutdated(0);
    const taken = nodes.map((node) => departed.take(node.instance.instanceId, node.instance, 0)?.node);
    expect(taken).toEqual([undefined, ...nodes.slice(1)]);
    expect(departed.take('i1', nodes[1]!.instance, 0)).toBeUndefined();
  });

  it('the instances that have left a service are dropped after five minutes', () => {
    const departed = new DepartedNodes();
    const [a, b] = [nodeOf('a'), nodeOf('b')];
    departed.add('a', a, 0);
    departed.add('b', b, FIVE_MINUTES);
    departed.dropOutdated(FIVE_MINUTES);
    expect(departed.take('a', a.instance, 0)).toBeUndefined();
    expect(departed.take('b', b.instance, FIVE_MINUTES)).toMatchObject({ node: b });
  });

  it('the instances that have left a service are dropped with the next list, though nothing else leaves', async () => {
    const dropOutdated = vi.spyOn(DepartedNodes.prototype, 'dropOutdated');
    const fleet = await fleetOf('a', 'b');
    await fleet.leave('a');
    vi.advanceTimersByTime(FIVE_MINUTES);
    await fleet.back('b', { metadata: { version: '2' } });
    expect(dropOutdated.mock.lastCall).toEqual([performance.now()]);
    dropOutdated.mockRestore();
  });
});
