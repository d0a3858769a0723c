import { afterEach, beforeEach, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import type { AcquireOptions } from '../../src/balancing/acquire-options.ts';
import type { CallResult, Lease } from '../../src/balancing/lease.ts';
import { LoadBalancer, type LoadBalancerEvents } from '../../src/balancing/load-balancer.ts';
import type { LoadBalancerOptions } from '../../src/balancing/load-balancer-options.ts';
import type { BalancingStrategy, Candidate, PickRequest } from '../../src/balancing/strategy.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { type ServiceInstance, toInstance } from '../../src/discovery/service-instance.ts';
import { fakeTime } from '../policies/helpers.ts';

export const service = 'user-service';

/** Time stands still and chance repeats itself in every test of the file. */
export function fakeTimeAndChance(): void {
  const { random } = Math;
  beforeEach(() => {
    fakeTime();
    Math.random = seeded(1);
  });
  afterEach(() => {
    Math.random = random;
  });
}

export function instance(instanceId: string, details: Partial<ServiceInstance> = {}): ServiceInstance {
  return toInstance({ serviceName: service, instanceId, host: `${instanceId}.test`, port: 80, ...details });
}

export interface World {
  readonly balancer: LoadBalancer;
  /** The events of the balancer since the world was made, in order: 'eject a'. */
  readonly told: string[];
  readonly ejections: LoadBalancerEvents['eject'][0][];
  join(instanceId: string, details?: Partial<ServiceInstance>): Promise<unknown>;
  leave(instanceId: string): Promise<unknown>;
  acquire(options?: AcquireOptions): Lease;
  /**
   * A place on that very instance, without a probe of another: as a retry if the instance is in rotation, else as a first
   * attempt, which is its probe if that is due.
   */
  acquireOn(instanceId: string): Lease;
  /** Calls that are over at once, one after the other. */
  fail(instanceId: string, times: number, result?: CallResult): void;
  /** The instances that get the next calls, each of which succeeds before the next begins. */
  picks(count: number, options?: AcquireOptions): string[];
}

/** A balancer of the one service that there is, resolved, with no pick made. */
export async function world(
  instances: readonly (string | ServiceInstance)[],
  options: Omit<LoadBalancerOptions, 'discovery'> = {},
): Promise<World> {
  const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  const ids = new Set<string>();
  const register = (joining: ServiceInstance) => {
    ids.add(joining.instanceId);
    return discovery.register(joining);
  };

  const balancer = new LoadBalancer({ discovery, ...options });
  const told: string[] = [];
  const ejections: LoadBalancerEvents['eject'][0][] = [];
  for (const event of ['join', 'renew', 'leave', 'eject', 'return'] as const) {
    balancer.on(event, ({ instance: { instanceId } }) => told.push(`${event} ${instanceId}`));
  }
  balancer.on('eject', (ejection) => ejections.push(ejection));
  await balancer.getInstance(service);
  for (const entry of instances) await register(typeof entry === 'string' ? instance(entry) : entry);

  const acquire = (acquireOptions?: AcquireOptions): Lease => {
    const lease = balancer.tryAcquire(service, acquireOptions);
    if (lease === undefined) throw new Error('there is no instance');
    return lease;
  };
  const acquireOn = (instanceId: string): Lease => {
    const exclude = new Set(ids);
    exclude.delete(instanceId);
    const others: Lease[] = [];
    try {
      for (let attempt = 0; attempt <= 4 * ids.size; attempt++) {
        const lease = acquire(attempt === 0 ? { exclude } : {});
        if (lease.instance.instanceId === instanceId) return lease;
        others.push(lease);
      }
    } finally {
      for (const lease of others) lease.release({ cancelled: true });
    }
    throw new Error(`${instanceId} gets no calls`);
  };
  return {
    balancer,
    told,
    ejections,
    join: (instanceId, details) => register(instance(instanceId, details)),
    leave: (instanceId) => discovery.deregister(service, instanceId),
    acquire,
    acquireOn,
    fail: (instanceId, times, result) => {
      for (let time = 0; time < times; time++)
        acquireOn(instanceId).release({ error: new Error('down'), ...result });
    },
    picks: (count, acquireOptions) =>
      Array.from({ length: count }, () => {
        const lease = acquire(acquireOptions);
        lease.release();
        return lease.instance.instanceId;
      }),
  };
}

/** How often each occurs. */
export function tally(ids: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const id of ids) counts[id] = (counts[id] ?? 0) + 1;
  return counts;
}

/**
 * A call every millisecond, each of which takes as long and ends as its instance makes it.
 * Gives how many calls each instance got.
 */
export function traffic(
  { acquire }: World,
  calls: number,
  serve: (instanceId: string) => { takes: number; error?: unknown },
): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let call = 0; call < calls; call++) {
    const lease = acquire();
    const { instanceId } = lease.instance;
    counts[instanceId] = (counts[instanceId] ?? 0) + 1;
    const { takes, error } = serve(instanceId);
    if (takes === 0) lease.release({ error });
    else setTimeout(() => lease.release({ error }), takes);
    vi.advanceTimersByTime(1);
  }
  vi.runAllTimers();
  return counts;
}

/** The arguments of a strategy, with a count of all that it looks at. */
export function watched(size: number): {
  readonly candidates: readonly Candidate[];
  readonly request: PickRequest;
  /** How much was looked at since the last time of asking. */
  looks(): number;
} {
  let looks = 0;
  const plain = Array.from({ length: size }, (_, index): Candidate => {
    const described = instance(`i${index}`);
    return {
      get instance() {
        looks++;
        return described;
      },
      get weight() {
        looks++;
        return described.weight;
      },
      get slowStartFactor() {
        looks++;
        return 1;
      },
      get inFlight() {
        looks++;
        return index % 7;
      },
      failing: false,
      latencyAt: () => {
        looks++;
        return index % 11;
      },
    };
  });
  const candidates = new Proxy(plain, {
    get(target, key, receiver) {
      if (typeof key === 'string' && /^\d+$/.test(key)) looks++;
      return Reflect.get(target, key, receiver);
    },
  });
  const request: PickRequest = { hashKey: undefined, now: 0, accepts: () => true, explores: () => false };
  return {
    candidates,
    request,
    looks: () => {
      const seen = looks;
      looks = 0;
      return seen;
    },
  };
}

/** Round-robin that always starts with the first, so that a test can say who gets which call. */
export const inTurn: BalancingStrategy = (candidates) => {
  let next = 0;
  return (request) => {
    for (let offset = 0; offset < candidates.length; offset++) {
      const candidate = candidates[next++ % candidates.length]!;
      if (request.accepts(candidate)) return candidate;
    }
    return undefined;
  };
};

export const strategies = [
  'round-robin',
  'random',
  'least-connections',
  'power-of-two',
  'peak-ewma',
  'weighted-round-robin',
  'consistent-hash',
] as const;

/** The most that a pick of the strategy looks at, over many picks. */
export function mostLooks(strategy: BalancingStrategy, size: number): number {
  const { candidates, request, looks } = watched(size);
  const pick = strategy(candidates, { random: Math.random });
  looks();
  let most = 0;
  for (let round = 0; round < 1_000; round++) {
    pick(request);
    most = Math.max(most, looks());
  }
  return most;
}
